"""pass@k against what it stands for: the share of all choices of k samples that have a good one."""

import math
from fractions import Fraction
from itertools import combinations, product

import pytest

from pytest_qwen.pass_at_k import pass_at_k


def enumerated(n: int, c: int, k: int) -> Fraction:
    chosen = list(combinations(range(n), k))
    return Fraction(sum(min(choice) < c for choice in chosen), len(chosen))  # the first c samples are good


CASES = [(n, c, k) for n in range(1, 9) for c, k in product(range(n + 1), range(1, n + 1))]


def test_equals_the_count_of_all_choices() -> None:
    for n, c, k in CASES:
        assert pass_at_k(n, c, k) == pytest.approx(float(enumerated(n, c, k)), abs=1e-12), (n, c, k)


@pytest.mark.parametrize(
    ("n", "c", "k", "wanted"),
    [(1, 0, 1, 0.0), (1, 1, 1, 1.0), (10, 3, 1, 0.3), (10, 3, 10, 1.0), (10, 0, 10, 0.0), (10, 8, 3, 1.0)],
)
def test_the_ends_are_exact(n: int, c: int, k: int, wanted: float) -> None:
    assert pass_at_k(n, c, k) == pytest.approx(wanted, abs=1e-15)


def test_pass_at_one_is_the_share_of_good_samples() -> None:
    for n, c in product(range(1, 30), range(30)):
        if c <= n:
            assert pass_at_k(n, c, 1) == pytest.approx(c / n, abs=1e-12)


def test_grows_with_every_good_sample_and_with_k() -> None:
    for n, c, k in CASES:
        if c < n:
            assert pass_at_k(n, c + 1, k) >= pass_at_k(n, c, k)
        if k < n:
            assert pass_at_k(n, c, k + 1) >= pass_at_k(n, c, k) - 1e-12


def test_thousands_of_samples_stay_exact_where_binomials_outgrow_a_float() -> None:
    n, c, k = 5000, 7, 1000
    wanted = 1 - Fraction(math.comb(n - c, k), math.comb(n, k))
    assert pass_at_k(n, c, k) == pytest.approx(float(wanted), rel=1e-9)


@pytest.mark.parametrize(
    ("n", "c", "k"), [(0, 0, 1), (3, 4, 1), (3, -1, 1), (3, 1, 0), (3, 1, 4), (3, 1, -1)]
)
def test_what_no_samples_can_answer_is_refused(n: int, c: int, k: int) -> None:
    with pytest.raises(ValueError, match=f"n={n}, c={c}, k={k}"):
        pass_at_k(n, c, k)
