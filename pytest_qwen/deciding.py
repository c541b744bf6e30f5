"""What the rounds so far say about a bound: whether it is sure, and within which limits it is not."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

from pytest_qwen.bounds import Bound
from pytest_qwen.clusters import pass_end
from pytest_qwen.error_rates import error_side
from pytest_qwen.evidence import Round
from pytest_qwen.guards import UNSEEN_DRIFT
from pytest_qwen.metrics import count_failed, fraction_of_rounds, is_slice, value_of, within_rounds
from pytest_qwen.statistics import FEWEST_ROUNDS, Decision, interval, minimum_samples, sequential_test
from pytest_qwen.streaming import PER_REQUEST, request_values

_PAIRED_DRIFT = 0.01


def values_for(bound: Bound, rounds: Sequence[Round]) -> tuple[float, ...]:
    """The bound's value in every round that counts and has one, in order."""
    return values_of(bound, (seen for seen in rounds if seen.clean))


def values_of(bound: Bound, rounds: Iterable[Round]) -> tuple[float, ...]:
    """The bound's value in every one of these rounds that has one."""
    found = (value_of(bound, seen) for seen in rounds)
    return tuple(value for value in found if value is not None)


def decide(bound: Bound, rounds: Sequence[Round], *, alpha: float) -> Decision:
    """What the rounds so far say about a bound that is judged sequentially; may be asked after each round.

    Slices with a percentile each must hold, together, as many requests as the percentile needs of its own,
    and what the slices meet must be true of all requests (see `clusters`).
    """
    values = values_for(bound, rounds)
    found = sequential_test(
        values,
        bound.limit,
        bound.direction,
        fraction=fraction_of_rounds(bound, rounds),
        alpha=alpha,
        unseen_drift=unseen_drift_of(bound),
    )
    if found.side != "meets":
        return found
    if requests_missing(bound, rounds, alpha):
        return replace(found, side="unsure", note="too few")
    end = _requests_end(bound, rounds, values, alpha)
    agree = bound.limit >= end if bound.direction == "at most" else bound.limit <= end
    return found if agree else replace(found, side="unsure")


def _requests_end(bound: Bound, rounds: Sequence[Round], values: Sequence[float], alpha: float) -> float:
    """The nearest limit that all requests together bear out, where slices have a percentile each."""
    easiest = -math.inf if bound.direction == "at most" else math.inf
    sliced = [seen for seen in rounds if seen.clean and is_slice(seen) and value_of(bound, seen) is not None]
    if bound.stat == "median" or bound.metric not in PER_REQUEST or len(sliced) < FEWEST_ROUNDS:
        return easiest
    parts = [request_values(bound.metric, seen.streams) or () for seen in sliced]
    return pass_end(parts, values, bound.direction, fraction=bound.fraction, alpha=alpha)


def requests_missing(bound: Bound, rounds: Sequence[Round], alpha: float) -> int:
    """How many requests a percentile over them still needs; 0 for any other bound."""
    sliced = [seen for seen in rounds if seen.clean and is_slice(seen)]
    if bound.stat == "median" or not sliced or not within_rounds(bound, sliced):
        return 0
    done = sum(len(seen.streams) - count_failed(seen) for seen in sliced)
    return max(0, minimum_samples(bound.fraction, alpha) - done)


def unseen_drift_of(bound: Bound) -> float:
    """How far a bound's metric may still drift after the last round (a share of it).

    Neighbouring rounds of an interleaved comparison drift together, so that their ratio hardly does; a
    stored baseline drifts with nobody.
    """
    paired = bound.metric == "slowdown_ratio" and bound.vs != "baseline"
    return _PAIRED_DRIFT if paired else UNSEEN_DRIFT


def interval_of(
    bound: Bound, values: Sequence[float], *, alpha: float, rounds: Sequence[Round] = ()
) -> tuple[float, float]:
    """The interval of a bound's statistic, under the same assumptions as its verdict.

    `rounds` are those that the values are of: slices of load have percentiles of their own.
    """
    low, high = interval(
        values,
        fraction=fraction_of_rounds(bound, rounds),
        direction=bound.direction,
        alpha=alpha,
        unseen_drift=unseen_drift_of(bound),
    )
    end = _requests_end(bound, rounds, values, alpha)
    return (low, max(high, end)) if bound.direction == "at most" else (min(low, end), high)


def all_decided(bounds: Sequence[Bound], rounds: Sequence[Round], *, alpha: float) -> bool:
    """Whether more rounds could not change any verdict.

    Too many failed requests end it as well: a slice that lacks complete ones may never have the percentiles
    that other bounds wait for.
    """
    sequential = [bound for bound in bounds if bound.judged == "sequential"]
    shares = [bound for bound in bounds if bound.judged == "requests"]
    seen_enough = sum(seen.clean for seen in rounds) >= FEWEST_ROUNDS
    if seen_enough and any(error_side(bound, rounds, alpha) == "misses" for bound in shares):
        return True
    return all(
        decide(bound, rounds, alpha=alpha).side != "unsure" or _never_shown(bound, rounds)
        for bound in sequential
    ) and all(error_side(bound, rounds, alpha) != "unsure" for bound in shares)


def any_missed(bounds: Sequence[Bound], rounds: Sequence[Round], *, alpha: float) -> bool:
    """Whether some bound is surely not met, whatever more rounds would say of the others."""
    return any(
        (bound.judged == "sequential" and decide(bound, rounds, alpha=alpha).side == "misses")
        or (bound.judged == "requests" and error_side(bound, rounds, alpha) == "misses")
        for bound in bounds
    )


def _never_shown(bound: Bound, rounds: Sequence[Round]) -> bool:
    """Whether so many rounds that count have lacked the bound's metric that more of them will not show it."""
    clean = sum(seen.clean for seen in rounds)
    return clean >= FEWEST_ROUNDS and not values_for(bound, rounds)
