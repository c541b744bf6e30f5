"""From evidence and a bound to a verdict: PASS, FAIL or NO VERDICT, with the reason. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from pytest_qwen.bounds import Bound
from pytest_qwen.deciding import decide, interval_of, requests_missing, values_for, values_of
from pytest_qwen.error_rates import judge_errors
from pytest_qwen.evidence import Measurement, Round
from pytest_qwen.metrics import fraction_of_rounds, samples_needed, value_of, within_rounds
from pytest_qwen.outcomes import NoVerdict, Outcome
from pytest_qwen.statistics import Decision, minimum_samples, percentile
from pytest_qwen.streaming import lacks_usage
from pytest_qwen.verdicts import OUTCOME_OF, Verdict, fault_reason, nothing_seen

_DIGITS = 4
# Data sheets round their peaks, and clocks run a little above them.
_CEILING_TOLERANCE = 1.05


def judge(
    bound: Bound, measurement: Measurement, *, alpha: float, ceilings: Mapping[str, float] | None = None
) -> Verdict:
    """The verdict of one bound on one measurement.

    `alpha` is the error rate of either side. `ceilings` maps a metric to its physical limit, for the report.
    """
    ceiling = (ceilings or {}).get(bound.metric)
    if bound.judged == "observed":
        return _judge_observed(bound, measurement, ceiling)
    if bound.judged == "requests":
        return judge_errors(bound, measurement, alpha)
    return _judge_sequential(bound, measurement, alpha, ceiling)


def _judge_observed(bound: Bound, measurement: Measurement, ceiling: float | None) -> Verdict:
    """A plain fact of the session: the most unfavourable observation decides."""
    seen = list(values_for(bound, measurement.rounds))
    if bound.metric in measurement.observed:
        seen.append(measurement.observed[bound.metric])
    shown = () if seen else values_of(bound, _timed(measurement))
    if shown:  # of rounds that may not be judged
        return _shown(bound, shown, _no_values_reason(bound, measurement), ceiling)
    if not seen:
        return nothing_seen(
            bound, NoVerdict.NOT_MEASURABLE, f"nothing here measures {bound.metric}", ceiling=ceiling
        )
    worst = max(seen) if bound.direction == "at most" else min(seen)
    outcome = Outcome.PASS if bound.met_by(worst) else Outcome.FAIL
    return Verdict(
        bound=bound,
        outcome=outcome,
        reason="",
        estimate=worst,
        low=min(seen),
        high=max(seen),
        n=len(seen),
        ceiling=ceiling,
        explanation=f"{outcome} {bound}: observed {worst:.{_DIGITS}g} {bound.unit}",
    )


def _judge_sequential(bound: Bound, measurement: Measurement, alpha: float, ceiling: float | None) -> Verdict:
    values = values_for(bound, measurement.rounds)
    if not values:
        reason = _no_values_reason(bound, measurement)
        shown = values_of(bound, _timed(measurement))
        if shown:
            return _shown(bound, shown, reason, ceiling)
        beside = _gap_beside(bound, measurement)
        return nothing_seen(
            bound, reason, f"no clean round gave {bound.metric} ({reason}){beside}", ceiling=ceiling
        )
    decision = decide(bound, measurement.rounds, alpha=alpha)
    fraction = fraction_of_rounds(bound, measurement.rounds)
    low, high = interval_of(bound, values, alpha=alpha, rounds=measurement.rounds)
    # the quantile that must meet the limit: the upper one for "at most", the lower one for "at least"
    estimate = percentile(values, fraction if bound.direction == "at most" else 1 - fraction)
    outcome, reason = OUTCOME_OF[decision.side], ""
    if ceiling is not None and _beyond(bound, estimate, ceiling):
        outcome, reason = Outcome.NO_VERDICT, NoVerdict.BEYOND_PHYSICS
    elif 2 * len(values) < len(measurement.clean_rounds):  # the few that have it may be the odd ones
        outcome, reason = Outcome.NO_VERDICT, _no_values_reason(bound, measurement)
    elif outcome is Outcome.NO_VERDICT:
        missing = requests_missing(bound, measurement.rounds, alpha)
        reason = _unsure_reason(measurement, decision, fraction, alpha, missing)
    return Verdict(
        bound=bound,
        outcome=outcome,
        reason=reason,
        estimate=estimate,
        low=low,
        high=high,
        n=decision.n,
        ceiling=ceiling,
        explanation=_sentence(bound, outcome, estimate, (low, high), decision.n, alpha, reason),
    )


def _shown(bound: Bound, values: Sequence[float], reason: str, ceiling: float | None) -> Verdict:
    """No verdict on rounds that may not be judged; what they showed is told with the reason."""
    fraction = bound.fraction if bound.direction == "at most" else 1 - bound.fraction
    estimate = percentile(values, fraction)
    measured = f"measured {estimate:.{_DIGITS}g} {bound.unit} in {len(values)} rounds"
    return replace(
        nothing_seen(bound, reason, "", ceiling=ceiling),
        estimate=estimate,
        low=-math.inf,
        high=math.inf,
        explanation=f"{Outcome.NO_VERDICT} {bound}: {measured}; {reason}",
    )


def _gap_beside(bound: Bound, measurement: Measurement) -> str:
    """What is known where chunks are not tokens: the gaps between chunks."""
    gaps = measurement.values("chunk_gap_ms") if bound.metric == "itl_ms" else ()
    return f"; the median gap between chunks is {percentile(gaps, 0.5):.{_DIGITS}g} ms" if gaps else ""


def _beyond(bound: Bound, estimate: float, ceiling: float) -> bool:
    """Whether a figure is better than any software can be: then something else was timed than is believed."""
    if bound.direction == "at least":
        return estimate > ceiling * _CEILING_TOLERANCE
    return estimate * _CEILING_TOLERANCE < ceiling


def _sentence(
    bound: Bound,
    outcome: Outcome,
    estimate: float,
    ends: tuple[float, float],
    n: int,
    alpha: float,
    reason: str,
) -> str:
    low, high = (f"{end:.{_DIGITS}g}" for end in ends)
    text = (
        f"{outcome} {bound}: measured {estimate:.{_DIGITS}g} {bound.unit}"
        f" [{low}, {high}] at {1 - alpha:.0%} confidence, n={n}"
    )
    return f"{text}; {reason}" if reason else text


def _no_values_reason(bound: Bound, measurement: Measurement) -> str:
    violated = _worst_violation(measurement)
    if violated:
        return violated
    if fault := fault_reason(measurement):
        return fault
    clean = measurement.clean_rounds
    return _lacking_reason(bound, clean) if clean else NoVerdict.BUDGET


def _lacking_reason(bound: Bound, clean: Sequence[Round]) -> str:
    """Why rounds that count do not show the bound's metric."""
    lacking = [seen for seen in clean if value_of(bound, seen) is None]
    if any(lacks_usage(seen.streams) for seen in lacking):
        return NoVerdict.NO_USAGE
    if bound.stat != "median" and bound.metric != "itl_ms" and within_rounds(bound, lacking):
        return f"{NoVerdict.TOO_FEW}: rounds of fewer than {samples_needed(bound.fraction)} complete requests"
    of_tokens = bound.metric == "itl_ms" or any(slo.metric == "itl_ms" for slo in bound.slos)
    if of_tokens and any(stream.chunk_ms for seen in lacking for stream in seen.streams):
        return NoVerdict.NOT_TOKENS
    return NoVerdict.NOT_MEASURABLE


def _timed(measurement: Measurement) -> list[Round]:
    return [seen for seen in measurement.rounds if seen.kind == "round"]


def _worst_violation(measurement: Measurement) -> str | None:
    """The commonest violation, when violated rounds outnumber the clean ones."""
    timed = _timed(measurement)
    counts = Counter(violation for seen in timed for violation in seen.violations)
    if not counts or sum(seen.clean for seen in timed) * 2 > len(timed):
        return None
    return counts.most_common(1)[0][0]


def _unsure_reason(
    measurement: Measurement, decision: Decision, fraction: float, alpha: float, requests_missing: int
) -> str:
    violated = _worst_violation(measurement)
    if violated:
        return violated
    if fault := fault_reason(measurement):
        return fault
    needed = minimum_samples(fraction, alpha)
    if decision.n < needed:
        return f"{NoVerdict.TOO_FEW}: {decision.n} of at least {needed}"
    if requests_missing:
        return f"{NoVerdict.TOO_FEW}: {requests_missing} requests are missing"
    return NoVerdict.UNSTABLE if decision.note == "drifting" else NoVerdict.BUDGET
