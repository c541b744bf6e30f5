"""The theorem's e-process: exact small cases, the martingale property, monotony."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_qwen.evalues import hits_needed, log_evidence

SHARES = st.sampled_from([0.05, 0.5, 0.95, 0.99])
ROUNDS = st.integers(0, 150).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@pytest.mark.parametrize(
    ("hits", "n", "null_share", "evidence"),
    [
        (0, 0, 0.5, 1.0),
        (1, 1, 0.5, 0.5 * 2 + 0.5 * 0.75 / 0.5),  # the shares between 0.5 and 1 have mean 0.75
        (0, 1, 0.5, 0.5 * 0.25 / 0.5),
        (1, 1, 0.95, 0.5 / 0.95 + 0.5 * 0.975 / 0.95),
    ],
)
def test_evidence_by_hand(hits, n, null_share, evidence):
    assert math.exp(log_evidence(hits, n, null_share)) == pytest.approx(evidence)


@settings(deadline=None)
@given(counts=ROUNDS, null_share=SHARES)
def test_a_fair_round_leaves_the_evidence_as_it_is_on_average(counts, null_share):
    hits, n = counts
    now = log_evidence(hits, n, null_share)
    after_hit = math.exp(log_evidence(hits + 1, n + 1, null_share) - now)
    after_miss = math.exp(log_evidence(hits, n + 1, null_share) - now)
    assert null_share * after_hit + (1 - null_share) * after_miss == pytest.approx(1)
    assert after_hit >= after_miss  # so a smaller chance of a hit can only lower it


@settings(deadline=None)
@given(counts=ROUNDS, null_share=SHARES)
def test_more_hits_are_more_evidence(counts, null_share):
    hits, n = counts
    if hits:
        assert log_evidence(hits, n, null_share) > log_evidence(hits - 1, n, null_share)


@settings(deadline=None)
@given(n=st.integers(1, 150), null_share=SHARES, alpha=st.sampled_from([0.05, 0.01, 0.001]))
def test_hits_needed_is_the_first_count_that_is_enough(n, null_share, alpha):
    threshold = -math.log(alpha)
    enough = [hits for hits in range(n + 1) if log_evidence(hits, n, null_share) >= threshold]
    assert hits_needed(n, null_share, threshold) == (enough[0] if enough else None)
