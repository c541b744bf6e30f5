"""One test's work with a model: answers, streams, what settling repeats, verdicts, comparisons, baselines."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest
from measuring import measurement, observer, windows

from pytest_qwen.ask import RunRequest
from pytest_qwen.bounds import BOUND_KINDS, Bound
from pytest_qwen.engines.base import Request
from pytest_qwen.errors import EngineFault, Misuse
from pytest_qwen.evidence import Window
from pytest_qwen.markers import Workload
from pytest_qwen.measure import Limits
from pytest_qwen.outcomes import NoVerdict, Outcome
from pytest_qwen.run import Conditions, Run, failure_text
from pytest_qwen.testing import FakeEngine, fake_spec

WORKLOAD = Workload(prompt_tokens=32, output_tokens=16)


def bound(marker: str, limit: float, **more: object) -> Bound:
    kind = BOUND_KINDS[marker]
    given = {"metric": kind.metric, "direction": kind.direction, "unit": kind.unit, "judged": kind.judged}
    return Bound(marker=marker, limit=limit, **{**given, **more})


class Noted(FakeEngine):
    """A fake engine that keeps the requests."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Request] = []

    def run(self, request: Request, on_token: Callable[[str], None] | None = None):
        self.asked.append(request)
        return super().run(request, on_token)


def make(
    *bounds: Bound, watch=None, observed: dict | None = None, budget_s: float = 120.0, **programme: object
) -> Run:
    engine = Noted()
    spec = fake_spec(**programme)
    return Run(
        request=RunRequest(workload=WORKLOAD, bounds=bounds),
        spec=spec,
        engine=engine,
        loaded=engine.load(spec),
        observer=observer(watch),
        conditions=Conditions(alpha=0.01, limits=Limits(budget_s=budget_s)),
        observed=observed or {"load_time_s": 2.0},
    )


def test_an_answer_has_text_and_times() -> None:
    answer = make(text="one two three").generate(Request(prompt="a b", output_tokens=2))
    assert (answer.text, answer.prompt_tokens, answer.output_tokens, answer.finish_reason) == (
        "one two ",
        2,
        2,
        "length",
    )
    assert (answer.ttft_ms, answer.e2e_ms, answer.tokens_per_sec) == (100.0, 120.0, pytest.approx(50))


def test_one_token_has_no_rate() -> None:
    assert make().generate(Request(prompt="a", output_tokens=1)).tokens_per_sec is None


def test_settling_repeats_the_last_generation_at_the_length_that_came_out() -> None:
    run = make(bound("max_ttft", 500), text="one two three")
    run.generate(Request(prompt="first", output_tokens=50))
    run.generate(Request(prompt="last", output_tokens=50))
    [verdict] = run.settle()
    assert verdict.outcome is Outcome.PASS
    repeated = set(run.engine.asked[2:])
    assert repeated == {Request(prompt="last", output_tokens=3, ignore_eos=True)}
    assert {seen.output_tokens for seen in run.measurements[0].rounds} == {3}


def test_settling_judges_what_the_body_measured_and_measures_no_more() -> None:
    run = make(bound("min_tokens_per_sec", 30), bound("max_tpot", 10))
    run.measure()
    count = len(run.engine.asked)
    assert [verdict.outcome for verdict in run.settle()] == [Outcome.PASS, Outcome.FAIL]
    assert len(run.engine.asked) == count
    assert run.engine.asked[0].prompt_tokens == 32


def test_nothing_measured_is_misuse_and_nothing_asked_is_nothing() -> None:
    with pytest.raises(Misuse, match="nothing was measured"):
        make(bound("max_ttft", 500)).settle()
    assert make().settle() == []


def test_without_bounds_a_measurement_takes_a_few_rounds() -> None:
    assert len(make().measure().clean_rounds) == 10


def test_facts_of_the_session_need_one_round() -> None:
    run = make(bound("max_load_time", 3), bound("max_vram", 2), memory_gb=1.5)
    run.generate(Request(prompt="a", output_tokens=3))
    assert [verdict.outcome for verdict in run.settle()] == [Outcome.PASS, Outcome.PASS]
    assert len(run.engine.asked) <= 3
    assert run.measurements[0].observed["vram_gb"] == 1.5


def test_memory_counts_what_the_card_shows_above_what_it_showed_before_the_load() -> None:
    def watch():
        context = windows()()

        class Card:
            def __enter__(self):
                self.handle = context.__enter__()
                return self.handle

            def __exit__(self, *error):
                context.__exit__(*error)
                self.handle.window = replace(self.handle.window, memory_used_bytes=9 * 10**9)

        return Card()

    run = make(
        bound("max_vram", 5.0),
        watch=watch,
        observed={"memory_before_load_bytes": 3 * 10**9},
        memory_gb=4.0,
    )
    run.measure()
    [verdict] = run.settle()
    assert (verdict.outcome, verdict.estimate) == (Outcome.FAIL, 6.0)
    assert "memory_before_load_bytes" not in run.measurements[0].observed


def test_a_near_bound_ends_with_the_budget_and_no_verdict() -> None:
    run = make(bound("min_tokens_per_sec", 50), budget_s=10.0, jitter=("iid", 0.03))
    run.measure()
    [verdict] = run.settle()
    assert (verdict.outcome, verdict.reason) == (Outcome.NO_VERDICT, NoVerdict.BUDGET)


def test_a_bound_at_half_the_true_rate_takes_ten_rounds_at_most() -> None:
    run = make(bound("min_tokens_per_sec", 25), jitter=("iid", 0.03))
    assert len(run.measure().clean_rounds) <= 10


def test_a_fault_leaves_the_evidence_that_was_there() -> None:
    run = make(bound("min_tokens_per_sec", 50), fault="die@7", jitter=("iid", 0.03))
    with pytest.raises(EngineFault):
        run.measure()
    [kept] = run.measurements
    assert len(kept.clean_rounds) == 3
    assert kept.observed["load_time_s"] == 2.0
    [verdict] = run.settle()
    assert verdict.reason == f"{NoVerdict.ERRORS}: programmed: die"


def test_a_stream_gives_pieces_and_keeps_the_answer() -> None:
    run = make(text="one two three")
    assert list(run.stream(Request(prompt="a"))) == ["one ", "two ", "three"]
    assert run.answers[0].text == "one two three"


def test_a_stream_that_nobody_reads_to_its_end_is_whole_all_the_same() -> None:
    run = make(text="one two three")
    pieces = run.stream(Request(prompt="a"))
    assert next(pieces) == "one "
    pieces.close()
    assert run.answers[0].text == "one two three"


def test_an_error_in_a_stream_reaches_its_reader() -> None:
    with pytest.raises(EngineFault, match="programmed"):
        list(make(fault="die@1").stream(Request(prompt="a")))


def other(**programme: object) -> FakeEngine:
    engine = FakeEngine()
    engine.load(fake_spec(**programme))
    return engine


def test_a_comparison_is_the_median_ratio_with_its_interval() -> None:
    found = make(itl_ms=30.0, jitter=("iid", 0.01)).compare(other(itl_ms=20.0, jitter=("iid", 0.01), seed=1))
    assert found.slowdown == pytest.approx(1.5, rel=0.05)
    assert found.speedup == pytest.approx(1 / found.slowdown)
    assert 1 < found.low < found.slowdown < found.high
    assert found.n == len(found.b.values("slowdown_ratio"))


@pytest.mark.parametrize(("limit", "outcome"), [(1.2, Outcome.PASS), (0.8, Outcome.FAIL)])
def test_a_slowdown_bound_is_judged_on_the_ratios(limit: float, outcome: Outcome) -> None:
    run = make()
    run.compare(other(), (bound("max_slowdown", limit, vs="itl_ms=20"),))
    assert [verdict.outcome for verdict in run.verdicts] == [outcome]


def test_a_comparison_without_a_clean_pair_says_why() -> None:
    run = make(watch=windows(*[[NoVerdict.THROTTLED]] * 1000), budget_s=10.0)
    with pytest.raises(EngineFault, match="GPU clocks were throttled"):
        run.compare(other())


@pytest.mark.parametrize(("itl_ms", "outcome"), [(20.0, Outcome.PASS), (30.0, Outcome.FAIL)])
def test_a_baseline_is_measured_until_its_own_bound_is_sure(itl_ms: float, outcome: Outcome) -> None:
    slowdown = bound("max_slowdown", 1.2, vs="baseline")
    run = make(bound("min_tokens_per_sec", 5), slowdown, itl_ms=itl_ms, jitter=("iid", 0.03))
    run.baseline = measurement(20, itl_ms=20.0)
    run.measure()
    verdicts = {verdict.bound.marker: verdict for verdict in run.settle()}
    assert verdicts["max_slowdown"].outcome is outcome
    assert verdicts["max_slowdown"].estimate == pytest.approx(itl_ms / 20, rel=0.05)
    assert verdicts["min_tokens_per_sec"].outcome is Outcome.PASS


def test_calibration_takes_exactly_so_many_rounds() -> None:
    run = make(bound("max_ttft", 500))
    assert len(run.fixed_rounds(20).clean_rounds) == 20


def test_only_what_was_not_met_is_in_the_failure() -> None:
    run = make(bound("min_tokens_per_sec", 30), bound("min_mbu", 0.5), bound("max_tpot", 5))
    run.measure()
    verdicts = run.settle()
    assert [v.outcome for v in verdicts] == [Outcome.PASS, Outcome.NO_VERDICT, Outcome.FAIL]
    hard = failure_text(verdicts, no_verdict_fails=True)
    soft = failure_text(verdicts, no_verdict_fails=False)
    assert hard is not None
    assert soft is not None
    assert "min_tokens_per_sec" not in hard
    assert "min_mbu" in hard
    assert "min_mbu" not in soft
    assert "max_tpot" in soft
    assert failure_text(verdicts[:1], no_verdict_fails=True) is None


def test_decoding_that_measures_the_host_is_named_and_a_busy_card_is_not() -> None:
    """The card is idle half the time while the engine's thread is saturated: a hint in the measurement."""

    def hints(utilization: float) -> tuple[str, ...]:
        window = Window(seconds=1.0, engine_cpu_ratio=1.0, gpu_utilization_ratio=utilization)
        watched = lambda: nullcontext(SimpleNamespace(window=window))  # noqa: E731
        return make(bound("min_tokens_per_sec", 1.0), watch=watched).measure().hints

    assert any("launch-bound decoding" in hint for hint in hints(0.5))
    assert not hints(0.98)
