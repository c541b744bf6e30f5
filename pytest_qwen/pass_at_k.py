"""The chance that one of k samples is good, estimated without bias from n of them."""

from __future__ import annotations

import math


def pass_at_k(n: int, c: int, k: int) -> float:
    """1 - C(n-c, k) / C(n, k): the share of all k of n samples with a good one, when `c` of the n are good.

    The quotient is multiplied up factor by factor, since the binomials themselves outgrow a float. Chen et
    al. 2021, "Evaluating Large Language Models Trained on Code", section 2.1. Raises ValueError unless
    0 ≤ c ≤ n and 1 ≤ k ≤ n.
    """
    if not 0 <= c <= n or not 1 <= k <= n:
        raise ValueError(f"pass@k needs 0 ≤ c ≤ n and 1 ≤ k ≤ n, not n={n}, c={c}, k={k}")
    if n - c < k:
        return 1.0
    return 1.0 - math.prod(1.0 - k / i for i in range(n - c + 1, n + 1))
