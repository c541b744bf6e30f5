"""The noise models: seeded, with the spread, memory and shape that their names promise."""

import math
from itertools import islice, pairwise
from statistics import correlation, fmean, median, pstdev

import pytest

from pytest_qwen.errors import Misuse
from pytest_qwen.noise import MODELS, factors


def draw(n, model, *numbers, seed=1):
    return list(islice(factors(model, *numbers, seed=seed), n))


@pytest.mark.parametrize("model", MODELS)
def test_a_seed_is_a_session(model):
    assert draw(50, model) == draw(50, model)
    assert draw(50, model) != draw(50, model, seed=2)
    assert min(draw(500, model)) > 0


@pytest.mark.parametrize(("model", "numbers"), [("iid", (0.1,)), ("ar1", (0.6, 0.1))])
def test_median_and_spread(model, numbers):
    drawn = draw(40_000, model, *numbers)
    assert median(drawn) == pytest.approx(1, abs=0.005)
    assert pstdev(drawn) / fmean(drawn) == pytest.approx(0.1, rel=0.05)


@pytest.mark.parametrize("phi", [0.3, 0.9])
def test_ar1_remembers(phi):
    logs = [math.log(factor) for factor in draw(20_000, "ar1", phi, 0.03)]
    before, after = zip(*pairwise(logs), strict=True)
    assert correlation(before, after) == pytest.approx(phi, abs=0.03)


def test_drift_moves_evenly_and_then_stays():
    assert draw(7, "drift", 0.04, 5, 0.0) == pytest.approx([1, 1.01, 1.02, 1.03, 1.04, 1.04, 1.04])


def test_step_jumps_once():
    assert draw(4, "step", -0.1, 2, 0.0) == pytest.approx([1, 1, 0.9, 0.9])


def test_outliers_are_single_and_as_many_as_asked():
    slow = [factor for factor in draw(20_000, "outliers", 0.05, 0.0) if factor > 1]
    assert len(slow) / 20_000 == pytest.approx(0.05, abs=0.005)
    assert min(slow) >= 1.3
    assert max(slow) <= 3


def test_bursts_come_in_runs_and_are_as_many_as_asked():
    drawn = draw(40_000, "bursts", 0.05, 5, 0.0)
    starts = [place for place, (before, now) in enumerate(pairwise(drawn), 1) if before == 1 < now]
    assert sum(factor > 1 for factor in drawn) / 40_000 == pytest.approx(0.05, abs=0.01)
    assert all(len(set(drawn[start : start + 5])) == 1 for start in starts[:-1])


def test_an_unknown_model_is_named_with_the_likely_one():
    with pytest.raises(Misuse, match="did you mean 'drift'"):
        factors("drifts")
