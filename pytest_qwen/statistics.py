"""The sequential test behind every verdict, its interval, and the sums of comparing and calibrating."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Literal

from pytest_qwen.bounds import Direction

Side = Literal["meets", "misses", "unsure"]

FEWEST_ROUNDS = 8
UNSEEN_DRIFT = 0.03
_SETTLED_ROUNDS = 100
_FAR_SPREADS = 22.0
_SHARES = 20
_RHO = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    side: Side
    n: int
    effective_n: float
    evidence: float
    note: str = ""


def percentile(samples: Sequence[float], fraction: float) -> float:
    """The quantile `fraction` of `samples`, linear between order statistics (type 7 of Hyndman & Fan 1996).

    Raises ValueError without samples.
    """
    if not samples:
        raise ValueError("a percentile needs at least one sample")
    ordered = sorted(samples)
    place = fraction * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


@lru_cache(maxsize=64)
def _mixture(null_share: float) -> tuple[tuple[float, float, float], ...]:
    """(log weight, log gain of a hit, log gain of a miss) of each alternative share above `null_share`."""
    room = 1 - null_share
    shares = [null_share + room * (j + 0.5) / _SHARES for j in range(_SHARES)]
    return tuple(
        (math.log(0.5 / _SHARES), math.log(p / null_share), math.log((1 - p) / room)) for p in shares
    )


@lru_cache(maxsize=65536)
def log_evidence(hits: int, n: int, null_share: float) -> float:
    """Log e-value against "each round is a hit with probability <= null_share"."""
    terms = [w + hits * hit + (n - hits) * miss for w, hit, miss in _mixture(null_share)]
    if hits == n:
        terms.append(math.log(0.5) - n * math.log(null_share))
    top = max(terms)
    return top + math.log(sum(math.exp(term - top) for term in terms))


@lru_cache(maxsize=65536)
def hits_needed(n: int, null_share: float, needed: float) -> int | None:
    """The fewest hits in n rounds whose log evidence reaches `needed`; None when even n do not."""
    if log_evidence(n, n, null_share) < needed:
        return None
    low, high = math.ceil(n * null_share), n
    while low < high:
        mid = (low + high) // 2
        if log_evidence(mid, n, null_share) >= needed:
            high = mid
        else:
            low = mid + 1
    return high


def minimum_samples(fraction: float, alpha: float) -> int:
    n = 1
    while log_evidence(n, n, fraction) < -math.log(alpha):
        n += 1
    return max(n, FEWEST_ROUNDS)


def stable(values: Sequence[float], *, rounds: int = 3, tolerance: float = 0.05) -> bool:
    """Whether the last `rounds` values agree: max / min - 1 <= tolerance."""
    last = values[-rounds:]
    return len(last) >= rounds and min(last) > 0 and max(last) / min(last) - 1 <= tolerance


def _costs(values: Sequence[float], direction: Direction) -> list[float]:
    sign = 1.0 if direction == "at most" else -1.0
    return [sign * math.log(max(value, 5e-324)) for value in values]


def _ranks(costs: Sequence[float]) -> list[float]:
    order = sorted(range(len(costs)), key=costs.__getitem__)
    ranks = [0.0] * len(costs)
    start = 0
    while start < len(order):
        end = start
        while end < len(order) and costs[order[end]] == costs[order[start]]:
            end += 1
        for place in range(start, end):
            ranks[order[place]] = (start + end - 1) / 2
        start = end
    return ranks


def _autocorrelation(xs: Sequence[float]) -> float:
    mean = math.fsum(xs) / len(xs)
    centred = [x - mean for x in xs]
    square = sum(x * x for x in centred)
    return sum(a * b for a, b in pairwise(centred)) / square if square > 0 else 0.0


def _discount(costs: Sequence[float], fraction: float) -> float:
    n = len(costs)
    rho = _autocorrelation(_ranks(costs))
    if fraction > 0.5:
        edge = percentile(costs, fraction)
        rho = max(rho, _autocorrelation([float(cost > edge) for cost in costs]))
    rho = min(0.99, max(0.0, rho + _RHO / math.sqrt(n)))
    return (1 - rho) / (1 + rho)


def _spread(ordered: Sequence[float]) -> float:
    middle = percentile(ordered, 0.5)
    return 1.4826 * percentile([abs(cost - middle) for cost in ordered], 0.5)


def _ends(
    costs: Sequence[float], fraction: float, alpha: float, unseen_drift: float
) -> tuple[float, float, float]:
    n = len(costs)
    ordered = sorted(costs)
    if n < FEWEST_ROUNDS:
        return -math.inf, math.inf, 0.0
    needed = -math.log(alpha)
    if ordered[0] == ordered[-1]:
        discount, allowance, far = 1.0, 0.0, 0.0
    else:
        discount = _discount(costs, fraction)
        half = n // 2
        seen = abs(percentile(costs[:half], 0.5) - percentile(costs[half:], 0.5))
        allowance = math.log1p(unseen_drift) * min(1.0, _SETTLED_ROUNDS / n) + seen
        far = allowance + _FAR_SPREADS / math.sqrt(n) * _spread(ordered)
    low, high = -math.inf, math.inf
    for hits, miss_fraction, reach in (
        (hits_needed(n, fraction, needed / discount), 1 - fraction, allowance),
        (hits_needed(n, fraction, needed), 0.5, far),
    ):
        misses = hits_needed(n, miss_fraction, needed / discount if reach == allowance else needed)
        if hits is not None:
            high = min(high, ordered[hits - 1] + reach)
        if misses is not None:
            low = max(low, ordered[n - misses] - reach)
    return low, high, discount


def interval(
    values: Sequence[float],
    *,
    fraction: float = 0.5,
    direction: Direction = "at most",
    alpha: float = 0.01,
    unseen_drift: float = UNSEEN_DRIFT,
) -> tuple[float, float]:
    low, high, _ = _ends(_costs(values, direction), fraction, alpha, unseen_drift)
    ends = (low, high) if direction == "at most" else (-high, -low)
    return math.exp(ends[0]), math.exp(ends[1])


def sequential_test(
    values: Sequence[float],
    limit: float,
    direction: Direction,
    *,
    fraction: float = 0.5,
    alpha: float = 0.01,
    unseen_drift: float = UNSEEN_DRIFT,
) -> Decision:
    costs = _costs(values, direction)
    (edge,) = _costs([limit], direction)
    low, high, discount = _ends(costs, fraction, alpha, unseen_drift)
    side: Side = "meets" if edge >= high else "misses" if edge < low else "unsure"
    met = sum(cost <= edge for cost in costs)
    n = len(costs)
    evidence = max(log_evidence(met, n, fraction), log_evidence(n - met, n, 1 - fraction))
    return Decision(side=side, n=n, effective_n=n * discount, evidence=math.exp(min(evidence, 700)), note="")
