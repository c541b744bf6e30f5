"""Judging loads: percentiles within slices and over all requests, errors, the client's limits, physics."""

import math
import random
from dataclasses import replace

import pytest
from measuring import fake_run, observer

from pytest_qwen import ask, physics, planning
from pytest_qwen.bounds import BOUND_KINDS, Bound
from pytest_qwen.clusters import pass_end
from pytest_qwen.data import find_shape
from pytest_qwen.deciding import all_decided, decide
from pytest_qwen.engines.base import Request
from pytest_qwen.error_rates import error_side, share_bounds
from pytest_qwen.errors import Misuse
from pytest_qwen.evidence import Measurement, Round
from pytest_qwen.gpus import lookup
from pytest_qwen.judge import judge
from pytest_qwen.markers import Workload
from pytest_qwen.measure import Limits, interleave, measure, to_round
from pytest_qwen.metrics import RoundContext, fraction_of_rounds, slice_needed
from pytest_qwen.outcomes import NoVerdict, Outcome
from pytest_qwen.physics import Setup
from pytest_qwen.slices import client_limits, violations_of
from pytest_qwen.streams import Client, Load
from pytest_qwen.testing import FakeEngine, fake_spec

LOAD = Load(concurrency=10, slice_requests=20)
SLICE = Request(prompt_tokens=8, output_tokens=4, ignore_eos=True, load=LOAD)


def bound(marker: str, limit: float, stat: str = "median", **given: object) -> Bound:
    return BOUND_KINDS[marker].bound(limit, stat, **given)


def slices(count: int, request: Request = SLICE, **programme: object) -> tuple[Round, ...]:
    run = fake_run(**programme)
    return tuple(to_round(request, run(request), None, RoundContext(), i, "round") for i in range(count))


def measured(count: int, request: Request = SLICE, **programme: object) -> Measurement:
    return Measurement(rounds=slices(count, request, **programme))


# ---- percentiles


def test_a_percentile_is_taken_over_the_requests_of_a_slice_and_judged_on_the_slices() -> None:
    noisy = {"request_jitter": ("iid", 0.05)}
    p95, rounds = bound("max_ttft", 150, "p95"), slices(12, **noisy)
    assert fraction_of_rounds(p95, rounds) == 0.5
    found = judge(p95, Measurement(rounds=rounds), alpha=0.01)
    assert (found.outcome, found.n) == (Outcome.PASS, 12)
    assert 104 < (found.estimate or 0) < 113  # 100 ms x e^(1.645 x 0.05)
    assert judge(bound("max_ttft", 85, "p95"), Measurement(rounds=rounds), alpha=0.01).outcome == Outcome.FAIL


def test_slices_with_too_few_requests_say_so() -> None:
    few = replace(SLICE, load=replace(LOAD, slice_requests=10))
    found = judge(bound("max_ttft", 150, "p99"), measured(10, few), alpha=0.01)
    assert found.outcome == Outcome.NO_VERDICT
    assert found.reason.startswith(NoVerdict.TOO_FEW)
    assert slice_needed([bound("max_ttft", 150, "p99"), bound("min_goodput", 1)]) == 100
    assert slice_needed([bound("max_ttft", 1, "p95"), bound("max_error_rate", 0.2)]) == 32


def test_a_pass_must_hold_for_all_requests_together() -> None:
    """In a few bad slices half of the requests are slow: the median slice does not know, the requests do."""
    good, bad = [100.0] * 20, [100.0] * 10 + [500.0] * 10
    parts = [bad if place % 6 == 5 else good for place in range(60)]
    ends = pass_end(parts, [max(part) for part in parts], "at most", fraction=0.95, alpha=0.01)
    assert ends >= 500
    assert pass_end([good] * 60, [100.0] * 60, "at most", fraction=0.95, alpha=0.01) < 110
    rates = [[1 / value for value in part] for part in parts]
    assert pass_end(rates, [min(p) for p in rates], "at least", fraction=0.95, alpha=0.01) <= 1 / 500


def test_a_wrong_verdict_at_the_bound_is_rare() -> None:
    """The bound is the true p95 of all requests: independent ones, and those that queue for three places."""
    independent = (replace(SLICE, output_tokens=2), {"request_jitter": ("iid", 0.3)})
    arrivals = replace(SLICE, output_tokens=2, load=Load(request_rate=20.0, slice_requests=20))
    queueing = (arrivals, {"request_jitter": ("iid", 0.3), "most_at_once": 3})
    for request, programme in (independent, queueing):
        sessions = [slices(30, request, seed=seed, **programme) for seed in range(50)]
        every = sorted(s.ttft_ms or 0 for rounds in sessions for seen in rounds for s in seen.streams)
        limit = bound("max_ttft", every[int(0.95 * len(every))], "p95")
        sides = [decide(limit, rounds[:n], alpha=0.05).side for rounds in sessions for n in (8, 15, 30)]
        assert len([side for side in sides if side != "unsure"]) <= 0.05 * len(sessions)


# ---- errors


def test_the_interval_of_a_share_is_exact_and_holds_at_every_look() -> None:
    low, high = share_bounds(0, 300, 0.01)
    assert low == 0.0
    assert 0.012 < high < 0.03
    assert share_bounds(300, 300, 0.01)[1] == 1.0
    rng = random.Random(3)
    missed = 0
    for _ in range(200):
        failed, ever = 0, False
        for n in range(1, 201):
            failed += rng.random() < 0.1
            if n % 20 == 0:
                low, high = share_bounds(failed, n, 0.05)
                ever = ever or not low <= 0.1 <= high
        missed += ever
    assert missed <= 200 * 2 * 0.05


@pytest.mark.parametrize(
    ("limit", "share", "count", "side"),
    [
        (0.0, 0.0, 1, "meets"),
        (0.0, 0.2, 5, "misses"),
        (0.05, 0.0, 2, "unsure"),
        (0.05, 0.0, 10, "meets"),
        (0.05, 0.3, 5, "misses"),
        (0.3, 0.29, 5, "unsure"),
    ],
)
def test_error_rates(limit: float, share: float, count: int, side: str) -> None:
    rounds = slices(count, error_share=share)
    assert error_side(bound("max_error_rate", limit), rounds, 0.01) == side


def test_failures_while_the_load_comes_up_are_failures() -> None:
    told = Measurement(rounds=slices(2), observed={"full_requests": 200.0, "full_failed": 3.0})
    found = judge(bound("max_error_rate", 0.0), told, alpha=0.01)
    assert (found.outcome, found.n) == (Outcome.FAIL, 200)
    assert "3 of 200 requests failed (all of them while the load came up)" in found.explanation


def test_failures_of_warm_up_and_of_slices_that_do_not_count_are_failures() -> None:
    rounds = slices(4, error_share=0.3)
    spoilt = tuple(replace(seen, kind="warmup", violations=(NoVerdict.CLIENT_LAG,)) for seen in rounds)
    found = judge(bound("max_error_rate", 0.0), Measurement(rounds=spoilt), alpha=0.01)
    assert found.outcome == Outcome.FAIL
    assert "http-error (status 500 (programmed))" in found.explanation
    nothing = judge(bound("max_error_rate", 0.0), Measurement(rounds=()), alpha=0.01)
    assert nothing.outcome == Outcome.NO_VERDICT


# ---- what does not count


@pytest.mark.parametrize(
    ("given", "load", "found"),
    [
        ({}, LOAD, []),
        ({"held_ratio": 0.979}, LOAD, [NoVerdict.CLIENT_BEHIND]),
        ({"held_ratio": 0.98}, LOAD, []),
        ({"lag_p99_ms": 5.1}, LOAD, [NoVerdict.CLIENT_LAG]),
        ({"late_p99_ms": 5.1}, LOAD, []),
        ({"late_p99_ms": 5.1}, Load(request_rate=1.0), [NoVerdict.CLIENT_LAG]),
    ],
)
def test_the_limits_of_a_client(given: dict[str, float], load: Load, found: list[NoVerdict]) -> None:
    fine = Client(seconds=1, held_ratio=1, lag_p99_ms=0.1, lag_max_ms=40, cpu_ratio=0.5)
    assert client_limits(replace(fine, **given), load) == found


def test_cached_prompts_count_only_where_they_were_to_be_fresh() -> None:
    trace = fake_run(cached_share=0.2)(SLICE)
    assert violations_of(SLICE, trace) == (NoVerdict.CACHE_HITS,)
    for load in (replace(LOAD, shared_prefix_tokens=4), replace(LOAD, turns=2)):
        assert violations_of(replace(SLICE, load=load), trace) == ()
    assert violations_of(replace(SLICE, prompt_tokens=None, prompt="x"), trace) == ()


def test_short_answers_do_not_count() -> None:
    trace = fake_run()(SLICE)
    short = tuple(replace(stream, output_tokens=3) for stream in trace.streams)
    assert violations_of(SLICE, replace(trace, streams=short)) == (NoVerdict.SHORT_OUTPUT,)
    assert violations_of(replace(SLICE, ignore_eos=False), replace(trace, streams=short)) == ()


def test_a_spoilt_longest_gap_is_shown_and_not_judged() -> None:
    found = judge(bound("max_longest_gap", 100), measured(3, lag_ms=9.0), alpha=0.01)
    assert (found.outcome, found.reason) == (Outcome.NO_VERDICT, NoVerdict.CLIENT_LAG)
    assert found.estimate == pytest.approx(20.0)


def test_what_cannot_be_shown_is_not_waited_for() -> None:
    rounds = slices(8, no_usage=True)
    assert all_decided([bound("max_tpot", 40)], rounds, alpha=0.01)
    assert not all_decided([bound("max_tpot", 40)], rounds[:7], alpha=0.01)


# ---- the loop


def test_a_load_is_ended_whatever_happens_and_told_beside_its_steady_state() -> None:
    engine = FakeEngine()
    engine.load(fake_spec(fault="raise@6"))
    ended = []

    def rest() -> object:
        ended.append(True)
        return engine.rest()

    with pytest.raises(Exception, match="programmed failure") as caught:
        measure(
            engine.run,
            SLICE,
            decided=lambda _rounds: False,
            observer=observer(),
            limits=Limits(),
            rest=rest,  # type: ignore[arg-type]
        )
    partial = caught.value.partial  # type: ignore[attr-defined]
    assert ended == [True]
    assert len(partial.rounds) == 5
    assert partial.observed["full_requests"] > 0
    assert any(hint.startswith("steady state: ") for hint in partial.hints)


def test_two_loads_never_go_on_at_once() -> None:
    going: set[str] = set()
    engines = {name: FakeEngine() for name in "ab"}
    for engine in engines.values():
        engine.load(fake_spec())

    def sides(name: str) -> tuple[object, object]:
        def run(request: Request) -> object:
            going.add(name)
            assert going == {name}
            return engines[name].run(request)

        def rest() -> object:
            going.discard(name)
            return engines[name].rest()

        return run, rest

    (run_a, rest_a), (run_b, rest_b) = sides("a"), sides("b")
    _, b = interleave(
        run_a,  # type: ignore[arg-type]
        run_b,  # type: ignore[arg-type]
        SLICE,
        decided=lambda rounds: len(rounds) > 12,
        observer=observer(),
        limits=Limits(),
        rests=(rest_a, rest_b),  # type: ignore[arg-type]
    )
    assert set(b.values("slowdown_ratio")) == {1.0}
    assert "agreement" not in b.observed  # requests of a load end in no order
    assert not going


# ---- marks


def request_of(*marks: pytest.MarkDecorator) -> ask.RunRequest:
    return ask.read_marks([(object(), mark.mark) for mark in marks], uses_fixtures=True)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"concurrency": 4, "request_rate": 2.0}, "concurrency and request_rate exclude each other"),
        ({"concurrency": 0}, "is not a whole number above 0"),
        ({"concurrency": -1}, "is not a whole number above 0"),
        ({"request_rate": 0}, "is not a number above 0"),
        ({"concurrency": 4, "batch_size": 2}, "batch_size and concurrency exclude each other"),
        ({"request_rate": 4, "batch_size": 2}, "batch_size and request_rate exclude each other"),
        ({"concurrency": 4, "prompt_spread": 1.1}, "is not a share from 0 to 1"),
        ({"concurrency": 4, "output_spread": -0.1}, "is not a share from 0 to 1"),
        ({"concurrency": 4, "arrival": "poisson"}, "arrival is of an open loop"),
        ({"concurrency": 4, "spread": "lognormal"}, "neither length does"),
        ({"turns": 3}, "turns belongs to a load"),
        ({"concurrency": 4, "prompt": "x", "prompt_spread": 0.5}, "the prompt is a fixed text"),
        ({"concurrency": 4, "prompt": "x", "shared_prefix_tokens": 5}, "the prompt is a fixed text"),
        ({"concurrency": 4, "prompt_tokens": 8, "shared_prefix_tokens": 9}, "longer than the prompt"),
        ({"concurrency": 4, "silence_s": 0}, "is not a number above 0"),
    ],
)
def test_loads_that_make_no_sense(given: dict[str, object], problem: str) -> None:
    with pytest.raises(Misuse, match=problem):
        request_of(pytest.mark.workload(**given))


def test_goodput_wants_limits_and_a_load_wants_no_errors() -> None:
    with pytest.raises(Misuse, match="nothing says which requests are good"):
        request_of(pytest.mark.min_goodput(1), pytest.mark.workload(concurrency=2))
    (goodput, errors) = request_of(
        pytest.mark.min_goodput(1, ttft=100, itl=20), pytest.mark.workload(concurrency=2)
    ).bounds
    assert [(slo.metric, slo.limit) for slo in goodput.slos] == [("ttft_ms", 100), ("itl_ms", 20)]
    assert (errors.marker, errors.limit) == ("max_error_rate", 0.0)
    with pytest.raises(Misuse, match="more requests have to be good than arrive"):
        request_of(pytest.mark.min_goodput(5, ttft=100), pytest.mark.workload(request_rate=4))
    own = request_of(pytest.mark.max_error_rate(0.1), pytest.mark.workload(request_rate=2))
    assert [one.limit for one in own.bounds] == [0.1]
    assert not request_of(pytest.mark.workload(batch_size=2)).bounds


# ---- physics


def loaded_setup(users: int) -> Setup:
    shape = find_shape("Qwen/Qwen2.5-Coder-7B-Instruct")
    assert shape is not None
    return Setup(shape=shape, gpu=lookup("l4"), prompt_tokens=64, output_tokens=128, users=users)


def test_physics_of_a_load_is_one_request_and_all_users() -> None:
    system = replace(bound("min_tokens_per_sec", 100), metric="output_tokens_per_sec")
    one, many = (physics.best_possible(system, loaded_setup(users)) or 0 for users in (1, 64))
    assert 15 < one < 30
    assert 30 * one < many < 64 * one
    ttft = bound("max_ttft", 1)
    assert physics.best_possible(ttft, loaded_setup(1)) == physics.best_possible(ttft, loaded_setup(64))
    refusal = physics.refusal(system, loaded_setup(1))
    assert refusal is not None
    assert "more users at once" in refusal
    assert physics.refusal(system, loaded_setup(64)) is None


def test_arrivals_that_no_card_can_answer_are_an_overload() -> None:
    assert physics.overload(loaded_setup(1_000_000), 1.0) is None
    assert "tok/s" in (physics.overload(loaded_setup(1_000_000), 1e4) or "")


def test_refusals_under_a_load_promise_the_shortest_request_that_no_cache_helps() -> None:
    work = Workload(
        concurrency=2,
        prompt_tokens=100,
        output_tokens=100,
        prompt_spread=0.5,
        output_spread=0.5,
        shared_prefix_tokens=40,
    )
    least = planning.promised(loaded_setup(2), work)
    assert (least.prompt_tokens, least.output_tokens) == (30, 50)
    least = planning.promised(loaded_setup(2), replace(work, spread="lognormal", turns=2))
    assert (least.prompt_tokens, least.output_tokens) == (1, 1)
    assert math.isfinite(physics.best_possible(bound("max_ttft", 1), least) or math.inf)
