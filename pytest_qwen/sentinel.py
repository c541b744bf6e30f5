"""Watches exactly the timed window: clocks, co-tenants, energy, host; says why a window does not count."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from statistics import fmean, median
from typing import Any

from pytest_qwen.evidence import Window
from pytest_qwen.outcomes import NoVerdict
from pytest_qwen.readers import GpuReader, GpuSample, HostReader, HostSample

# Reasons for which the hardware or the driver protects itself; a window with one of them says nothing of the
# card as sold. "gpu idle" and clocks that somebody has set are no violation.
_HARMFUL = frozenset({"hw slowdown", "hw thermal slowdown", "hw power brake", "sw thermal slowdown"})
# The kernel counts CPU time in ticks of 10 ms: with fewer than 20 ticks a CPU, shares are rounding errors.
_SHORTEST_HOST_WINDOW_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowLimits:
    """What a window may show and still count; ratios of the host are shares of all its CPUs.

    A power cap counts as throttling when the clock fell below `power_cap_clock_ratio` of its maximum. The
    host is contended when it is busier than `busy_ratio` and others than the engine take `others_ratio`.
    """

    power_cap_clock_ratio: float = 0.85
    steal_ratio: float = 0.05
    busy_ratio: float = 0.95
    others_ratio: float = 0.10
    cpus: int = os.cpu_count() or 1


@dataclass(slots=True)
class Watch:
    """The handle of a watched window; `window` is there once the window has closed."""

    window: Window | None = None


class Sentinel:
    """Reads the GPU (None: there is none) and the host around and during a window.

    `engine_pid` is the process whose CPU time is the engine's. The GPU is sampled every `interval_s` by one
    thread; the host's counters are read at both ends.
    """

    def __init__(
        self,
        *,
        gpu: GpuReader | None = None,
        host: HostReader | None = None,
        engine_pid: int | None = None,
        limits: WindowLimits | None = None,
        interval_s: float = 0.1,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Nothing is watched yet."""
        self._gpu = gpu
        self._host = host
        self._engine_pid = engine_pid
        self._limits = limits or WindowLimits()
        self._interval_s = interval_s
        self._clock = clock

    @contextmanager
    def watch(self) -> Iterator[Watch]:
        """Watch the body; the handle has the window once the body has ended without an error."""
        watch = Watch()
        with _sampling(self._gpu, self._interval_s) as samples:
            host_before = self._read_host()
            started_s = self._clock()
            yield watch
            seconds = self._clock() - started_s
            host_after = self._read_host()
        fields = self._of_gpu(samples) | _of_host(host_before, host_after, seconds)
        seen = Window(seconds=seconds, **fields)
        watch.window = replace(seen, violations=violations(seen, self._limits))

    def _read_host(self) -> HostSample | None:
        return self._host.sample(self._engine_pid) if self._host else None

    def _of_gpu(self, samples: Sequence[GpuSample]) -> dict[str, Any]:
        """The GPU's fields of the window."""
        if not samples:
            return {}
        first, last = samples[0], samples[-1]
        energy = None if first.energy_j is None or last.energy_j is None else last.energy_j - first.energy_j
        return {
            "sm_clock_mhz": _over(median, [s.sm_clock_mhz for s in samples]),
            "sm_clock_max_mhz": last.sm_clock_max_mhz,
            "throttle_reasons": tuple(dict.fromkeys(r for s in samples for r in s.clock_reasons)),
            "temperature_c": _over(max, [s.temperature_c for s in samples]),
            "power_w": _over(fmean, [s.power_w for s in samples]),
            "energy_j": energy,
            "gpu_utilization_ratio": _over(fmean, [s.utilization_ratio for s in samples]),
            "memory_used_bytes": _over(max, [s.memory_used_bytes for s in samples]),
            "co_tenants": self._co_tenants(samples),
            "mig": last.mig,
        }

    def _co_tenants(self, samples: Sequence[GpuSample]) -> tuple[str, ...] | None:
        """Names of the processes on the GPU that are not ours.

        None (unknown) when the list lacks our own engine: in virtual machines and containers it may be
        empty or hold the process ids of another name space.
        """
        if self._host is None:
            return None
        names = dict(process for s in samples for process in s.processes or ())
        foreign = {pid: name for pid, name in names.items() if not self._host.is_ours(pid)}
        if len(foreign) == len(names):
            return None
        return tuple(foreign.values())


@contextmanager
def _sampling(gpu: GpuReader | None, interval_s: float) -> Iterator[list[GpuSample]]:
    """Samples taken at both ends of the body and every `interval_s` in between."""
    samples: list[GpuSample] = []
    if gpu is None:
        yield samples
        return
    done = threading.Event()

    def sample_until_done() -> None:
        while not done.wait(interval_s):
            samples.append(gpu.sample())

    samples.append(gpu.sample())
    sampler = threading.Thread(target=sample_until_done, name="qwen-sentinel", daemon=True)
    sampler.start()
    try:
        yield samples
    finally:
        done.set()
        sampler.join()
        samples.append(gpu.sample())


def _of_host(before: HostSample | None, after: HostSample | None, seconds: float) -> dict[str, Any]:
    """The host's fields of the window; none for a window too short for the kernel's ticks."""
    if before is None or after is None or seconds < _SHORTEST_HOST_WINDOW_S:
        return {}
    total_s = after.total_s - before.total_s
    if total_s <= 0:
        return {}
    known = before.engine_s is not None and after.engine_s is not None
    return {
        "host_steal_ratio": (after.steal_s - before.steal_s) / total_s,
        "host_busy_ratio": (after.busy_s - before.busy_s) / total_s,
        "engine_cpu_ratio": ((after.engine_s or 0) - (before.engine_s or 0)) / seconds if known else None,
    }


def violations(window: Window, limits: WindowLimits) -> tuple[NoVerdict, ...]:
    """Why the window does not count; what is unknown is held against nobody."""
    found = []
    if _throttled(window, limits):
        found.append(NoVerdict.THROTTLED)
    if window.co_tenants:
        found.append(NoVerdict.CO_TENANT)
    if _host_overloaded(window, limits):
        found.append(NoVerdict.HOST_OVERLOADED)
    return tuple(found)


def _throttled(window: Window, limits: WindowLimits) -> bool:
    if _HARMFUL & set(window.throttle_reasons):
        return True
    # a card at its power limit is what the card can do, unless the cap takes much of the clock
    if "sw power cap" not in window.throttle_reasons:
        return False
    if window.sm_clock_mhz is None or not window.sm_clock_max_mhz:
        return False
    return window.sm_clock_mhz / window.sm_clock_max_mhz < limits.power_cap_clock_ratio


def _host_overloaded(window: Window, limits: WindowLimits) -> bool:
    if window.host_steal_ratio is not None and window.host_steal_ratio > limits.steal_ratio:
        return True
    if window.host_busy_ratio is None or window.engine_cpu_ratio is None:
        return False
    others = window.host_busy_ratio - window.engine_cpu_ratio / limits.cpus
    return window.host_busy_ratio > limits.busy_ratio and others > limits.others_ratio


def launch_bound(window: Window, tokens_per_sec: float, ceiling_tokens_per_sec: float | None) -> str | None:
    """A hint when the host's launching thread, not the GPU, sets the pace; None when nothing says so.

    `engine_cpu_ratio` is in CPUs: about 1 means one thread that never waits. That alone is no sign (waiting
    for the GPU may spin), so the GPU must be idle for part of the time, or the rate far under the ceiling
    on a GPU that is not busy all the time.
    """
    cpu, gpu = window.engine_cpu_ratio, window.gpu_utilization_ratio
    if cpu is None or cpu < 0.9 or (gpu is not None and gpu >= 0.95):
        return None
    idle = gpu is not None and gpu < 0.8
    far = ceiling_tokens_per_sec is not None and tokens_per_sec < 0.5 * ceiling_tokens_per_sec
    if not (idle or far):
        return None
    used = "" if gpu is None else f", the GPU is busy {gpu:.0%} of the time"
    limit = "" if ceiling_tokens_per_sec is None else f" (ceiling {ceiling_tokens_per_sec:.0f} tok/s)"
    return (
        f"launch-bound decoding: the host's thread is saturated ({cpu:.2f} CPUs){used}, and "
        f"{tokens_per_sec:.1f} tok/s{limit} measures the host rather than the GPU"
    )


def _over(reduce: Callable[[list[Any]], Any], values: Sequence[Any]) -> Any:
    """`reduce` over the known values, None when there is none."""
    known = [value for value in values if value is not None]
    return reduce(known) if known else None
