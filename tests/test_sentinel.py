"""The sentinel: what a window says, when it does not count, what stays unknown."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import pytest

from pytest_qwen.evidence import Window
from pytest_qwen.outcomes import NoVerdict
from pytest_qwen.sentinel import Sentinel, WindowLimits, launch_bound, violations
from pytest_qwen.testing import (
    QUIET_GPU,
    FakeGpuReader,
    FakeHostReader,
    GpuSample,
    HostSample,
    ManualClock,
    fake_device,
)

LIMITS = WindowLimits(cpus=4)
NEVER_S = 3600.0


def watched(
    gpu: FakeGpuReader | None = None, host: FakeHostReader | None = None, *, seconds: float = 2.0
) -> Window:
    clock = ManualClock()
    sentinel = Sentinel(gpu=gpu, host=host, engine_pid=7, limits=LIMITS, interval_s=NEVER_S, clock=clock)
    with sentinel.watch() as watch:
        clock.sleep(seconds)
    assert watch.window is not None
    return watch.window


def host(
    *, steal: float = 0.0, busy: float = 0.25, engine: float | None = 0.9, seconds: float = 2.0
) -> FakeHostReader:
    """A host of 4 CPUs over a window: shares of all CPUs, and the engine's CPUs."""
    total = 4 * seconds
    return FakeHostReader(
        HostSample(total_s=100, busy_s=50, steal_s=1, engine_s=None if engine is None else 10.0),
        HostSample(
            total_s=100 + total,
            busy_s=50 + busy * total,
            steal_s=1 + steal * total,
            engine_s=None if engine is None else 10 + engine * seconds,
        ),
        ours=[7, 8],
    )


def test_a_quiet_window() -> None:
    end = replace(QUIET_GPU, energy_j=240.0, memory_used_bytes=5, temperature_c=44.0, power_w=130.0)
    window = watched(FakeGpuReader(QUIET_GPU, end), host())
    assert window.seconds == 2.0
    assert (window.energy_j, window.power_w, window.temperature_c) == (240.0, 125.0, 44.0)
    assert (window.memory_used_bytes, window.sm_clock_mhz, window.mig) == (5, 1980.0, False)
    assert window.host_busy_ratio == pytest.approx(0.25)
    assert window.engine_cpu_ratio == pytest.approx(0.9)
    assert window.violations == ()


def test_without_a_gpu_only_the_host_is_known() -> None:
    window = watched(None, host())
    assert window.host_steal_ratio == 0.0
    known = {"seconds", "host_steal_ratio", "host_busy_ratio", "engine_cpu_ratio"}
    unknown = {name for name in Window.__slots__ if getattr(window, name) in (None, ())}
    assert unknown == set(Window.__slots__) - known


def test_nothing_to_read_leaves_only_the_time() -> None:
    assert watched() == Window(seconds=2.0)


def test_shares_of_the_host_are_unknown_over_a_few_ticks() -> None:
    window = watched(None, host(steal=1.0, seconds=0.05), seconds=0.05)
    assert window.host_steal_ratio is None
    assert window.violations == ()


def test_a_host_that_counts_nothing_is_unknown() -> None:
    still = HostSample(total_s=0, busy_s=0, steal_s=0)
    assert watched(None, FakeHostReader(still, still)).host_busy_ratio is None


def test_samples_in_between_are_taken_and_the_thread_ends() -> None:
    gpu = FakeGpuReader(QUIET_GPU, replace(QUIET_GPU, clock_reasons=("hw thermal slowdown",)), QUIET_GPU)
    deadline = time.monotonic() + 60
    with Sentinel(gpu=gpu, interval_s=0.001).watch() as watch:
        while gpu.reads < 3 and time.monotonic() < deadline:
            time.sleep(0.001)
    assert watch.window is not None
    assert watch.window.violations == (NoVerdict.THROTTLED,)
    assert "qwen-sentinel" not in {thread.name for thread in threading.enumerate()}


def test_a_body_that_raises_leaves_no_thread() -> None:
    with (
        pytest.raises(ValueError, match="body"),
        Sentinel(gpu=FakeGpuReader(), interval_s=NEVER_S).watch() as watch,
    ):
        raise ValueError("body")
    assert watch.window is None
    assert "qwen-sentinel" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize(
    ("reasons", "clock_mhz", "throttled"),
    [
        (("hw slowdown",), 1980, True),
        (("hw thermal slowdown",), 1980, True),
        (("hw power brake",), 1980, True),
        (("sw thermal slowdown",), 1980, True),
        (("gpu idle", "application clocks setting", "sync boost"), 300, False),
        (("sw power cap",), 1800, False),
        (("sw power cap",), 1600, True),
        (("sw power cap",), None, False),
    ],
)
def test_throttling(reasons: tuple[str, ...], clock_mhz: float | None, throttled: bool) -> None:
    window = Window(seconds=1, throttle_reasons=reasons, sm_clock_mhz=clock_mhz, sm_clock_max_mhz=1980)
    assert (NoVerdict.THROTTLED in violations(window, LIMITS)) is throttled


@pytest.mark.parametrize(
    ("processes", "expected"),
    [
        (((7, "engine"),), ()),
        (((7, "engine"), (8, "its helper")), ()),
        (((7, "engine"), (9, "miner")), ("miner",)),
        (((9, "somebody, or us under another number"),), None),
        ((), None),
        (None, None),
    ],
)
def test_co_tenants_need_our_own_name_in_the_list(processes, expected) -> None:
    window = watched(FakeGpuReader(replace(QUIET_GPU, processes=processes)), host())
    assert window.co_tenants == expected
    assert (NoVerdict.CO_TENANT in window.violations) is bool(expected)


@pytest.mark.parametrize(
    ("steal", "busy", "engine", "overloaded"),
    [
        (0.06, 0.2, 0.5, True),
        (0.04, 0.2, 0.5, False),
        (0.0, 1.0, 4.0, False),  # the engine itself uses all CPUs
        (0.0, 1.0, 3.0, True),
        (0.0, 0.8, 1.0, False),  # busy, but there is room
        (0.0, 1.0, None, False),  # whose work it is, is not known
    ],
)
def test_the_host(steal: float, busy: float, engine: float | None, overloaded: bool) -> None:
    window = watched(None, host(steal=steal, busy=busy, engine=engine))
    assert (NoVerdict.HOST_OVERLOADED in window.violations) is overloaded


@pytest.mark.parametrize(
    ("cpu", "busy", "rate", "ceiling", "hinted"),
    [
        (1.0, 0.4, 53.6, 303, True),
        (1.0, None, 53.6, 303, True),
        (1.0, 0.4, 53.6, None, True),
        (1.0, 0.85, 53.6, 303, True),
        (1.0, 1.0, 53.6, 303, False),  # spinning while the GPU works
        (1.0, 0.85, 205, 303, False),
        (0.3, 0.4, 53.6, 303, False),
        (None, 0.4, 53.6, 303, False),
        (1.0, None, 53.6, None, False),
    ],
)
def test_launch_bound(cpu, busy, rate, ceiling, hinted) -> None:
    hint = launch_bound(Window(seconds=1, engine_cpu_ratio=cpu, gpu_utilization_ratio=busy), rate, ceiling)
    assert (hint is not None) is hinted
    if hint:
        assert "53.6 tok/s" in hint


def test_unknown_is_never_held_against_a_window() -> None:
    assert watched(FakeGpuReader(GpuSample()), host()).violations == ()


def test_fake_devices_are_of_the_catalogue() -> None:
    device = fake_device("l4", index=2, mig=True)
    assert (device.index, device.mig, device.memory_bytes) == (2, True, 24 * 10**9)
    assert device.spec is not None
    assert device.spec.alias == "l4"
