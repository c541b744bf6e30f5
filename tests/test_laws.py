"""Fitted laws: exact ones come back exactly, noisy ones within their noise, impossible fits are said."""

from __future__ import annotations

import random
import statistics

import pytest

from pytest_qwen.errors import Misuse
from pytest_qwen.laws import MEMORY, STEP, Law, Point, fit_power, fit_sum

GRID = [{"batch": b, "tokens": t, "context": t} for b in (1, 4, 16, 64) for t in (512, 2048, 8192)]


def seen(law, noise: float = 0.0, seed: int = 1) -> list[Point]:
    chance = random.Random(seed)
    return [(where, law(**where) * (1 + noise * chance.uniform(-1, 1))) for where in GRID]


def test_a_law_that_holds_is_found_again() -> None:
    found = fit_sum(
        "memory", seen(lambda batch, tokens, **_: 15.2 + 5.7e-5 * batch * tokens), MEMORY, unit="GB"
    )
    assert [term.coefficient for term in found.terms] == pytest.approx([15.2, 5.7e-5], rel=1e-9)
    assert [term.unit for term in found.terms] == ["GB", "GB per batch*tokens"]
    assert found.r2 == pytest.approx(1)
    assert found.n == 12
    assert found.worst_percent < 1e-9
    assert found.at(batch=2, tokens=1000) == pytest.approx(15.2 + 0.114)


def test_three_terms_of_very_different_size() -> None:
    found = fit_sum(
        "step", seen(lambda batch, context, **_: 4 + 0.02 * batch + 3e-8 * batch * context), STEP, unit="ms"
    )
    assert [term.coefficient for term in found.terms] == pytest.approx([4, 0.02, 3e-8], rel=1e-6)


def test_the_residuals_are_what_the_line_leaves() -> None:
    points = [({"x": x}, y) for x, y in [(1, 1.0), (2, 3.0), (3, 2.0), (4, 5.0)]]
    found = fit_sum("y", points, ("1", "x"), unit="GB")
    slope, intercept = statistics.linear_regression([1, 2, 3, 4], [1.0, 3.0, 2.0, 5.0])
    assert [term.coefficient for term in found.terms] == pytest.approx([intercept, slope])
    assert found.residuals == pytest.approx([y - intercept - slope * x["x"] for x, y in points])
    assert sum(found.residuals) == pytest.approx(0)
    assert found.r2 == pytest.approx(statistics.correlation([1, 2, 3, 4], [1.0, 3.0, 2.0, 5.0]) ** 2)
    assert found.worst_percent == pytest.approx(
        max(100 * abs(r / y) for r, (_, y) in zip(found.residuals, points, strict=True))
    )


def test_noise_of_a_percent_leaves_the_coefficients_within_a_few() -> None:
    for seed in range(20):
        found = fit_sum(
            "m", seen(lambda batch, tokens, **_: 15 + 6e-5 * batch * tokens, 0.01, seed), MEMORY, unit="GB"
        )
        assert found.coefficient("1") == pytest.approx(15, rel=0.03)
        assert found.coefficient("batch*tokens") == pytest.approx(6e-5, rel=0.03)
        assert found.r2 is not None
        assert 0.99 < found.r2 < 1


@pytest.mark.parametrize("exponent", [1.0, 2.0, 0.5])
def test_a_power_is_told_by_its_exponent(exponent: float) -> None:
    found = fit_power(
        "scores", [({"tokens": t}, 3e-9 * t**exponent) for t in (512, 1024, 8192)], "tokens", unit="GB"
    )
    assert found.coefficient("tokens") == pytest.approx(exponent)
    assert found.coefficient("scale") == pytest.approx(3e-9)
    assert found.at(tokens=2048) == pytest.approx(3e-9 * 2048**exponent)
    assert f"GB x tokens^{exponent:.3f}" in str(found)


def test_a_quadratic_part_above_a_constant_is_a_sum_with_a_squared_term() -> None:
    points = [({"tokens": t}, 15 + 1e-4 * t + 5e-8 * t * t) for t in (512, 1024, 4096, 16384)]
    found = fit_sum("eager", points, ("1", "tokens", "tokens*tokens"), unit="GB")
    assert found.coefficient("tokens*tokens") == pytest.approx(5e-8)


def test_what_never_varies_has_no_r2() -> None:
    found = fit_sum("flat", [({"x": x}, 2.0) for x in (1, 2, 3)], ("1", "x"), unit="ms")
    assert found.r2 is None
    assert found.coefficient("x") == pytest.approx(0)
    assert "R²" not in str(found)


def test_the_formula_reads_as_one() -> None:
    found = fit_sum("y", [({"x": x}, 3 - 2.0 * x) for x in (1, 2, 3)], ("1", "x"), unit="ms")
    assert found.formula == "3 ms - 2 ms x x"
    assert str(found).startswith("y = 3 ms - 2 ms x x (R² 1.00000, n 3, worst residual 0.0 %)")


ONE, TWO = ({"x": 1.0}, 1.0), ({"x": 2.0}, 2.0)
WRONG = {
    "without a term": lambda: fit_sum("y", [ONE], (), unit="GB"),
    "too few points": lambda: fit_sum("y", [ONE], ("1", "x"), unit="GB"),
    "cannot tell": lambda: fit_sum("y", [ONE, ONE, ONE], ("1", "x"), unit="GB"),
    "lacks a quantity": lambda: fit_sum("y", [ONE, TWO], ("1", "batch"), unit="GB"),
    "not finite": lambda: fit_sum("y", [ONE, ({"x": 2.0}, float("nan"))], ("1", "x"), unit="GB"),
    "positive": lambda: fit_power("y", [ONE, ({"x": 2.0}, 0.0)], "x", unit="GB"),
    "too few": lambda: fit_power("y", [ONE], "x", unit="GB"),
    "apart": lambda: fit_power("y", [ONE, ({"x": 1.0}, 3.0)], "x", unit="GB"),
    "tell the terms": lambda: fit_sum("y", [({"x": 0.0}, 1.0), ({"x": 0.0}, 2.0)], ("x",), unit="GB"),
}


@pytest.mark.parametrize("said", WRONG)
def test_a_fit_that_says_nothing_is_misuse(said: str) -> None:
    with pytest.raises(Misuse, match=said):
        WRONG[said]()


def test_two_terms_that_grow_together_are_not_told_apart() -> None:
    points: list[Point] = [({"batch": b, "tokens": 2 * b}, float(b)) for b in (1, 2, 3, 4)]
    with pytest.raises(Misuse, match="grow together"):
        fit_sum("y", points, ("1", "batch", "tokens"), unit="GB")


def test_a_law_is_a_value() -> None:
    found = fit_sum("y", [ONE, TWO], ("1", "x"), unit="GB")
    assert found == fit_sum("y", [ONE, TWO], ("1", "x"), unit="GB")
    assert isinstance(hash(found), int)
    assert isinstance(found, Law)
