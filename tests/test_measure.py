"""Rounds repeated until sure: warm-up, budget, windows that do not count, faults, interleaving."""

import pytest
from measuring import ROUND, fake_run, observer, windows

from pytest_qwen.engines.base import Request
from pytest_qwen.errors import EngineFault
from pytest_qwen.evidence import Measurement
from pytest_qwen.measure import Limits, Progress, interleave, measure, observe
from pytest_qwen.outcomes import NoVerdict
from pytest_qwen.testing import ManualClock


def kinds(found: Measurement) -> list[str]:
    return [seen.kind for seen in found.rounds]


def after(count: int):
    return lambda rounds: sum(seen.clean for seen in rounds) >= count


def test_a_round_carries_times_metrics_and_window() -> None:
    seen, trace = observe(fake_run(ttft_ms=100.0, itl_ms=20.0), ROUND, observer())
    assert seen.token_ms == pytest.approx([100 + 20 * n for n in range(11)])
    assert seen.metrics["decode_tokens_per_sec"] == pytest.approx(50)
    assert (seen.prompt_tokens, seen.output_tokens, seen.clock) == (64, 11, "simulated")
    assert seen.window is not None
    assert seen.tokens_digest == trace.tokens_digest
    assert seen.clean


def test_warm_up_ends_when_rounds_agree_and_is_not_judged() -> None:
    run = fake_run(warmup=(5.0, 3.0, 2.0))
    found = measure(run, ROUND, decided=after(4), observer=observer(), limits=Limits())
    # three slow rounds, then three that agree
    assert kinds(found) == ["warmup"] * 6 + ["round"] * 4
    assert found.stopped == "decided"
    assert found.hints == ()
    assert found.values("ttft_ms") == pytest.approx([100.0] * 4)


def test_a_warm_up_that_never_settles_is_said() -> None:
    run = fake_run(warmup=tuple(1.2**n for n in range(20, 0, -1)), ttft_ms=1.0, itl_ms=1.0)
    found = measure(run, ROUND, decided=after(1), observer=observer(), limits=Limits())
    assert kinds(found).count("warmup") == Limits().warmup_most
    assert "warm-up did not settle" in found.hints[0]


def test_warm_up_takes_a_third_of_the_budget_at_most() -> None:
    run = fake_run(warmup=tuple(float(n) for n in range(40, 0, -1)))  # rounds of 12 s and less
    found = measure(run, ROUND, decided=after(1), observer=observer(), limits=Limits(budget_s=30))
    assert kinds(found).count("warmup") == 1


def test_the_least_number_of_rounds_is_kept() -> None:
    found = measure(
        fake_run(), ROUND, decided=lambda _: True, observer=observer(), limits=Limits(least_rounds=5)
    )
    assert len(found.clean_rounds) == 5


def test_the_budget_ends_a_measurement_that_is_never_sure() -> None:
    # rounds of 0.3 s in simulated time
    found = measure(
        fake_run(), ROUND, decided=lambda _: False, observer=observer(), limits=Limits(budget_s=6.0)
    )
    assert found.stopped == "budget"
    assert 15 <= len(found.rounds) <= 20
    assert found.seconds <= 6.0


def test_the_budget_counts_the_clock_of_the_world_too() -> None:
    clock = ManualClock()

    def run(request: Request):
        clock.sleep(2.0)
        return inner(request)

    inner = fake_run(ttft_ms=0.001, itl_ms=0.001)
    found = measure(
        run, ROUND, decided=lambda _: False, observer=observer(clock=clock), limits=Limits(budget_s=20.0)
    )
    assert len(found.rounds) == 10
    assert found.seconds == pytest.approx(20.0, rel=0.01)


def test_at_most_so_many_rounds() -> None:
    found = measure(
        fake_run(), ROUND, decided=lambda _: False, observer=observer(), limits=Limits(most_rounds=7)
    )
    assert kinds(found).count("round") == 7


def test_a_violated_window_does_not_count_and_is_measured_again() -> None:
    busy = [NoVerdict.HOST_OVERLOADED]
    watch = windows([], [], [], busy, [], busy, [])
    found = measure(fake_run(), ROUND, decided=after(4), observer=observer(watch), limits=Limits())
    assert len(found.clean_rounds) == 4
    assert kinds(found).count("round") == 6
    assert [seen.violations for seen in found.rounds if seen.violations] == [tuple(busy)] * 2


def test_a_window_that_is_always_violated_ends_before_the_budget() -> None:
    watch = windows(*[[NoVerdict.THROTTLED]] * 1000)
    found = measure(
        fake_run(), ROUND, decided=after(1), observer=observer(watch), limits=Limits(most_violated=5)
    )
    assert (found.stopped, kinds(found).count("round"), found.clean_rounds) == ("budget", 5, ())


def test_a_short_output_does_not_count() -> None:
    found = measure(fake_run(fault="short@4"), ROUND, decided=after(3), observer=observer(), limits=Limits())
    short = [seen for seen in found.rounds if not seen.clean and seen.kind == "round"]
    assert [seen.violations for seen in short] == [(NoVerdict.SHORT_OUTPUT,)]
    assert len(found.clean_rounds) == 3


def test_an_answer_that_may_end_early_is_not_short() -> None:
    request = Request(prompt="a", output_tokens=500)
    seen, _ = observe(fake_run(text="only three words"), request, observer())
    assert (seen.output_tokens, seen.clean) == (3, True)


def test_random_prompts_are_fresh_each_round_and_a_fixed_prompt_stays() -> None:
    for request, seeds in ((ROUND, 5), (Request(prompt="a", output_tokens=3, ignore_eos=True), 1)):
        asked = []
        inner = fake_run()

        def run(request: Request, inner=inner, asked=asked):
            asked.append(request.seed)
            return inner(request)

        measure(run, request, decided=after(2), observer=observer(), limits=Limits(least_rounds=2))
        assert len(asked) == 5
        assert len(set(asked)) == seeds


def test_a_fault_keeps_what_was_seen_before_it() -> None:
    with pytest.raises(EngineFault) as caught:
        measure(fake_run(fault="die@6"), ROUND, decided=after(10), observer=observer(), limits=Limits())
    partial = caught.value.partial
    assert isinstance(partial, Measurement)
    assert kinds(partial) == ["warmup"] * 3 + ["round"] * 2
    assert partial.stopped == "programmed: die"


def test_progress_is_told_before_every_round() -> None:
    seen: list[Progress] = []
    measure(fake_run(), ROUND, decided=after(2), observer=observer(seen=seen), limits=Limits(least_rounds=2))
    assert [progress.phase for progress in seen] == ["warmup"] * 3 + ["round"] * 2
    assert seen[-1].budget_s == Limits().budget_s
    assert seen[-1].elapsed_s > 0


class Sides:
    """Two engines that note the order in which they run."""

    def __init__(self, watch=None, **of_b: object) -> None:
        self.order = ""
        self.a, self.b = self._noting("A", {}), self._noting("B", of_b)
        self.watch = watch

    def _noting(self, name: str, programme: dict):
        inner = fake_run(**programme)

        def run(request: Request):
            self.order += name
            return inner(request)

        return run

    def compare(self, decided=None, **limits: object) -> tuple[Measurement, Measurement]:
        return interleave(
            self.a,
            self.b,
            ROUND,
            decided=decided or after(4),
            observer=observer(self.watch),
            limits=Limits(**limits),
        )


def test_interleaving_goes_a_b_b_a_after_both_are_warm() -> None:
    sides = Sides(itl_ms=30.0)
    a, b = sides.compare()
    assert sides.order == "AAABBB" + "ABBAABBA"
    assert b.values("slowdown_ratio") == pytest.approx([1.5] * 4)
    assert a.values("slowdown_ratio") == ()
    assert (a.stopped, b.stopped) == ("decided", "decided")


def test_a_violation_on_either_side_spoils_the_pair() -> None:
    clean, busy = [], [NoVerdict.CO_TENANT]
    sides = Sides(windows(*[clean] * 6, busy, clean, busy, clean))  # A of the first pair, B of the second
    _, b = sides.compare(after(2))
    timed = [seen.violations for seen in b.rounds if seen.kind == "round"]
    assert timed == [tuple(busy), tuple(busy), (), ()]


def test_interleaving_ends_with_the_budget() -> None:
    a, b = Sides().compare(lambda _: False, budget_s=5.0)
    assert a.stopped == b.stopped == "budget"
    assert len(a.rounds) == len(b.rounds)


def test_a_fault_of_either_side_keeps_what_the_other_has() -> None:
    with pytest.raises(EngineFault) as caught:
        Sides(fault="die@6").compare()
    partial = caught.value.partial
    assert isinstance(partial, Measurement)
    assert partial.values("slowdown_ratio") == pytest.approx([1.0] * 2)
