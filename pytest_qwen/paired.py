"""Exact intervals for shares of right answers: of one model, and of the drop between two on equal items."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

# Halvings of [0, 1] after which an end of an interval no longer moves in double precision's first 12 digits.
_HALVINGS = 40
# Of the error rate, what the share of discordant items may take; the rest goes to their direction.
_FOR_THE_SHARE = 0.1
_MOST_ITEMS = 1_000_000


def share_interval(right: int, n: int, *, alpha: float) -> tuple[float, float]:
    """The interval of a share of which `right` of `n` items were seen, each end wrong at most at rate alpha.

    Clopper and Pearson 1934, Biometrika 26:404: `low` is the share at which `right` or more have probability
    alpha, `high` the one at which `right` or fewer have. Exact, therefore never too narrow. Raises ValueError
    unless 0 ≤ right ≤ n and n ≥ 1.
    """
    if not 0 <= right <= n or n < 1:
        raise ValueError(f"an interval needs 0 ≤ right ≤ n and n ≥ 1, not right={right}, n={n}")
    return _lower(right, n, alpha), 1.0 - _lower(n - right, n, alpha)


def drop_interval(lost: int, gained: int, n: int, *, alpha: float) -> tuple[float, float]:
    """The interval of the drop in the share of right answers, each end wrong at most at rate alpha.

    `lost` items are right on the first side alone, `gained` on the second alone, of `n` that both answered;
    the drop is (lost - gained) / n. With ψ the share of discordant items and θ the share of those that were
    lost, it is ψ (2θ - 1). θ is bounded exactly given the number of discordant items (McNemar 1947,
    Psychometrika 12:153, is this bound at a drop of 0), ψ exactly from both sides, and the two error rates
    add up to alpha (Bonferroni). Holds for any number of items; nothing is approximated. Raises ValueError
    for counts that cannot be.
    """
    discordant = lost + gained
    if min(lost, gained) < 0 or discordant > n or n < 1:
        raise ValueError(f"no such counts: {lost} lost and {gained} gained of {n}")
    few, many = share_interval(discordant, n, alpha=alpha * _FOR_THE_SHARE / 2)
    if not discordant:
        return -many, many
    low, high = (2 * end - 1 for end in share_interval(lost, discordant, alpha=alpha * (1 - _FOR_THE_SHARE)))
    return (many if low < 0 else few) * low, (many if high > 0 else few) * high


def items_to_decide(n: int, interval_at: Callable[[int], tuple[float, float]], limit: float) -> int | None:
    """How many items would leave `limit` outside the interval, were the observed shares the true ones.

    `interval_at` gives the interval for a number of items. None when not even a million would: the limit
    and what was observed are too near each other.
    """

    def decides(count: int) -> bool:
        low, high = interval_at(count)
        return not low < limit < high

    enough = n
    while not decides(enough):
        enough *= 2
        if enough > _MOST_ITEMS:
            return None
    short = enough // 2
    while enough - short > max(1, enough // 100):  # a hundredth is nearer than the rates are known
        middle = (short + enough) // 2
        short, enough = (short, middle) if decides(middle) else (middle, enough)
    return enough


@lru_cache(maxsize=4096)
def _lower(right: int, n: int, alpha: float) -> float:
    """The share at which `right` or more of `n` have probability alpha; 0 for none."""
    if right == 0:
        return 0.0
    below, above = 0.0, right / n
    for _ in range(_HALVINGS):
        middle = (below + above) / 2
        below, above = (below, middle) if _at_least(right, n, middle) > alpha else (middle, above)
    return below


def _at_least(right: int, n: int, share: float) -> float:
    """P(X ≥ right) for X binomial with n and a share not above right / n: terms fall from the first on."""
    if share <= 0.0:
        return 0.0
    log_term = (
        math.lgamma(n + 1)
        - math.lgamma(right + 1)
        - math.lgamma(n - right + 1)
        + right * math.log(share)
        + (n - right) * math.log1p(-share)
        if share < 1.0
        else 0.0
    )
    term = total = math.exp(log_term)
    odds = share / (1.0 - share) if share < 1.0 else 0.0
    for k in range(right, n):
        term *= (n - k) / (k + 1) * odds
        total += term
        if term < total * 1e-15:
            break
    return min(1.0, total)
