"""A search on a loaded model: within a budget and within physics, its best level judged and kept last."""

from collections.abc import Callable

import pytest
from measuring import observer

from pytest_qwen.ask import RunRequest
from pytest_qwen.bounds import BOUND_KINDS, Bound
from pytest_qwen.engines.base import Request
from pytest_qwen.errors import Misuse
from pytest_qwen.loading import workload_request
from pytest_qwen.markers import Workload
from pytest_qwen.measure import Limits
from pytest_qwen.outcomes import Outcome
from pytest_qwen.run import Conditions, Run
from pytest_qwen.testing import FakeEngine, fake_spec

WORKLOAD = Workload(prompt_tokens=8, output_tokens=8)


def bound(marker: str, limit: float) -> Bound:
    return BOUND_KINDS[marker].bound(limit)


def make(
    *bounds: Bound, overload_of: Callable[[Request], str | None] = lambda _asked: None, **programme: object
) -> Run:
    engine = FakeEngine()
    spec = fake_spec(capacity=4.0, request_jitter=("iid", 0.02), **programme)
    return Run(
        request=RunRequest(workload=WORKLOAD, bounds=bounds),
        spec=spec,
        engine=engine,
        loaded=engine.load(spec),
        observer=observer(),
        conditions=Conditions(alpha=0.01, limits=Limits(budget_s=200.0), overload_of=overload_of),
        observed={},
    )


def over(limit: float) -> Callable[[Request], str | None]:
    """More than `limit` requests a second are more than the card can do."""

    def why(asked: Request) -> str | None:
        assert asked.load is not None
        return "too many" if (asked.load.request_rate or 0) > limit else None

    return why


def test_the_best_level_is_kept_last_and_judged() -> None:
    run = make(bound("max_tpot", 40.0))  # 20 ms a token for up to 4 at once, then in proportion
    found = run.highest(workload_request(WORKLOAD), "concurrency", range(1, 33))
    assert found.value == 7
    assert len(run.measurements) == len(found.levels)
    assert sorted(one.measurement for one in found.levels) == list(range(len(found.levels)))
    assert found.best is not None
    assert found.best.measurement == len(found.levels) - 1
    assert [verdict.outcome for verdict in run.settle()] == [Outcome.PASS]
    for level in found.levels:
        users = run.measurements[level.measurement].rounds[0].client
        assert users is not None
        assert users.in_flight == level.level


def test_no_level_takes_more_than_a_quarter_of_the_budget() -> None:
    run = make(bound("max_tpot", 40.0))
    found = run.highest(workload_request(WORKLOAD), "concurrency", (8, 8), budget_s=40.0)
    assert found.value is None
    assert run.measurements[0].seconds <= 10.5


def test_physics_ends_the_range_and_is_said() -> None:
    run = make(bound("max_ttft", 500.0), overload_of=over(3.0))
    found = run.highest(workload_request(WORKLOAD), "request_rate", (1, 50))
    assert found.stopped == "physics: too many"
    assert 2.8 < (found.value or 0) <= 3.0
    with pytest.raises(Misuse, match="physics forbids the lowest level"):
        run.highest(workload_request(WORKLOAD), "request_rate", (5, 50))


def test_errors_are_no_part_of_any_level() -> None:
    run = make(bound("max_ttft", 500.0), error_share=0.2)
    found = run.highest(workload_request(WORKLOAD), "concurrency", (2, 8))
    assert found.value is None
    assert "requests failed" in found.levels[0].why_not
