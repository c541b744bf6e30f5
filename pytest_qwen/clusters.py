"""Requests that come in slices: whether all of them together bear out a percentile that the slices meet.

The median slice can have a good p95 while the requests do not: where a queue fills up now and then, a few
slices hold most of the slow ones. A PASS on slices must therefore also hold for the share of all requests
that meet the limit, by the same e-process (`evalues`), their number counted down by what the slices show of
how requests fall together: the design effect (Kish 1965, "Survey Sampling": the variance of a count per slice
over that of independent requests) and the autocorrelation of that count, each with two standard errors. Like
`guards` it only takes verdicts away; the error rates are shown by simulation (`benchmarks/load_verdicts.py`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from pytest_qwen.bounds import Direction
from pytest_qwen.evalues import hits_needed
from pytest_qwen.guards import allowance_of, guards_of

_STANDARD_ERRORS = 2.0
_MOST_MEMORY = 0.95


def pass_end(
    slices: Sequence[Sequence[float]],
    quantiles: Sequence[float],
    direction: Direction,
    *,
    fraction: float,
    alpha: float,
) -> float:
    """The nearest limit that at least the share `fraction` of the requests is shown to meet.

    `slices` has each slice's requests, `quantiles` each slice's own percentile; there are two at least. As in
    `statistics`, far from the limit nothing is counted down. Infinite while there are too few requests.
    """
    at_most = direction == "at most"
    best_first = sorted((value for part in slices for value in part), reverse=not at_most)
    needed = -math.log(alpha)
    far = guards_of(quantiles, direction, 0.5).far
    ends = [math.inf if at_most else -math.inf]
    tiers = ((allowance_of(len(slices)), needed * _worth(slices, direction, fraction)), (far, needed))
    for reach, threshold in tiers:
        hits = hits_needed(len(best_first), fraction, threshold)
        if hits is not None:
            ends.append(best_first[hits - 1] * math.exp(reach if at_most else -reach))
    return min(ends) if at_most else max(ends)


def _worth(slices: Sequence[Sequence[float]], direction: Direction, fraction: float) -> float:
    """How many of these requests are worth one independent one; 1 where none stands out."""
    worst_last = sorted((v for part in slices for v in part), reverse=direction == "at least")
    n, k = len(worst_last), len(slices)
    edge = worst_last[min(n - 1, math.ceil(fraction * n) - 1)]
    beyond = [sum(v > edge if direction == "at most" else v < edge for v in part) for part in slices]
    share = sum(beyond) / n
    if share == 0:
        return 1.0
    excess = [count - len(part) * share for count, part in zip(beyond, slices, strict=True)]
    square = sum(x * x for x in excess)
    effect = square / (k - 1) / (n / k * share * (1 - share))
    memory = sum(a * b for a, b in pairwise(excess)) / square if square else 0.0
    cautious = min(_MOST_MEMORY, max(0.0, memory + _STANDARD_ERRORS / math.sqrt(k)))
    effect *= 1 + _STANDARD_ERRORS * math.sqrt(2 / (k - 1))
    return max(1.0, effect) * (1 + cautious) / (1 - cautious)
