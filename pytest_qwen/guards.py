"""How far a row of rounds can be trusted: what its order shows of memory, drift and spread.

The sequential test is a theorem for rounds that do not depend on each other. Rounds on a machine follow each
other (autocorrelation), drift, jump and stray. Two guards answer that, both estimated from the rounds
themselves, by ranks and medians, on a logarithmic scale:

- *near* the limit, the evidence counts as if there were only `discount` x n rounds, by the lag-1 rank
  autocorrelation plus two standard errors; and the limit is moved away from a verdict by an allowance for
  drift: what the two halves of the rounds differ by, plus `unseen_drift` for what has not shown yet, which
  shrinks once more than 100 rounds were seen;
- *far* from the limit, beyond that allowance plus 22 / sqrt(n) robust spreads, nothing is discounted: to
  bring rounds that far, the process would have to wander many times as far as it did.

The numbers in here are round ones with which the error rates hold in simulation (`benchmarks/verdicts.py`);
they are not derived. Rounds that are all equal need no guard.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, median
from typing import Literal

from pytest_qwen.bounds import Direction

Note = Literal["", "too few", "autocorrelated", "drifting"]

# A session's level may still move by 3 %: half of a 5 % jump or drift, and a little more.
UNSEEN_DRIFT = 0.03
_SETTLED_ROUNDS = 100
_FAR_SPREADS = 22.0
_STANDARD_ERRORS = 2.0
_NOTEWORTHY_ERRORS = 3.0
_SMALLEST = 5e-324


@dataclass(frozen=True, slots=True, kw_only=True)
class Guards:
    """`discount` is effective rounds / rounds; `near` and `far` are distances, in logarithms, from a limit.

    `note` is what is plain to see in the order of the rounds, "" for nothing.
    """

    discount: float
    near: float
    far: float
    note: Note


NO_GUARDS = Guards(discount=1.0, near=0.0, far=0.0, note="")


def log_of(value: float) -> float:
    """The logarithm of a metric; that of the smallest float for one that is 0 or, by noise, below."""
    return math.log(max(value, _SMALLEST))


def allowance_of(n: int, unseen_drift: float = UNSEEN_DRIFT) -> float:
    """The logarithmic distance kept after n rounds for drift that has not shown: `near` is never less."""
    return math.log1p(unseen_drift) * min(1.0, _SETTLED_ROUNDS / n)


def guards_of(
    values: Sequence[float], direction: Direction, fraction: float, unseen_drift: float = UNSEEN_DRIFT
) -> Guards:
    """The guards of these rounds, in their order; at least two of them.

    `fraction` is the share that must meet a limit, `unseen_drift` a ratio.
    """
    n, sign = len(values), 1 if direction == "at most" else -1
    costs = [sign * log_of(value) for value in values]
    ordered = sorted(costs)
    if ordered[0] == ordered[-1]:
        return NO_GUARDS
    rho, trend = _memory_and_trend(_ranks(costs, ordered))
    if fraction > 0.5:  # slow rounds may come in bursts while the others do not follow each other
        edge = ordered[math.ceil(fraction * n) - 1]
        beyond = [float(cost > edge) for cost in costs]
        rho = max(rho, _memory_and_trend(beyond)[0])
    cautious = min(0.99, max(0.0, rho + _STANDARD_ERRORS / math.sqrt(n)))
    shift = abs(median(costs[: n // 2]) - median(costs[n // 2 :]))
    near = shift + allowance_of(n, unseen_drift)
    middle = median(ordered)
    spread = 1.4826 * median(abs(cost - middle) for cost in costs)  # the standard deviation, if normal
    return Guards(
        discount=(1 - cautious) / (1 + cautious),  # as for the mean of an AR(1) process
        near=near,
        far=near + _FAR_SPREADS / math.sqrt(n) * spread,
        note=_note(rho, trend, n),
    )


def _note(rho: float, trend: float, n: int) -> Note:
    """Drift or memory that three standard errors of neither do not explain."""
    if abs(trend) * math.sqrt(n) > _NOTEWORTHY_ERRORS:
        return "drifting"
    return "autocorrelated" if rho * math.sqrt(n) > _NOTEWORTHY_ERRORS else ""


def _ranks(xs: Sequence[float], ordered: Sequence[float]) -> list[float]:
    """The place of each x in their order, equal ones sharing the mean of theirs."""
    first: dict[float, int] = {}
    last: dict[float, int] = {}
    for place, x in enumerate(ordered):
        first.setdefault(x, place)
        last[x] = place
    return [(first[x] + last[x]) / 2 for x in xs]


def _memory_and_trend(xs: Sequence[float]) -> tuple[float, float]:
    """Correlation of `xs` with the value before (lag 1) and with time; 0 when all are equal.

    Of ranks, the second is Spearman's.
    """
    n, mean = len(xs), fmean(xs)
    centred = [x - mean for x in xs]
    square = sum(x * x for x in centred)
    if square == 0:
        return 0.0, 0.0
    memory = sum(a * b for a, b in pairwise(centred)) / square
    trend = sum(place * x for place, x in enumerate(centred)) / math.sqrt(square * n * (n * n - 1) / 12)
    return memory, trend
