"""How many bytes a piece of work on the CPU holds at most: read from the allocator's own events."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from typing import Any

from torch.profiler import ProfilerActivity, profile


def peak_of(work: Callable[[], Any]) -> int:
    """The most bytes that were allocated at one time during `work`, above what was there before it.

    The CPU has no counter like CUDA's; its allocator reports every allocation and release to the profiler.
    What was allocated before `work` and is released in it is not seen.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=False) as seen:
        work()
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    events.sort(key=lambda e: e.start_ns())
    return max(accumulate((int(e.nbytes()) for e in events), initial=0))
