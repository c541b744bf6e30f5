"""What the GPU's driver and the host's kernel say at one instant; None is unknown."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pytest_qwen.errors import Unavailable, explain

T = TypeVar("T")

# Bits of nvmlClocksEventReasons (nvml.h), in words.
_CLOCK_REASONS = {
    0x001: "gpu idle",
    0x002: "application clocks setting",
    0x004: "sw power cap",
    0x008: "hw slowdown",
    0x010: "sync boost",
    0x020: "sw thermal slowdown",
    0x040: "hw thermal slowdown",
    0x080: "hw power brake",
    0x100: "display clock setting",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuSample:
    """One reading of one GPU. `energy_j` counts since the driver was loaded; `processes` are (pid, name)."""

    sm_clock_mhz: float | None = None
    sm_clock_max_mhz: float | None = None
    clock_reasons: tuple[str, ...] = ()
    temperature_c: float | None = None
    power_w: float | None = None
    energy_j: float | None = None
    utilization_ratio: float | None = None
    memory_used_bytes: int | None = None
    processes: tuple[tuple[int, str], ...] | None = None
    mig: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSample:
    """One reading of the host's counters, seconds of CPU since boot, summed over all CPUs.

    `engine_s` is what the engine's process has used, all threads together.
    """

    total_s: float
    busy_s: float
    steal_s: float
    engine_s: float | None = None


class GpuReader(Protocol):
    """Reads one GPU."""

    def sample(self) -> GpuSample:
        """Everything at once; what the device does not tell is None. Never raises for that."""

    def memory_used_bytes(self) -> int | None:
        """Device memory in use by everybody."""

    def processes(self) -> tuple[tuple[int, str], ...] | None:
        """Who computes on the GPU; may be empty in a virtual machine although somebody does."""


class HostReader(Protocol):
    """Reads the host and one process."""

    def sample(self, pid: int | None) -> HostSample | None:
        """The counters now; None on a system without /proc."""

    def is_ours(self, pid: int) -> bool:
        """Whether the process is this one or descends from it."""


class NvmlReader:
    """A GPU by its UUID, or by its NVML index, through NVML.

    Raises Unavailable when there is no driver or no such device.
    """

    def __init__(self, device: str | int, nvml: Any = None) -> None:
        """`nvml` is a module with pynvml's functions; pynvml itself when None."""
        try:
            self._nvml = nvml or import_module("pynvml")
            self._nvml.nvmlInit()
            kind = "Index" if isinstance(device, int) else "UUID"
            self._handle = getattr(self._nvml, f"nvmlDeviceGetHandleBy{kind}")(device)
        except Exception as error:  # ImportError, or NVMLError, a class known only once pynvml is there
            raise Unavailable(
                explain("NVML does not answer for this GPU", asked=str(device), found=str(error))
            ) from error
        self._max_clock = self._ask("nvmlDeviceGetMaxClockInfo", self._nvml.NVML_CLOCK_SM)

    def sample(self) -> GpuSample:
        """Everything at once, a handful of driver calls."""
        ask, nvml = self._ask, self._nvml
        mode = ask("nvmlDeviceGetMigMode")
        return GpuSample(
            sm_clock_mhz=ask("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_SM),
            sm_clock_max_mhz=self._max_clock,
            clock_reasons=_words(ask("nvmlDeviceGetCurrentClocksEventReasons")),
            temperature_c=ask("nvmlDeviceGetTemperature", nvml.NVML_TEMPERATURE_GPU),
            power_w=_scaled(ask("nvmlDeviceGetPowerUsage"), 1e-3),
            energy_j=_scaled(ask("nvmlDeviceGetTotalEnergyConsumption"), 1e-3),
            utilization_ratio=_of(ask("nvmlDeviceGetUtilizationRates"), lambda rates: rates.gpu / 100),
            memory_used_bytes=self.memory_used_bytes(),
            processes=self.processes(),
            mig=_of(mode, lambda modes: bool(modes[0])),
        )

    def memory_used_bytes(self) -> int | None:
        """Device memory in use by everybody."""
        return _of(self._ask("nvmlDeviceGetMemoryInfo"), lambda info: int(info.used))

    def processes(self) -> tuple[tuple[int, str], ...] | None:
        """Who computes on the GPU."""
        found = self._ask("nvmlDeviceGetComputeRunningProcesses")
        return None if found is None else tuple((p.pid, _process_name(p.pid)) for p in found)

    def _ask(self, function: str, *arguments: Any) -> Any:
        """The driver's answer, None when this device does not support the question."""
        try:
            return getattr(self._nvml, function)(self._handle, *arguments)
        except (self._nvml.NVMLError, AttributeError):
            return None


class ProcReader:
    """The Linux kernel's counters under /proc."""

    def __init__(self, root: Path = Path("/proc")) -> None:
        """`root` is where the counters are."""
        self._root = root
        self._tick_s = 1 / os.sysconf("SC_CLK_TCK")

    def sample(self, pid: int | None) -> HostSample | None:
        """The counters of all CPUs and of one process; None without /proc."""
        try:
            ticks = [int(field) for field in (self._root / "stat").read_text().split("\n", 1)[0].split()[1:9]]
        except (OSError, ValueError):
            return None
        _user, _nice, _system, idle, iowait, _irq, _softirq, steal = ticks  # proc(5)
        total = sum(ticks)
        return HostSample(
            total_s=total * self._tick_s,
            busy_s=(total - idle - iowait) * self._tick_s,
            steal_s=steal * self._tick_s,
            engine_s=None if pid is None else self._process_s(pid),
        )

    def is_ours(self, pid: int) -> bool:
        """Whether `pid` is this process or one that descends from it."""
        while pid > 1:
            if pid == os.getpid():
                return True
            fields = self._stat(pid)
            pid = int(fields[1]) if fields else 0
        return False

    def _process_s(self, pid: int) -> float | None:
        fields = self._stat(pid)
        return (int(fields[11]) + int(fields[12])) * self._tick_s if fields else None

    def _stat(self, pid: int) -> list[str]:
        """The fields after the name in /proc/PID/stat (state, ppid, ...); empty when it is gone."""
        with contextlib.suppress(OSError):
            return (self._root / str(pid) / "stat").read_text().rpartition(")")[2].split()
        return []


def _process_name(pid: int) -> str:
    with contextlib.suppress(OSError):
        return f"{Path(f'/proc/{pid}/comm').read_text().strip()} (pid {pid})"
    return f"pid {pid}"


def _words(bits: int | None) -> tuple[str, ...]:
    return tuple(word for bit, word in _CLOCK_REASONS.items() if (bits or 0) & bit)


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def _of(value: Any, read: Callable[[Any], T]) -> T | None:
    return None if value is None else read(value)
