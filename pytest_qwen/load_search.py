"""The search for the highest load that meets every bound: doubling, then halving what is left between."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pytest_qwen.errors import Misuse, explain
from pytest_qwen.levels import UNITS, Highest, Kind, Level

# Two levels nearer than this are one: capacity is not known better than latencies repeat.
STEP = 0.05
Range = Sequence[float] | range


def levels_of(kind: Kind, asked: Range) -> tuple[float, ...]:
    """The levels that may be tried: a range's own members, or from (lowest, highest) in steps of 5 %.

    Raises Misuse for what is neither, and for levels that no load can have.
    """
    if isinstance(asked, range):
        found = tuple(float(level) for level in asked)
        if not found or found[0] < 1 or asked.step < 1:
            raise _not_a_range(kind, asked, "an empty or falling range, or one that starts below 1")
        return found
    ends = tuple(asked) if isinstance(asked, (tuple, list)) else ()
    if len(ends) != 2 or not all(_is_level(kind, end) for end in ends) or ends[0] > ends[1]:
        raise _not_a_range(kind, asked, "not a lowest and a highest level")
    return _grid(ends[0], ends[1], whole=kind == "concurrency")


def _is_level(kind: Kind, value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    whole = kind == "request_rate" or isinstance(value, int)
    return whole and 0 < value < math.inf


def _grid(low: float, high: float, *, whole: bool) -> tuple[float, ...]:
    """From `low` to `high` in steps of 5 %, of one at least where levels are whole."""
    found = [float(low)]
    while found[-1] < high:
        above = found[-1] * (1 + STEP)
        step = max(math.floor(above), found[-1] + 1) if whole else float(f"{above:.4g}")
        found.append(float(min(step, high)))
    return tuple(found)


def _not_a_range(kind: Kind, asked: object, found: str) -> Misuse:
    return Misuse(
        explain(
            f"llm.highest: {kind} wants a range of levels",
            asked=f"{kind}={asked!r}",
            found=found,
            choices=["concurrency=(1, 256)", "concurrency=range(8, 129, 8)", "request_rate=(0.5, 50)"],
        )
    )


@dataclass(slots=True)
class Search:
    """One search. `measure` measures a level until it is sure; `left`: whether there is time for one more.

    `limit` is what ended the levels before what was asked (physics), in words, "" for nothing.
    """

    kind: Kind
    levels: Sequence[float]
    measure: Callable[[float], Level]
    left: Callable[[], bool]
    limit: str = ""
    tried: list[Level] = field(default_factory=list)

    def run(self) -> Highest:
        """Try levels until the highest is known, the range ends or the time does."""
        good, bad = -1, len(self.levels)  # places of the highest level that is good or too low, and a bad one
        place = 0
        while self.left():
            level = self.measure(self.levels[place])
            self.tried.append(level)
            if level.met or (level.too_low and not self._best):
                good = place
            else:
                bad = place
            if bad - good == 1:
                return self._found(self._reason(bad), resolved=bad < len(self.levels))
            place = self._doubled(good) if bad == len(self.levels) else (good + bad) // 2
        return self._found("the budget ended", resolved=False)

    @property
    def _best(self) -> Level | None:
        return max((one for one in self.tried if one.met), key=lambda one: one.level, default=None)

    def _doubled(self, place: int) -> int:
        """The place of twice a level, or the last one."""
        twice = bisect_left(self.levels, 2 * self.levels[place])
        return min(max(twice, place + 1), len(self.levels) - 1)

    def _reason(self, bad: int) -> str:
        """Why the search is over, given the lowest level that was not good."""
        if bad == len(self.levels):
            return self.limit or "the end of the range"
        return f"{self.levels[bad]:g} {UNITS[self.kind]} was not shown to meet every bound"

    def _found(self, stopped: str, *, resolved: bool) -> Highest:
        best = self._best
        return Highest(
            kind=self.kind,
            value=None if best is None else best.level,
            levels=tuple(self.tried),
            stopped=stopped,
            resolved=resolved,
        )


def judged_again(recorded: Highest, levels: Sequence[Level]) -> Highest:
    """A recorded search with the verdicts of today: the highest of its levels that meets every bound."""
    best = max((one.level for one in levels if one.met), default=None)
    return Highest(
        kind=recorded.kind,
        value=best,
        levels=tuple(levels),
        stopped=f"as recorded: {recorded.stopped}",
        resolved=recorded.resolved and best == recorded.value,
    )
