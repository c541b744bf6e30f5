"""What NVML and /proc say, read from fakes of both and from this machine's kernel."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from pytest_qwen.errors import Unavailable
from pytest_qwen.readers import GpuSample, NvmlReader, ProcReader


class NVMLError(Exception):
    """Named as pynvml's."""


def find_by_uuid(uuid: str) -> str:
    if uuid != "GPU-1":
        raise NVMLError("Not Found")
    return uuid


# pynvml's functions about one card, and their answers
ANSWERS = {
    "nvmlDeviceGetMaxClockInfo": 1980,
    "nvmlDeviceGetClockInfo": 1755,
    "nvmlDeviceGetCurrentClocksEventReasons": 0x04 | 0x40,
    "nvmlDeviceGetTemperature": 61,
    "nvmlDeviceGetPowerUsage": 350_500,
    "nvmlDeviceGetTotalEnergyConsumption": 12_000,
    "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=87),
    "nvmlDeviceGetMemoryInfo": SimpleNamespace(used=123),
    "nvmlDeviceGetComputeRunningProcesses": [SimpleNamespace(pid=os.getpid())],
    "nvmlDeviceGetMigMode": (0, 0),
}


def nvml(*, tells: bool = True) -> SimpleNamespace:
    """A module with pynvml's functions; one whose card does not `tell` raises as the driver does."""

    def answer(name: str, handle: object, *arguments: object) -> object:
        if not tells:
            raise NVMLError("Not Supported")
        return ANSWERS[name]

    return SimpleNamespace(
        NVMLError=NVMLError,
        NVML_CLOCK_SM=1,
        NVML_TEMPERATURE_GPU=0,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetHandleByUUID=find_by_uuid,
        **{name: partial(answer, name) for name in ANSWERS},
    )


def test_everything_is_read_in_our_units() -> None:
    sample = NvmlReader("GPU-1", nvml()).sample()
    comm = Path("/proc/self/comm").read_text().strip()
    assert sample == GpuSample(
        sm_clock_mhz=1755,
        sm_clock_max_mhz=1980,
        clock_reasons=("sw power cap", "hw thermal slowdown"),
        temperature_c=61,
        power_w=350.5,
        energy_j=12.0,
        utilization_ratio=0.87,
        memory_used_bytes=123,
        processes=((os.getpid(), f"{comm} (pid {os.getpid()})"),),
        mig=False,
    )


def test_what_a_card_does_not_tell_is_unknown() -> None:
    assert NvmlReader(0, nvml(tells=False)).sample() == GpuSample()


def test_an_unknown_device_is_unavailable() -> None:
    with pytest.raises(Unavailable, match=r"(?s)GPU-2.*Not Found"):
        NvmlReader("GPU-2", nvml())


def test_the_kernel_counts(tmp_path: Path) -> None:
    tick = os.sysconf("SC_CLK_TCK")
    (tmp_path / "stat").write_text("cpu  100 0 200 600 50 0 10 40 0 0\ncpu0 1 2 3\n")
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "stat").write_text("7 (a (b) c) S 1 " + " ".join(str(n) for n in range(5, 40)))
    sample = ProcReader(tmp_path).sample(7)
    assert sample is not None
    assert sample.total_s == pytest.approx(1000 / tick)
    assert sample.busy_s == pytest.approx(350 / tick)
    assert sample.steal_s == pytest.approx(40 / tick)
    assert sample.engine_s == pytest.approx((14 + 15) / tick)  # utime and stime: fields 14 and 15 of proc(5)


def test_a_process_that_is_gone_and_a_system_without_proc(tmp_path: Path) -> None:
    assert ProcReader(tmp_path).sample(None) is None
    (tmp_path / "stat").write_text("cpu  1 1 1 1 1 1 1 1 0 0\n")
    sample = ProcReader(tmp_path).sample(7)
    assert sample is not None
    assert sample.engine_s is None


PARENT_OF_ONE = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], start_new_session=True)
print(child.pid, flush=True)
child.wait()
"""


def test_descendants_are_ours() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT_OF_ONE], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        grandchild = int(child.stdout.readline())
        reader = ProcReader()
        assert all(reader.is_ours(pid) for pid in (os.getpid(), child.pid, grandchild))
        assert not reader.is_ours(os.getppid())
        assert not reader.is_ours(2**22 + 1)
        child.stdin.close()
