"""Which GPU a run is for, and whether a test's marks match it."""

import pytest

from pytest_qwen import gpus
from pytest_qwen.errors import Misuse
from pytest_qwen.gpus import Device
from pytest_qwen.markers import Gpu
from pytest_qwen.prices import parse_prices
from pytest_qwen.target import Target, mismatch, priced, resolve


def device(alias: str | None, name: str = "", index: int = 0) -> Device:
    spec = gpus.CATALOGUE[alias] if alias else None
    size = int((spec.memory_gb if spec else 16) * 1e9)
    return Device(
        index=index,
        uuid=f"GPU-{index}",
        name=name or (spec.name if spec else ""),
        spec=spec,
        memory_bytes=size,
    )


H100_NVL = device("h100-nvl")
UNKNOWN = device(None, "NVIDIA Prototype")


def test_auto_takes_what_is_there():
    target = resolve("auto", (H100_NVL,), planning=False)
    assert target.spec is gpus.CATALOGUE["h100-nvl"]
    assert not target.named


def test_auto_without_a_gpu_is_the_cpu():
    assert resolve("auto", (), planning=False).is_cpu


def test_auto_takes_only_cards_of_the_first_kind():
    l4s = (device("l4", index=0), device("t4", index=1), device("l4", index=2))
    assert [d.index for d in resolve("auto", l4s, planning=False).devices] == [0, 2]


def test_a_family_name_matches_the_form_that_is_there():
    assert resolve("h100", (H100_NVL,), planning=False).spec is gpus.CATALOGUE["h100-nvl"]


@pytest.mark.parametrize("devices", [(), (device("l4"),), (UNKNOWN,)])
def test_a_gpu_that_is_not_there_is_an_error_that_says_what_is(devices):
    with pytest.raises(Misuse) as caught:
        resolve("h100", devices, planning=False)
    assert "this machine has no such GPU" in str(caught.value)
    assert (devices[0].label if devices else "NVML found none") in str(caught.value)


def test_an_unknown_name_is_an_error_with_the_likely_one():
    with pytest.raises(Misuse, match="did you mean"):
        resolve("h10", (), planning=False)


def test_planning_needs_no_device():
    target = resolve("h100", (), planning=True)
    assert target.devices == ()
    assert target.spec is gpus.CATALOGUE["h100"]


@pytest.mark.parametrize(
    ("wanted", "target", "part"),
    [
        (
            Gpu(names=("l4",)),
            resolve("auto", (H100_NVL,), planning=False),
            "wants gpu l4; this run is on NVIDIA H100 NVL",
        ),
        (Gpu(names=("h100-pcie",)), resolve("auto", (H100_NVL,), planning=False), "wants gpu h100-pcie"),
        (
            Gpu(names=("l4", "t4")),
            resolve("cpu", (), planning=False),
            "wants gpu l4 or t4; this run is on CPU",
        ),
        (Gpu(), resolve("cpu", (), planning=False), "wants a gpu"),
        (Gpu(names=("cpu",)), resolve("auto", (H100_NVL,), planning=False), "wants gpu cpu"),
        (
            Gpu(names=("h100",), count=2),
            resolve("auto", (H100_NVL,), planning=False),
            "wants 2 GPUs; this run has 1",
        ),
        (Gpu(min_memory_gb=100), resolve("auto", (H100_NVL,), planning=False), "at least 100 GB"),
        (
            Gpu(names=("l4",)),
            Target(asked="auto", spec=None, devices=(UNKNOWN,)),
            "this run is on NVIDIA Prototype",
        ),
    ],
)
def test_a_mismatch_says_what_was_wanted_and_what_was_found(wanted, target, part):
    assert part in (mismatch(wanted, target) or "")


@pytest.mark.parametrize(
    "wanted",
    [
        None,
        Gpu(),
        Gpu(names=("h100",)),
        Gpu(names=("l4", "h100-nvl")),
        Gpu(names=("h100",), min_memory_gb=90),
    ],
)
def test_a_match_gives_no_reason(wanted):
    assert mismatch(wanted, resolve("auto", (H100_NVL,), planning=False)) is None


def test_the_cpu_matches_its_name():
    assert mismatch(Gpu(names=("cpu",)), resolve("cpu", (), planning=False)) is None


def test_a_price_file_prices_cards_and_the_cpu_and_changes_nothing_else():
    book = parse_prices("[cards.h100-nvl]\nusd_per_hour = 3\n[cards.cpu]\nusd_per_hour = 0.1", "mine.toml")
    found = priced(resolve("auto", (H100_NVL, device("h100-nvl", index=1)), planning=False), book)
    assert [d.spec.price_per_hour_usd for d in found.devices] == [3.0, 3.0]
    assert found.spec.price_per_hour_usd == 3.0
    assert found.spec.bandwidth_gb_per_sec == H100_NVL.spec.bandwidth_gb_per_sec
    cpu = priced(resolve("cpu", (), planning=False), book)
    assert cpu.spec.price_per_hour_usd == 0.1
    assert cpu.is_cpu
    other = resolve("l4", (), planning=True)
    assert priced(other, book) == other
    unknown = Target(asked="auto", spec=None, devices=(UNKNOWN,))
    assert priced(unknown, book) == unknown
