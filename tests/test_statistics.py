"""Verdicts: small cases, properties, error rates under noise, and the sums around them."""

import math
import random
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_qwen.evalues import log_evidence
from pytest_qwen.noise import factors
from pytest_qwen.statistics import (
    calibrate,
    interval,
    minimum_samples,
    paired_ratios,
    percentile,
    sequential_test,
    stable,
)

ALPHA = 0.01
DIRECTIONS = st.sampled_from(["at least", "at most"])
FRACTIONS = st.sampled_from([0.5, 0.9, 0.95])
# whole numbers, so that order and ties survive a reciprocal
ROUNDS = st.one_of(
    st.lists(st.integers(1, 1000), max_size=120),
    st.lists(st.integers(980, 1020), min_size=8, max_size=200),
)
LIMITS = st.one_of(st.integers(1, 1000), st.integers(900, 1100))
OTHER = {"at least": "at most", "at most": "at least"}


def noisy(n, model="iid", *numbers, seed=1, level=100.0):
    return [level * factor for factor in islice(factors(model, *numbers, seed=seed), n)]


def test_equal_rounds_decide_at_eight_and_equality_meets():
    assert sequential_test([3.0] * 7, 3.0, "at most").side == "unsure"
    for direction in ("at most", "at least"):
        assert sequential_test([3.0] * 8, 3.0, direction).side == "meets"
    assert sequential_test([3.0] * 8, 2.999, "at most").side == "misses"
    assert sequential_test([3.0] * 8, 3.001, "at least").side == "misses"
    assert interval([3.0] * 8) == (3.0, 3.0)


def test_nothing_measured_is_unsure():
    decision = sequential_test([], 1.0, "at most")
    assert (decision.side, decision.n, decision.note) == ("unsure", 0, "too few")
    assert interval([]) == (-math.inf, math.inf)


def test_values_of_zero_can_be_judged():
    assert sequential_test([0.0] * 8, 1.0, "at most").side == "meets"
    assert sequential_test([0.0, 1.0] * 20, 0.5, "at most").side == "unsure"


def test_the_evidence_is_the_plain_one():
    values = [1.0] * 6 + [3.0] * 2
    assert sequential_test(values, 2.0, "at most").evidence == pytest.approx(
        math.exp(log_evidence(6, 8, 0.5))
    )


@pytest.mark.parametrize(
    ("fraction", "alpha", "n"), [(0.5, 0.01, 8), (0.95, 0.01, 100), (0.95, 0.05, 68), (0.99, 0.01, 510)]
)
def test_minimum_samples_is_exact(fraction, alpha, n):
    assert minimum_samples(fraction, alpha) == n
    for rounds, side in ((n, "meets"), (n - 1, "unsure")):
        assert sequential_test([1.0] * rounds, 2.0, "at most", fraction=fraction, alpha=alpha).side == side


@pytest.mark.parametrize("model", ["iid", "ar1", "drift", "step", "bursts"])
@pytest.mark.parametrize("direction", ["at least", "at most"])
def test_a_bound_at_half_the_true_rate_costs_ten_rounds_at_most(model, direction):
    decided = []
    for seed in range(20):
        values = noisy(10, model, seed=seed)
        if direction == "at least":
            values = [1 / value for value in values]
        limit = {"at most": 200.0, "at least": 1 / 200}[direction]
        decided.append(sequential_test(values, limit, direction).side == "meets")
    assert sum(decided) >= 15  # the others met an outlier or a burst


def test_one_outlier_does_not_spoil_the_verdict():
    values = [*noisy(19), 300.0]
    assert sequential_test(values, 150.0, "at most").side == "meets"


@pytest.mark.parametrize(
    ("values", "note"),
    [
        (noisy(100, "iid", 0.03, seed=4), ""),
        (noisy(100, "drift", 0.2, 100, 0.03), "drifting"),
        ([100.0 + (place // 5) % 2 for place in range(100)], "autocorrelated"),
        (noisy(7), "too few"),
    ],
)
def test_the_note_says_what_is_plain_to_see(values, note):
    assert sequential_test(values, sum(values) / len(values), "at most").note == note


def test_autocorrelation_makes_rounds_worth_less():
    free, bound = noisy(100), noisy(100, "ar1", 0.9)
    assert sequential_test(bound, 100.0, "at most").effective_n < 10
    assert 50 < sequential_test(free, 100.0, "at most").effective_n < 100


@settings(deadline=None)
@given(values=ROUNDS, limit=LIMITS, direction=DIRECTIONS, fraction=FRACTIONS)
def test_symmetric_under_reciprocal_and_direction(values, limit, direction, fraction):
    one = sequential_test(values, limit, direction, fraction=fraction)
    other = sequential_test([1 / v for v in values], 1 / limit, OTHER[direction], fraction=fraction)
    assert (one.side, one.n, one.note) == (other.side, other.n, other.note)
    assert one.effective_n == pytest.approx(other.effective_n)
    assert one.evidence == pytest.approx(other.evidence)


@settings(deadline=None)
@given(values=ROUNDS, limit=LIMITS, direction=DIRECTIONS, fraction=FRACTIONS)
def test_the_interval_holds_the_limits_that_are_unsure(values, limit, direction, fraction):
    low, high = interval(values, fraction=fraction, direction=direction)
    side = sequential_test(values, limit, direction, fraction=fraction).side
    if direction == "at most":
        assert side == ("meets" if limit >= high else "misses" if limit < low else "unsure")
    else:
        assert side == ("meets" if limit <= low else "misses" if limit > high else "unsure")
    assert low <= high


@settings(deadline=None)
@given(values=ROUNDS, limit=LIMITS, direction=DIRECTIONS, fraction=FRACTIONS)
def test_guards_only_take_verdicts_away(values, limit, direction, fraction):
    decision = sequential_test(values, limit, direction, fraction=fraction, alpha=ALPHA)
    if decision.side != "unsure":
        met = sum(value <= limit if direction == "at most" else value >= limit for value in values)
        hits, null_share = {"meets": (met, fraction), "misses": (len(values) - met, 1 - fraction)}[
            decision.side
        ]
        assert log_evidence(hits, len(values), null_share) >= -math.log(ALPHA)


@settings(deadline=None)
@given(values=st.lists(st.integers(1, 1000), min_size=8, max_size=60), direction=DIRECTIONS)
def test_the_interval_holds_the_median(values, direction):
    low, high = interval(values, direction=direction)
    assert low <= percentile(values, 0.5) <= high


SESSIONS, HORIZON = 500, 120
LOOKS = range(8, HORIZON + 1, 8)
# Were the rate alpha, more than this many of 500 sessions would err once in a thousand tries.
MOST_ERRORS = 13
NOISE = {
    "iid": ("iid", 0.03),
    "ar1 0.3": ("ar1", 0.3, 0.03),
    "ar1 0.6": ("ar1", 0.6, 0.03),
    "ar1 0.9": ("ar1", 0.9, 0.03),
    "drift up": ("drift", 0.05, HORIZON, 0.03),
    "drift down": ("drift", -0.05, HORIZON, 0.03),
    "step": ("step", 0.05, HORIZON // 2, 0.03),
    "outliers": ("outliers", 0.05, 0.03),
    "bursts": ("bursts", 0.05, 5, 0.03),
}


def count_errors(numbers, fraction):
    """False passes, false fails, and sessions whose plain evidence errs; the limit is the truth."""
    sessions = [noisy(HORIZON, *numbers, seed=seed) for seed in range(SESSIONS)]
    limit = float(np.quantile(sessions, fraction))
    passes = fails = plain = 0
    for values in sessions:
        sure = [decision for decision in decisions(values, limit, fraction) if decision.evidence >= 1 / ALPHA]
        plain += bool(sure)
        first = next((decision.side for decision in sure if decision.side != "unsure"), None)
        passes += first == "meets"
        fails += first == "misses"
    return passes, fails, plain


def decisions(values, limit, fraction):
    """At every look that can matter: plain evidence is cheap and no verdict comes without it."""
    for n in LOOKS:
        met = sum(value <= limit for value in values[:n])
        plain = max(log_evidence(met, n, fraction), log_evidence(n - met, n, 1 - fraction))
        if plain >= -math.log(ALPHA):
            yield sequential_test(values[:n], limit, "at most", fraction=fraction, alpha=ALPHA)


@pytest.mark.slow
@pytest.mark.parametrize("name", NOISE)
def test_false_verdicts_on_the_median_stay_below_alpha(name):
    passes, fails, plain = count_errors(NOISE[name], 0.5)
    assert passes <= MOST_ERRORS
    assert fails <= MOST_ERRORS
    if name in ("ar1 0.6", "ar1 0.9", "drift up", "drift down", "step"):
        assert plain > 2 * MOST_ERRORS  # what the guards are for


@pytest.mark.slow
@pytest.mark.parametrize("name", ["iid", "ar1 0.6", "drift up", "outliers"])
def test_false_verdicts_on_a_percentile_stay_below_alpha(name):
    passes, fails, _ = count_errors(NOISE[name], 0.95)
    assert passes <= MOST_ERRORS
    assert fails <= MOST_ERRORS


def test_a_burst_does_not_fail_a_percentile():
    values = noisy(40)
    values[3:8] = [300.0] * 5
    assert sequential_test(values, 150.0, "at most", fraction=0.95).side == "unsure"


def test_an_early_verdict_leaves_room_for_unseen_drift():
    values = noisy(20, "iid", 0.001)
    assert sequential_test(values, 102.0, "at most").side == "unsure"
    assert sequential_test(values, 102.0, "at most", unseen_drift=0).side == "meets"
    assert sequential_test(values, 106.0, "at most").side == "meets"


@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.5, 0.95, 1.0])
def test_percentile_is_numpys(fraction):
    samples = random.Random(3).sample(range(1000), 37)
    assert percentile(samples, fraction) == pytest.approx(float(np.quantile(samples, fraction)))


def test_percentile_of_nothing():
    with pytest.raises(ValueError, match="at least one"):
        percentile([], 0.5)


@pytest.mark.parametrize(
    ("values", "is_stable"),
    [
        ([], False),
        ([1.0, 1.0], False),
        ([9.0, 1.0, 1.0, 1.04], True),
        ([1.0, 1.0, 1.06], False),
        ([0.0, 0.0, 0.0], False),
    ],
)
def test_stable(values, is_stable):
    assert stable(values) is is_stable


def test_paired_ratios_cancel_a_common_drift():
    drift = [1 + place / 10 for place in range(4)]
    assert paired_ratios([2 * x for x in drift], drift) == pytest.approx([2, 2, 2, 2])
    with pytest.raises(ValueError, match="zip"):
        paired_ratios([1.0], [1.0, 2.0])


def test_calibration_spreads_by_hand():
    # logs (0, 2) and (4, 6): mean squares 2 within and 16 between, so (16 - 2) / 2 = 7
    found = calibrate(
        [[1, math.exp(2)], [math.exp(4), math.exp(6)]], direction="at most", rounds_per_session=8
    )
    assert found.within_cv == pytest.approx(math.sqrt(math.expm1(2)))
    assert found.between_cv == pytest.approx(math.sqrt(math.expm1(7)))
    assert found.false_fail_rate is None


def test_calibration_clips_a_negative_variance():
    found = calibrate([[99.0, 101.0, 100.0]] * 3, direction="at most")
    assert found.between_cv == 0


@pytest.mark.parametrize(("direction", "worse"), [("at most", 1), ("at least", -1)])
def test_calibration_proposes_a_limit_that_unchanged_code_passes(direction, worse):
    rng = random.Random(5)
    levels = [math.exp(rng.gauss(0, 0.02)) for _ in range(8)]
    processes = [noisy(30, seed=seed, level=100 * level) for seed, level in enumerate(levels)]
    found = calibrate(processes, direction=direction, limit=100.0, alpha=0.05, rounds_per_session=40)
    assert found.false_fail_rate > 0.5  # the limit is where the code is
    again = calibrate(
        processes, direction=direction, limit=found.proposed_limit, alpha=0.05, rounds_per_session=40
    )
    assert again.false_fail_rate <= 0.05
    assert again.proposed_limit == found.proposed_limit  # the simulation is seeded
    assert (found.proposed_limit - 100) * worse > 0
    assert 0.03 < found.smallest_change < 0.5


@pytest.mark.parametrize("processes", [[], [[1.0, 2.0]], [[1.0], [2.0]]])
def test_calibration_needs_two_processes_with_rounds(processes):
    with pytest.raises(ValueError, match="at least two processes"):
        calibrate(processes, direction="at most")
