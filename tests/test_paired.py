"""Intervals of shares and of their drop: exact by definition, never wrong more often than promised."""

import math
import random
from itertools import product

import pytest

from pytest_qwen.paired import drop_interval, items_to_decide, share_interval


def binomial(n: int, k: int, p: float) -> float:
    return math.comb(n, k) * p**k * (1 - p) ** (n - k)


@pytest.mark.parametrize(("right", "n", "alpha"), [(3, 10, 0.05), (0, 7, 0.01), (7, 7, 0.01), (41, 60, 0.01)])
def test_the_ends_of_a_share_are_where_the_tails_have_the_error_rate(right, n, alpha):
    low, high = share_interval(right, n, alpha=alpha)
    assert low <= right / n <= high
    if right:
        assert sum(binomial(n, k, low) for k in range(right, n + 1)) == pytest.approx(alpha, rel=1e-6)
    else:
        assert low == 0
    if right < n:
        assert sum(binomial(n, k, high) for k in range(right + 1)) == pytest.approx(alpha, rel=1e-6)
    else:
        assert high == 1


def test_a_large_task_keeps_its_digits():
    low, high = share_interval(7000, 14042, alpha=0.01)
    half = 2.3263 * math.sqrt(0.4985 * 0.5015 / 14042)
    assert low == pytest.approx(7000 / 14042 - half, abs=1e-4)
    assert high == pytest.approx(7000 / 14042 + half, abs=1e-4)


@pytest.mark.parametrize("counts", [(-1, 5), (6, 5), (0, 0)])
def test_counts_that_cannot_be_are_refused(counts):
    with pytest.raises(ValueError, match="right="):
        share_interval(*counts, alpha=0.01)


@pytest.mark.parametrize("counts", [(-1, 0, 5), (3, 3, 5), (0, 0, 0)])
def test_discordant_counts_that_cannot_be_are_refused(counts):
    with pytest.raises(ValueError, match="no such counts"):
        drop_interval(*counts, alpha=0.01)


@pytest.mark.parametrize("alpha", [0.01, 0.1])
@pytest.mark.parametrize("n", [4, 25])
def test_each_end_of_a_drop_errs_at_most_at_the_rate_promised(n, alpha):
    """All outcomes of n items, weighed by their probability: no chance is involved."""
    ends = {
        (lost, gained): drop_interval(lost, gained, n, alpha=alpha)
        for lost, gained in product(range(n + 1), repeat=2)
        if lost + gained <= n
    }
    for p_lost, p_gained in product((0.002, 0.02, 0.1, 0.3), repeat=2):
        drop, too_high, too_low = p_lost - p_gained, 0.0, 0.0
        for (lost, gained), (low, high) in ends.items():
            ways = math.comb(n, lost) * math.comb(n - lost, gained)
            weight = ways * p_lost**lost * p_gained**gained * (1 - p_lost - p_gained) ** (n - lost - gained)
            too_high += weight * (low > drop)
            too_low += weight * (high < drop)
        assert too_high <= alpha
        assert too_low <= alpha


def wrong_and_sure(p_lost: float, p_gained: float, limit: float, n: int, alpha: float) -> tuple[float, float]:
    """Of simulated sessions, how many pass the limit, and how many fail it."""
    rng, sessions, passed, failed = random.Random(20), 400, 0, 0
    for _ in range(sessions):
        drawn = [rng.random() for _ in range(n)]
        lost = sum(one < p_lost for one in drawn)
        gained = sum(p_lost <= one < p_lost + p_gained for one in drawn)
        low, high = drop_interval(lost, gained, n, alpha=alpha)
        passed += high <= limit
        failed += low > limit
    return passed / sessions, failed / sessions


def test_a_drop_at_the_limit_is_hardly_ever_decided_and_one_far_from_it_is():
    alpha = 0.05
    allowed = alpha + 3 * math.sqrt(alpha * (1 - alpha) / 400)
    passed, failed = wrong_and_sure(0.06, 0.02, limit=0.04, n=300, alpha=alpha)
    assert passed <= allowed
    assert failed <= allowed
    passed, failed = wrong_and_sure(0.02, 0.02, limit=0.08, n=300, alpha=alpha)
    assert passed > 0.9
    passed, failed = wrong_and_sure(0.25, 0.02, limit=0.08, n=300, alpha=alpha)
    assert failed > 0.9


def test_a_share_at_the_limit_is_hardly_ever_decided_in_simulation():
    rng, alpha, wrong = random.Random(7), 0.05, 0
    for _ in range(400):
        low, high = share_interval(sum(rng.random() < 0.7 for _ in range(150)), 150, alpha=alpha)
        wrong += not low <= 0.7 <= high
    assert wrong / 400 <= 2 * alpha + 3 * math.sqrt(2 * alpha / 400)


@pytest.mark.parametrize(("lost", "gained"), [(9, 1), (14, 6), (1, 9), (5, 5), (30, 8)])
def test_at_a_drop_of_zero_it_is_mcnemars_exact_test(lost, gained):
    low, _ = drop_interval(lost, gained, 200, alpha=0.05)
    n = lost + gained
    tail = sum(math.comb(n, k) for k in range(lost, n + 1)) / 2**n
    assert (low > 0) is (tail < 0.9 * 0.05)


def test_the_number_that_would_decide_decides_and_a_tenth_less_does_not():
    def at(n: int) -> tuple[float, float]:
        return share_interval(round(0.7 * n), n, alpha=0.01)

    needed = items_to_decide(50, at, 0.65)
    assert needed is not None
    assert at(needed)[0] >= 0.65
    assert at(round(0.9 * needed))[0] < 0.65


def test_a_limit_that_is_what_was_observed_is_never_decided():
    assert items_to_decide(50, lambda n: share_interval(n // 2, n, alpha=0.01), 0.5) is None
