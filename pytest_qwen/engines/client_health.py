"""What a client knows of itself during a load: how much of it it held, its lag, its share of a CPU."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from time import monotonic_ns

from pytest_qwen.streams import Client

TICK_NS = 5_000_000


class Health:
    """Counts while a load runs; `of_slice` says how it went since `begin_slice`.

    `concurrency` is what a closed loop shall hold, None for an open one, whose share is that of the `due`
    requests that were sent.
    """

    def __init__(self, concurrency: int | None) -> None:
        self._concurrency = concurrency
        self.due = self._sent = 0
        self._in_flight = 0
        self._timer: asyncio.TimerHandle | None = None
        self.begin_slice()

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to look how late the loop wakes up."""
        self._loop = loop
        self._tick_ns = monotonic_ns() + TICK_NS
        self._await_tick()

    def stop(self) -> None:
        """Look no longer."""
        if self._timer is not None:
            self._timer.cancel()

    def begin_slice(self) -> None:
        """Forget what was; requests that are due and not yet sent stay due."""
        self._began_ns = self._changed_ns = monotonic_ns()
        self._cpu_s = time.process_time()
        self._area = 0
        self.due = max(0, self.due - self._sent)
        self._sent = 0
        self._lags_ns: list[int] = []
        self._late_ns: list[int] = []

    @property
    def slice_seconds(self) -> float:
        """Since the slice began."""
        return (monotonic_ns() - self._began_ns) / 1e9

    def sent(self, due_ns: int | None) -> None:
        """A request goes out that was due then; None for as soon as could be."""
        now = self._account()
        self._in_flight += 1
        if due_ns is not None:
            self._sent += 1
            self._late_ns.append(now - due_ns)

    def left(self) -> None:
        """A request is no longer under way."""
        self._account()
        self._in_flight -= 1

    def of_slice(self) -> Client:
        """The figures since the slice began."""
        now = self._account()
        seconds = (now - self._began_ns) / 1e9
        mean = self._area / (now - self._began_ns)
        if self._concurrency is not None:
            held = min(1.0, mean / self._concurrency)
        else:
            held = min(1.0, self._sent / self.due) if self.due else 1.0
        return Client(
            seconds=seconds,
            held_ratio=held,
            lag_p99_ms=_p99(self._lags_ns) / 1e6,
            lag_max_ms=max(self._lags_ns, default=0) / 1e6,
            cpu_ratio=(time.process_time() - self._cpu_s) / seconds,
            late_p99_ms=_p99(self._late_ns) / 1e6,
            in_flight=mean,
        )

    def _account(self) -> int:
        """Add up the requests under way, by time; gives the time."""
        now = monotonic_ns()
        self._area += self._in_flight * (now - self._changed_ns)
        self._changed_ns = now
        return now

    def _await_tick(self) -> None:
        self._timer = self._loop.call_later((self._tick_ns - monotonic_ns()) / 1e9, self._tick)

    def _tick(self) -> None:
        """Every tick that should have been by now was late, those within a long stall too."""
        now = monotonic_ns()
        while self._tick_ns <= now:
            self._lags_ns.append(now - self._tick_ns)
            self._tick_ns += TICK_NS
        self._await_tick()


def _p99(values: Sequence[int]) -> int:
    """The smallest value that 99 % of them do not exceed; 0 for none."""
    ordered = sorted(values)
    return ordered[math.ceil(0.99 * len(ordered)) - 1] if ordered else 0
