"""The theorem behind a verdict: an e-process for a share of rounds, valid at every look."""

from __future__ import annotations

import math
from functools import lru_cache

# The prior over the alternative: half on "every round hits", the other half spread over this many shares.
_SHARES = 20


@lru_cache(maxsize=64)
def _mixture(null_share: float) -> tuple[tuple[float, float, float], ...]:
    """(log weight, log gain of a hit, log gain of a miss) of each alternative share below 1."""
    room = 1 - null_share
    shares = (null_share + room * (place + 0.5) / _SHARES for place in range(_SHARES))
    return tuple(
        (math.log(0.5 / _SHARES), math.log(share / null_share), math.log((1 - share) / room))
        for share in shares
    )


@lru_cache(maxsize=65536)
def log_evidence(hits: int, n: int, null_share: float) -> float:
    """Log (natural) of the evidence that `hits` in n rounds give against "a share of at most `null_share`".

    The evidence is the wealth of a gambler who starts with 1 and bets on hits at odds that are fair when the
    share is `null_share`: a mixture over alternative shares p of the likelihood ratios
    (p / null_share)^hits ((1 - p) / (1 - null_share))^(n - hits), with half of the weight on p = 1 and the
    other half spread evenly over 20 shares between `null_share` and 1.

    Theorem. If in every round, given all rounds before, the chance of a hit is at most `null_share`, each
    ratio and so their mixture is a non-negative supermartingale that starts at 1; by Ville's inequality
    P(evidence >= 1/alpha at any round, ever) <= alpha. No look at the evidence has a cost and no shape of
    distribution is assumed. (J. Ville 1939, Étude critique de la notion de collectif; the mixture:
    H. Robbins 1970, Ann. Math. Statist. 41; betting: G. Shafer and V. Vovk 2019, Game-Theoretic Foundations
    for Probability and Finance; I. Waudby-Smith and A. Ramdas 2024, J. R. Stat. Soc. B 86.)
    """
    terms = [weight + hits * hit + (n - hits) * miss for weight, hit, miss in _mixture(null_share)]
    if hits == n:
        terms.append(math.log(0.5) - n * math.log(null_share))
    top = max(terms)
    return top + math.log(sum(math.exp(term - top) for term in terms))


@lru_cache(maxsize=65536)
def hits_needed(n: int, null_share: float, log_threshold: float) -> int | None:
    """The fewest hits in n rounds whose log evidence reaches `log_threshold`; None when even n do not.

    More hits are never less evidence, so the answer is found by halving.
    """
    if log_evidence(n, n, null_share) < log_threshold:
        return None
    too_few, enough = -1, n
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        if log_evidence(middle, n, null_share) >= log_threshold:
            enough = middle
        else:
            too_few = middle
    return enough
