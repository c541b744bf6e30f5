"""Detection through NVML, with a programmable NVML in place of a driver."""

# ruff: noqa: N802 - the names are those of the library

from types import SimpleNamespace

import pytest

from pytest_qwen.detect import detect

MIB = 2**20


class NVMLError(Exception):
    pass


class FakeNvml:
    """pynvml's functions over a list of cards; a missing value raises as an unsupported question does."""

    NVML_CLOCK_SM = 1
    NVMLError = NVMLError

    def __init__(self, *cards, driver_there=True):
        self.cards = cards
        self.driver_there = driver_there
        self.open = 0

    def nvmlInit(self):
        if not self.driver_there:
            raise NVMLError("driver not loaded")
        self.open += 1

    def nvmlShutdown(self):
        self.open -= 1

    def nvmlSystemGetDriverVersion(self):
        return b"580.159.04"

    def nvmlDeviceGetCount(self):
        return sum(not card["uuid"].startswith("MIG-") for card in self.cards)

    def nvmlDeviceGetHandleByIndex(self, index):
        return self.cards[index]

    def nvmlDeviceGetHandleByUUID(self, uuid):
        for card in self.cards:
            if card["uuid"] == uuid:
                return card
        raise NVMLError(uuid)

    def _of(self, card, name):
        if name not in card:
            raise NVMLError(f"{name} not supported")
        return card[name]

    def nvmlDeviceGetName(self, card):
        return self._of(card, "name")

    def nvmlDeviceGetUUID(self, card):
        return card["uuid"]

    def nvmlDeviceGetMemoryInfo(self, card):
        return SimpleNamespace(total=self._of(card, "mib") * MIB)

    def nvmlDeviceGetMigMode(self, card):
        return self._of(card, "mig")

    def nvmlDeviceGetCudaComputeCapability(self, card):
        return self._of(card, "capability")

    def nvmlDeviceGetPowerManagementLimit(self, card):
        return self._of(card, "limit_mw")

    def nvmlDeviceGetPowerManagementDefaultLimit(self, card):
        return self._of(card, "default_mw")

    def nvmlDeviceGetMaxClockInfo(self, card, clock):
        assert clock == self.NVML_CLOCK_SM
        return self._of(card, "max_mhz")


H200 = {
    "name": "NVIDIA H200",
    "uuid": "GPU-aaaa-1",
    "mib": 143771,
    "mig": [0, 0],
    "capability": (9, 0),
    "limit_mw": 500_000,
    "default_mw": 700_000,
    "max_mhz": 1980,
}
OTHER = {**H200, "uuid": "GPU-bbbb-2"}
BARE = {"name": b"NVIDIA Something New", "uuid": b"GPU-cccc-3".decode(), "mib": 1000}
SLICE = {"name": "NVIDIA A100-SXM4-40GB MIG 1g.5gb", "uuid": "MIG-dddd-4", "mib": 4864}


def visible(nvml, value):
    environ = {} if value is None else {"CUDA_VISIBLE_DEVICES": value}
    return [device.uuid for device in detect(nvml, environ)]


def test_a_card_is_read_in_full_and_nvml_is_closed():
    nvml = FakeNvml(H200)
    (device,) = detect(nvml, {})
    assert device.spec is not None
    assert device.spec.alias == "h200"
    assert device.memory_bytes == 143771 * MIB
    assert (device.power_limit_w, device.power_default_w) == (500.0, 700.0)
    assert (device.driver, device.compute_capability, device.max_sm_clock_mhz) == ("580.159.04", "9.0", 1980)
    assert device.mig is False
    assert nvml.open == 0


def test_what_a_card_does_not_answer_is_unknown():
    (device,) = detect(FakeNvml(BARE), {})
    assert device.name == "NVIDIA Something New"
    assert device.spec is None
    unknown = (device.mig, device.power_limit_w, device.compute_capability, device.max_sm_clock_mhz)
    assert unknown == (None, None, None, None)


def test_no_driver_is_no_gpu():
    nvml = FakeNvml(H200, driver_there=False)
    assert detect(nvml, {}) == ()
    assert nvml.open == 0


def test_a_driver_that_fails_halfway_is_no_gpu_and_is_closed():
    nvml = FakeNvml({"name": "x", "uuid": "GPU-x"})
    assert detect(nvml, {}) == ()
    assert nvml.open == 0


def test_the_real_library_never_raises():
    assert isinstance(detect(), tuple)


@pytest.mark.parametrize(
    ("value", "uuids"),
    [
        (None, ["GPU-aaaa-1", "GPU-bbbb-2"]),
        ("", []),
        ("-1", []),
        ("1", ["GPU-bbbb-2"]),
        ("1,0", ["GPU-bbbb-2", "GPU-aaaa-1"]),
        ("0,7,1", ["GPU-aaaa-1"]),
        ("GPU-bbbb", ["GPU-bbbb-2"]),
        ("GPU-", []),
        ("MIG-dddd-4", ["MIG-dddd-4"]),
        ("MIG-none", []),
        ("nonsense", []),
    ],
)
def test_cuda_visible_devices_is_honoured_as_cuda_does(value, uuids):
    assert visible(FakeNvml(H200, OTHER, SLICE), value) == uuids


def test_devices_are_numbered_as_cuda_numbers_them():
    devices = detect(FakeNvml(H200, OTHER), {"CUDA_VISIBLE_DEVICES": "1,0"})
    assert [(d.index, d.uuid) for d in devices] == [(0, "GPU-bbbb-2"), (1, "GPU-aaaa-1")]


def test_a_slice_is_a_slice_and_no_catalogue_card():
    (device,) = detect(FakeNvml(SLICE), {"CUDA_VISIBLE_DEVICES": "MIG-dddd-4"})
    assert device.mig is True
    assert device.spec is None
