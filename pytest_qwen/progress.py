"""The live line of long work: which test, what it is doing, how sure it is by now, how long at most."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TextIO

from pytest_qwen import deciding
from pytest_qwen.bounds import Bound
from pytest_qwen.evidence import Round
from pytest_qwen.measure import Progress
from pytest_qwen.metrics import fraction_of_rounds
from pytest_qwen.reports.figures import number
from pytest_qwen.reports.text import fit, speak
from pytest_qwen.statistics import minimum_samples, percentile

_PHASES = {"loading": "loading", "first_call": "first call", "warmup": "warm-up", "round": "round"}
_PER_SECOND = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What the line can say; None is not known yet.

    `phase` is "loading" or the kind of the round that is running, `count` its number within that phase.
    `estimate`, `low` and `high` are in `unit`; `n` counts the rounds behind them. `least_s` is the shortest
    time in which a verdict can be reached, `left_s` what is left of the budget.
    """

    test: str
    phase: str
    count: int = 0
    elapsed_s: float = 0.0
    unit: str = ""
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0
    least_s: float | None = None
    left_s: float | None = None


def state_of(progress: Progress, *, test: str, bounds: Sequence[Bound] = (), alpha: float = 0.01) -> State:
    """The state of a measurement: the figures are those of the first bound that is still undecided."""
    count = sum(seen.kind == progress.phase for seen in progress.rounds) + 1
    state = State(
        test=test,
        phase=progress.phase,
        count=count,
        elapsed_s=progress.elapsed_s,
        left_s=max(0.0, progress.budget_s - progress.elapsed_s),
    )
    open_bounds = [
        bound
        for bound in bounds
        if bound.judged == "sequential" and not deciding.all_decided((bound,), progress.rounds, alpha=alpha)
    ]
    return _with_figures(state, open_bounds[0], progress.rounds, alpha) if open_bounds else state


def _with_figures(state: State, bound: Bound, rounds: Sequence[Round], alpha: float) -> State:
    values = deciding.values_for(bound, rounds)
    if not values:
        return state
    fraction = fraction_of_rounds(bound, rounds)
    low, high = deciding.interval_of(bound, values, alpha=alpha, rounds=rounds)
    missing = max(0, minimum_samples(fraction, alpha) - len(values))
    round_s = median(seen.seconds for seen in rounds)
    return State(
        test=state.test,
        phase=state.phase,
        count=state.count,
        elapsed_s=state.elapsed_s,
        unit=bound.unit,
        estimate=percentile(values, fraction if bound.direction == "at most" else 1 - fraction),
        low=low,
        high=high,
        n=len(values),
        least_s=missing * round_s,
        left_s=state.left_s,
    )


def format_line(state: State, *, width: int, unicode: bool = True) -> str:
    """The state in at most `width` columns: the test's name gives way first."""
    phase = _PHASES.get(state.phase, state.phase) + (f" {state.count}" if state.count else "")
    parts = [phase]
    if state.estimate is not None:
        ends = (
            "" if state.low is None or state.high is None else f" [{number(state.low)}, {number(state.high)}]"
        )
        parts.append(f"{number(state.estimate)} {state.unit}{ends} n={state.n}")
    parts.append(_times(state))
    rest = speak(", ".join(parts), unicode=unicode)
    name = fit(speak(state.test, unicode=unicode), max(8, width - len(rest) - 2), unicode=unicode, keep="end")
    return fit(f"{name}: {rest}", width, unicode=unicode)


def _times(state: State) -> str:
    elapsed = f"{state.elapsed_s:.0f} s"
    if state.left_s is None:
        return elapsed
    if state.least_s and state.least_s < state.left_s:
        return f"{elapsed}, {state.least_s:.0f} to {state.left_s:.0f} s left"
    return f"{elapsed}, at most {state.left_s:.0f} s left"


class LiveLine:
    """One line of a terminal, rewritten in place; silent on anything that is not a terminal.

    The caller suspends capture, sees to it that the cursor is at the start of a line before the first `show`,
    and clears the line before anything else is printed.
    """

    def __init__(
        self,
        stream: TextIO,
        *,
        clock: Callable[[], float],
        width: Callable[[], int] = lambda: shutil.get_terminal_size().columns,
        quiet: bool = False,
    ) -> None:
        self._stream = stream
        self._clock = clock
        self._width = width
        self._active = not quiet and stream.isatty()
        self._unicode = (stream.encoding or "").lower().startswith("utf")
        self._shown = 0
        self._next = float("-inf")

    def show(self, state: State | Callable[[], State]) -> None:
        """Rewrite the line, at most five times a second; a callable is asked only when it is time."""
        now = self._clock()
        if not self._active or now < self._next:
            return
        self._next = now + 1 / _PER_SECOND
        found = state if isinstance(state, State) else state()
        # one column stays free: a full line makes some terminals wrap
        text = format_line(found, width=self._width() - 1, unicode=self._unicode)
        self._write("\r" + text + " " * (self._shown - len(text)))
        self._shown = len(text)

    def clear(self) -> None:
        """Blank the line and go back to its start; the next `show` is not held back."""
        if self._shown:
            self._write("\r" + " " * self._shown + "\r")
        self._shown, self._next = 0, float("-inf")

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
