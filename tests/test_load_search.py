"""The search for the highest load: its levels, what it finds, what ends it."""

import itertools
from collections.abc import Callable

import pytest

from pytest_qwen.bounds import BOUND_KINDS, Bound
from pytest_qwen.errors import Misuse
from pytest_qwen.levels import Highest, Level
from pytest_qwen.load_search import Search, judged_again, levels_of
from pytest_qwen.outcomes import Outcome
from pytest_qwen.verdicts import Verdict


def verdict(outcome: Outcome, marker: str = "max_ttft") -> Verdict:
    kind = BOUND_KINDS[marker]
    bound = Bound(marker=marker, metric=kind.metric, direction=kind.direction, limit=1.0, unit=kind.unit)
    return Verdict(
        bound=bound,
        outcome=outcome,
        reason="",
        estimate=None,
        low=None,
        high=None,
        n=1,
        ceiling=None,
        explanation=f"{outcome} {bound}",
    )


def level(value: float, outcome: Outcome, marker: str = "max_ttft") -> Level:
    return Level(level=value, verdicts=(verdict(outcome, marker),), requests=1, measurement=0)


def capacity(limit: float, *, lowest: float = 0.0) -> Callable[[float], Level]:
    """Meets its bound up to `limit`, and is too slow in all below `lowest`."""

    def measure(value: float) -> Level:
        if value < lowest:
            return level(value, Outcome.FAIL, "min_goodput")
        return level(value, Outcome.PASS if value <= limit else Outcome.FAIL)

    return measure


def search(levels: tuple[float, ...], measure: Callable[[float], Level], most: int = 100) -> Highest:
    made = Search("concurrency", levels, measure, lambda: len(made.tried) < most)
    return made.run()


@pytest.mark.parametrize("limit", range(1, 129, 7))
def test_the_highest_level_that_meets_the_bounds_is_found_in_few_steps(limit: int) -> None:
    levels = levels_of("concurrency", range(1, 129))
    found = search(levels, capacity(limit))
    assert found.value == limit
    assert found.resolved == (limit < 128)
    assert len(found.levels) <= 2 * 8
    assert found.best is not None
    assert found.best.level == limit


def test_levels_double_and_then_halve() -> None:
    tried = [one.level for one in search(levels_of("concurrency", range(1, 65)), capacity(11)).levels]
    assert tried == [1, 2, 4, 8, 16, 12, 10, 11]


def test_a_level_without_a_verdict_is_not_shown_to_meet() -> None:
    def measure(value: float) -> Level:
        return level(value, Outcome.PASS if value < 4 else Outcome.NO_VERDICT)

    found = search(levels_of("concurrency", (1, 8)), measure)
    assert found.value == 3
    assert found.stopped == "4 users was not shown to meet every bound"


def test_nothing_is_found_when_the_lowest_level_misses() -> None:
    found = search(levels_of("concurrency", (4, 64)), capacity(2))
    assert (found.value, found.best, len(found.levels)) == (None, None, 1)
    assert "no level" in str(found)


def test_levels_that_are_too_low_send_the_search_upwards() -> None:
    found = search(levels_of("concurrency", range(1, 65)), capacity(40, lowest=20))
    assert found.value == 40
    assert not found.levels[0].met
    assert found.levels[0].too_low
    nowhere = search(levels_of("concurrency", range(1, 65)), capacity(10, lowest=20))
    assert nowhere.value is None


@pytest.mark.parametrize(
    ("limit", "most", "stopped"),
    [(1000, 100, "the end of the range"), (1000, 2, "the budget ended"), (20, 6, "the budget ended")],
)
def test_what_ends_a_search_is_said(limit: int, most: int, stopped: str) -> None:
    found = search(levels_of("concurrency", (1, 64)), capacity(limit), most)
    assert (found.stopped, found.resolved) == (stopped, False)


def test_physics_that_cut_the_levels_is_said() -> None:
    made = Search("request_rate", (1.0, 2.0), capacity(9), lambda: True, "physics: too much")
    assert made.run().stopped == "physics: too much"


def test_levels_lie_five_percent_apart_and_whole_where_they_must() -> None:
    whole = levels_of("concurrency", (1, 256))
    assert whole[0] == 1
    assert whole[-1] == 256
    assert all(one.is_integer() for one in whole)
    rates = levels_of("request_rate", (0.5, 50))
    assert (rates[0], rates[-1]) == (0.5, 50)
    assert all(later / earlier <= 1.06 for earlier, later in itertools.pairwise(rates))
    assert levels_of("concurrency", range(8, 33, 8)) == (8, 16, 24, 32)
    assert levels_of("request_rate", (2, 2)) == (2.0,)


@pytest.mark.parametrize(
    "asked", [(8, 1), (0, 4), (1, 2.5), (1,), "1-8", 16, range(0, 4), range(8, 1, -1), (1, float("inf"))]
)
def test_what_is_no_range_of_users_is_misuse(asked: object) -> None:
    with pytest.raises(Misuse, match="wants a range of levels"):
        levels_of("concurrency", asked)  # type: ignore[arg-type]


def test_a_recorded_search_is_the_best_of_its_levels_by_todays_verdicts() -> None:
    recorded = search(levels_of("concurrency", range(1, 17)), capacity(8))
    stricter = [level(one.level, Outcome.PASS if one.level <= 4 else Outcome.FAIL) for one in recorded.levels]
    found = judged_again(recorded, stricter)
    assert (found.value, found.resolved) == (4, False)
    assert found.stopped.startswith("as recorded: ")
