"""A search for the highest load on a loaded model: measures levels, judges each, keeps the best one last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pytest_qwen.bounds import BOUND_KINDS, Bound
from pytest_qwen.deciding import all_decided, any_missed
from pytest_qwen.engines.base import Request
from pytest_qwen.errors import Misuse, explain
from pytest_qwen.evidence import Measurement, Round
from pytest_qwen.levels import Highest, Kind, Level
from pytest_qwen.load_search import Range, Search, levels_of
from pytest_qwen.loading import check_load
from pytest_qwen.statistics import percentile
from pytest_qwen.streams import Load

if TYPE_CHECKING:
    from pytest_qwen.run import Run

NO_ERRORS = BOUND_KINDS["max_error_rate"].bound(0.0)
# No level may take more of the whole budget, and one with less is not begun.
_MOST_OF_BUDGET, _LEAST_OF_BUDGET = 0.25, 0.02
_FIGURES = ("requests_per_sec", "output_tokens_per_sec", "ttft_ms", "tpot_ms", "longest_gap_ms")


def highest(run: Run, request: Request, kind: Kind, asked: Range, budget_s: float) -> Highest:
    """The highest level of a load that meets every bound of the test, which are then judged on that level.

    `budget_s` is for all levels together. Raises Misuse for a range that is none, an engine that takes no
    load, a test without a bound, and where physics forbids the lowest level.
    """
    check_load(run.spec.engine, load_at(request, kind, 1).load)
    bounds = bounds_of_levels(run)
    levels, limit = _within_physics(run, request, kind, levels_of(kind, asked))
    one = _Levels(run, request, kind, bounds, budget_s)
    return _best_last(run, Search(kind, levels, one.measure, one.left, limit).run())


@dataclass(slots=True)
class _Levels:
    """Measures one level after the other within one budget."""

    run: Run
    request: Request
    kind: Kind
    bounds: Sequence[Bound]
    budget_s: float
    spent_s: float = 0.0

    def left(self) -> bool:
        """Whether there is time for another level."""
        return self.spent_s < self.budget_s * (1 - _LEAST_OF_BUDGET)

    def measure(self, level: float) -> Level:
        """Measure a level until every bound is sure, or one is surely missed."""
        seconds = min(self.budget_s * _MOST_OF_BUDGET, self.budget_s - self.spent_s)
        found = self.run.repeat(
            load_at(self.request, self.kind, level),
            self._decided,
            replace(self.run.limits, budget_s=seconds),
            self.bounds,
        )
        self.spent_s += found.seconds
        return self._level(level, found)

    def _decided(self, rounds: Sequence[Round]) -> bool:
        alpha = self.run.alpha
        sure = all_decided(self.bounds, rounds, alpha=alpha)
        return sure or any_missed(self.bounds, rounds, alpha=alpha)

    def _level(self, level: float, measurement: Measurement) -> Level:
        medians = {name: values for name in _FIGURES if (values := measurement.values(name))}
        return Level(
            level=level,
            verdicts=tuple(self.run.judge(bound, measurement) for bound in self.bounds),
            requests=sum(len(seen.streams) for seen in measurement.rounds),
            measurement=len(self.run.measurements) - 1,
            figures={name: percentile(values, 0.5) for name, values in medians.items()},
        )


def load_at(request: Request, kind: Kind, level: float) -> Request:
    """The request with a load of one level. Slices hold a request of each user, unless more are asked."""
    base = request.load or Load()
    if kind == "request_rate":
        return replace(request, load=replace(base, concurrency=None, request_rate=level))
    users = int(level)
    load = replace(base, concurrency=users, request_rate=None, slice_requests=max(base.slice_requests, users))
    return replace(request, load=load)


def bounds_of_levels(run: Run) -> tuple[Bound, ...]:
    """The bounds that every level has to meet: the test's own, and that no request fails."""
    bounds = run.own_bounds
    if all(bound.marker == "max_error_rate" for bound in bounds):
        raise Misuse(
            explain(
                "llm.highest looks for the highest load that meets the test's bounds, and it has none",
                slip="the test lacks a bound",
                next_step='add @sla("chat"), or @max_ttft(500, stat="p95")',
            )
        )
    return bounds if any(b.marker == "max_error_rate" for b in bounds) else (*bounds, NO_ERRORS)


def _within_physics(
    run: Run, request: Request, kind: Kind, levels: tuple[float, ...]
) -> tuple[tuple[float, ...], str]:
    """The levels below the first one that no card could keep up with, and why they end there."""
    for place, level in enumerate(levels):
        why = run.overload(load_at(request, kind, level))
        if why and place == 0:
            raise Misuse(explain("llm.highest: physics forbids the lowest level", found=why))
        if why:
            return levels[:place], f"physics: {why}"
    return levels, ""


def level_shown(found: Highest) -> Level:
    """The level that the test's verdicts are of: the best, or the lowest where none meets the bounds."""
    return found.best or min(found.levels, key=lambda one: one.level)


def _best_last(run: Run, found: Highest) -> Highest:
    """The search with the measurement of the level that is shown at the end, where bounds are judged."""
    shown = level_shown(found)
    run.measurements.append(run.measurements.pop(shown.measurement))
    last = len(run.measurements) - 1

    def moved(place: int) -> int:
        return last if place == shown.measurement else place - (place > shown.measurement)

    levels = tuple(replace(one, measurement=moved(one.measurement)) for one in found.levels)
    return replace(found, levels=levels)
