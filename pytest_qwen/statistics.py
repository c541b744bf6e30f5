"""The sequential test of a verdict, its interval, and the sums of warm-up, comparison and calibration.

A verdict rests on two parts, and only the first is a theorem.

1. `evalues.log_evidence`: an anytime-valid test of "the share of rounds that meet the limit". Its error rate
   holds when no round's chance, given the rounds before it, lies beyond the tested share: independent
   rounds of any distribution, for one.
2. Guards (`pytest_qwen.guards`) for what repeated rounds on a machine really do: follow each other, drift,
   jump and stray. They only take verdicts away: whatever is decided, part 1 alone decides too. That the error
   rate then holds under autocorrelation and drift is shown by simulation, not proved.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean
from typing import Literal

from pytest_qwen.bounds import Direction
from pytest_qwen.evalues import hits_needed, log_evidence
from pytest_qwen.guards import NO_GUARDS, UNSEEN_DRIFT, Guards, Note, guards_of, log_of

Side = Literal["meets", "misses", "unsure"]

FEWEST_ROUNDS = 8
_BOOTSTRAP_SESSIONS = 1000
_LARGEST_LOG = 700.0  # the exponential of more overflows a float


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What the rounds so far say about one limit.

    `evidence` is the plain e-value, before the guards, of the side that the rounds lean to. `effective_n` is
    what the n rounds are worth as independent ones. `note` says why an "unsure" is no verdict, as far as the
    rounds show it.
    """

    side: Side
    n: int
    effective_n: float
    evidence: float
    note: Note = ""


def sequential_test(
    values: Sequence[float],
    limit: float,
    direction: Direction,
    *,
    fraction: float = 0.5,
    alpha: float = 0.01,
    unseen_drift: float = UNSEEN_DRIFT,
) -> Decision:
    """Whether at least the share `fraction` of rounds meets `limit`; may be asked after every round.

    A value that equals the limit meets it. "meets" excludes that fewer than `fraction` of the rounds meet
    the limit, "misses" that `fraction` or more do, each at error rate `alpha` (see the module and
    `evalues.log_evidence` for what is theorem and what is simulation). `unseen_drift` is a ratio; less
    suits values from which drift cancels, such as paired ratios.
    """
    pass_end, fail_end, guards = _ends(values, direction, fraction, alpha, unseen_drift)
    at_most = direction == "at most"
    side: Side = "unsure"
    if limit >= pass_end if at_most else limit <= pass_end:
        side = "meets"
    elif limit < fail_end if at_most else limit > fail_end:
        side = "misses"
    n = len(values)
    met = sum(value <= limit if at_most else value >= limit for value in values)
    plain = max(log_evidence(met, n, fraction), log_evidence(n - met, n, 1 - fraction))
    note: Note = "too few" if n < minimum_samples(fraction, alpha) else guards.note
    return Decision(
        side=side,
        n=n,
        effective_n=n * guards.discount,
        evidence=math.exp(min(plain, _LARGEST_LOG)),
        note=note if side == "unsure" else "",
    )


def interval(
    values: Sequence[float],
    *,
    fraction: float = 0.5,
    direction: Direction = "at most",
    alpha: float = 0.01,
    unseen_drift: float = UNSEEN_DRIFT,
) -> tuple[float, float]:
    """The limits about which `sequential_test` is unsure, (low, high), in the unit of `values`.

    A confidence interval, valid at every look, of the quantile that `fraction` of the rounds meet: the
    quantile `fraction` for "at most", 1 - `fraction` for "at least". Each end errs at most at rate `alpha`.
    For "at most" a limit at or above `high` is met and one below `low` is missed; for "at least" one at or
    below `low` is met and one above `high` is missed. An end is infinite while too few rounds bound it.
    """
    pass_end, fail_end, _ = _ends(values, direction, fraction, alpha, unseen_drift)
    return (fail_end, pass_end) if direction == "at most" else (pass_end, fail_end)


@lru_cache(maxsize=64)
def minimum_samples(fraction: float, alpha: float) -> int:
    """The fewest rounds that can ever pass: all of them meet the limit, and no guard holds them back."""
    n = FEWEST_ROUNDS
    while log_evidence(n, n, fraction) < -math.log(alpha):
        n += 1
    return n


def _ends(
    values: Sequence[float], direction: Direction, fraction: float, alpha: float, unseen_drift: float
) -> tuple[float, float, Guards]:
    """The nearest limit that is met, the nearest one that is missed, and the guards behind them."""
    at_most = direction == "at most"
    n, worse = len(values), 1 if at_most else -1
    pass_end, fail_end = worse * math.inf, -worse * math.inf
    if n < FEWEST_ROUNDS:
        return pass_end, fail_end, NO_GUARDS
    best_first = sorted(values, reverse=not at_most)
    guards = guards_of(values, direction, fraction, unseen_drift)
    stricter, laxer = (min, max) if at_most else (max, min)
    needed = -math.log(alpha)
    # far off, a percentile is missed when the median misses: a burst of slow rounds cannot fake that
    for threshold, reach, missing in (
        (needed / guards.discount, guards.near, 1 - fraction),
        (needed, guards.far, 0.5),
    ):
        moved = math.exp(worse * min(reach, _LARGEST_LOG))
        hits, misses = hits_needed(n, fraction, threshold), hits_needed(n, missing, threshold)
        if hits is not None:
            pass_end = stricter(pass_end, best_first[hits - 1] * moved)
        if misses is not None:
            fail_end = laxer(fail_end, best_first[n - misses] / moved)
    return pass_end, fail_end, guards


def percentile(samples: Sequence[float], fraction: float) -> float:
    """The quantile `fraction`, linear between order statistics (type 7 of Hyndman and Fan 1996).

    Raises ValueError without samples.
    """
    if not samples:
        raise ValueError("a percentile needs at least one sample")
    ordered = sorted(samples)
    place = fraction * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def stable(values: Sequence[float], *, rounds: int = 3, tolerance: float = 0.05) -> bool:
    """Whether warm-up is over: the last `rounds` values agree, max / min - 1 <= tolerance."""
    last = values[-rounds:]
    return len(last) >= rounds and min(last) > 0 and max(last) / min(last) - 1 <= tolerance


def paired_ratios(a: Sequence[float], b: Sequence[float]) -> tuple[float, ...]:
    """a / b of neighbouring rounds of a session A B B A ..., each side in the order of its own rounds.

    What drifts slowly cancels. Judge the ratios with `sequential_test(..., unseen_drift=0.01)`; `interval` of
    them bounds their median.

    Raises ValueError when the sides differ in length.
    """
    return tuple(one / other for one, other in zip(a, b, strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """How far unchanged code scatters, and what that means for a limit.

    `within_cv` and `between_cv` are ratios (coefficients of variation of log-normal round and process
    effects). `false_fail_rate` is the share of unchanged sessions that do not pass the limit, None without a
    limit. `proposed_limit` is one that at most a share alpha of unchanged sessions does not pass, in the
    values' unit. `smallest_change` is the smallest worsening, a ratio, at which all but a share alpha of
    sessions fail the proposed limit.
    """

    within_cv: float
    between_cv: float
    false_fail_rate: float | None
    proposed_limit: float
    smallest_change: float


def calibrate(
    processes: Sequence[Sequence[float]],
    *,
    direction: Direction,
    limit: float | None = None,
    fraction: float = 0.5,
    alpha: float = 0.01,
    rounds_per_session: int | None = None,
    seed: int = 0,
) -> Calibration:
    """Spread of unchanged code over `processes` (the rounds of each), and what a session can see through it.

    The rates come from 1000 simulated sessions: one process effect each and independent rounds, log-normal
    with the estimated spreads, judged by `interval`. A session has `rounds_per_session` rounds; by default
    100, or twice `minimum_samples` where that is more.

    Raises ValueError for fewer than two processes or when no process has two rounds.
    """
    logs = [[log_of(value) for value in values] for values in processes]
    within, between = _spreads(logs)
    centre = fmean(fmean(process) for process in logs)
    rng = random.Random(seed)  # noqa: S311 - simulation, not secrets
    rounds = rounds_per_session or max(100, 2 * minimum_samples(fraction, alpha))
    pass_ends, fail_ends = [], []
    for _ in range(_BOOTSTRAP_SESSIONS):
        level = rng.gauss(centre, between)
        values = [math.exp(rng.gauss(level, within)) for _ in range(rounds)]
        pass_end, fail_end, _guarded = _ends(values, direction, fraction, alpha, UNSEEN_DRIFT)
        pass_ends.append(pass_end)
        fail_ends.append(fail_end)
    at_most = direction == "at most"
    proposed = _order_statistic(pass_ends, alpha, highest=at_most)
    seen = _order_statistic(fail_ends, alpha, highest=not at_most)
    missed = [end > limit if at_most else end < limit for end in pass_ends] if limit is not None else None
    return Calibration(
        within_cv=math.sqrt(math.expm1(within**2)),
        between_cv=math.sqrt(math.expm1(between**2)),
        false_fail_rate=fmean(missed) if missed is not None else None,
        proposed_limit=proposed,
        smallest_change=(proposed / seen if at_most else seen / proposed) - 1,
    )


def _order_statistic(ends: Sequence[float], alpha: float, *, highest: bool) -> float:
    """The end beyond which, on the given side, at most a share `alpha` of all lies."""
    return sorted(ends, reverse=highest)[math.floor(alpha * len(ends))]


def _spreads(logs: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Standard deviations within and between processes: one-way random effects by analysis of variance.

    The between part is 0 where the means differ less than the rounds explain (Searle, Casella and
    McCulloch 1992, Variance Components, section 3.6, for unequal numbers of rounds).
    """
    n, k = sum(map(len, logs)), len(logs)
    if k < 2 or n <= k:
        raise ValueError("calibration needs at least two processes and more rounds than processes")
    means = [fmean(process) for process in logs]
    overall = math.fsum(map(math.fsum, logs)) / n
    inside = math.fsum((x - m) ** 2 for process, m in zip(logs, means, strict=True) for x in process)
    across = math.fsum(len(process) * (m - overall) ** 2 for process, m in zip(logs, means, strict=True))
    mean_square = inside / (n - k)
    usual = (n - sum(len(process) ** 2 for process in logs) / n) / (k - 1)
    return math.sqrt(mean_square), math.sqrt(max(0.0, (across / (k - 1) - mean_square) / usual))
