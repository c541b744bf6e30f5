"""The share of requests that failed: counted over all of them, judged by an exact test, told in words."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from pytest_qwen.bounds import Bound
from pytest_qwen.evalues import log_evidence
from pytest_qwen.evidence import Measurement, Round
from pytest_qwen.metrics import count_failed
from pytest_qwen.outcomes import NoVerdict
from pytest_qwen.statistics import Side
from pytest_qwen.streaming import failures_in_words
from pytest_qwen.verdicts import OUTCOME_OF, Verdict, fault_reason, nothing_seen


def judge_errors(bound: Bound, measurement: Measurement, alpha: float) -> Verdict:
    """The share of failed requests among all that ended: also in the ramp, warm-up and rounds that do not
    count."""
    rounds = measurement.rounds
    failed, n = _all_errors(measurement)
    if n == 0:
        return _no_request(bound, measurement)
    low, high = share_bounds(failed, n, alpha)
    side = _side(bound, failed, n, alpha)
    outcome = OUTCOME_OF[side]
    reason = _unsure_reason(measurement, n) if side == "unsure" else ""
    words = failures_in_words(stream for seen in rounds for stream in seen.streams)
    text = f"{outcome} {bound}: {failed} of {n} requests failed"
    if failed and not words:
        words = "all of them while the load came up"
    text += f" ({words})" if words else f"; at {1 - alpha:.0%} confidence fewer than {high:.2%} do"
    return Verdict(
        bound=bound,
        outcome=outcome,
        reason=reason,
        estimate=failed / n,
        low=low,
        high=high,
        n=n,
        ceiling=None,
        explanation=f"{text}; {reason}" if reason else text,
    )


def _no_request(bound: Bound, measurement: Measurement) -> Verdict:
    unseen = NoVerdict.NOT_MEASURABLE if measurement.rounds else NoVerdict.BUDGET
    reason = fault_reason(measurement) or unseen
    return nothing_seen(bound, reason, f"no request of a load has ended ({reason})")


def _unsure_reason(measurement: Measurement, n: int) -> str:
    return fault_reason(measurement) or f"{NoVerdict.TOO_FEW}: {n} requests"


def _all_errors(measurement: Measurement) -> tuple[int, int]:
    """Failed requests and all of them, of the whole load where it told, else of its slices."""
    seen = _errors(measurement.rounds)
    told = measurement.observed
    whole = round(told.get("full_failed", 0)), round(told.get("full_requests", 0))
    return max(seen, whole, key=lambda one: one[1])


def _errors(rounds: Iterable[Round]) -> tuple[int, int]:
    """Failed requests and all of them, in every round."""
    counts = [(count_failed(seen), len(seen.streams)) for seen in rounds]
    return sum(failed for failed, _ in counts), sum(ended for _, ended in counts)


def error_side(bound: Bound, rounds: Sequence[Round], alpha: float) -> Side:
    """Whether the share of failed requests meets its limit, by the exact test of `evalues` on requests.

    A limit of 0 says that no error is seen in what was measured: no share of 0 could ever be shown.
    """
    return _side(bound, *_errors(rounds), alpha)


def _side(bound: Bound, failed: int, n: int, alpha: float) -> Side:
    if bound.limit == 0:
        return "misses" if failed else "meets" if n else "unsure"
    needed = -math.log(alpha)
    if log_evidence(n - failed, n, 1 - bound.limit) >= needed:
        return "meets"
    return "misses" if log_evidence(failed, n, bound.limit) >= needed else "unsure"


def share_bounds(failed: int, n: int, alpha: float) -> tuple[float, float]:
    """The shares that `failed` of n do not exclude by `evalues.log_evidence`, each end at rate alpha.

    An exact interval of a binomial share that is valid at every look: no approximation by a normal.
    """
    needed = -math.log(alpha)

    def lowest(hits: int) -> float:
        """The largest share that so many hits show to be too low."""
        low, high = 0.0, 1.0
        for _ in range(40):
            middle = (low + high) / 2
            excluded = log_evidence(hits, n, middle) >= needed
            low, high = (middle, high) if excluded else (low, middle)
        return low

    return lowest(failed) if failed else 0.0, 1 - lowest(n - failed) if failed < n else 1.0
