"""From evidence and a bound to a verdict: PASS, FAIL or NO VERDICT, with the reason. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from pytest_qwen.bounds import Bound
from pytest_qwen.evidence import Measurement, Round
from pytest_qwen.guards import UNSEEN_DRIFT
from pytest_qwen.metrics import fraction_of_rounds, value_of
from pytest_qwen.outcomes import NoVerdict, Outcome
from pytest_qwen.statistics import (
    Decision,
    interval,
    minimum_samples,
    percentile,
    sequential_test,
)
from pytest_qwen.verdicts import Verdict

_OUTCOME = {"meets": Outcome.PASS, "misses": Outcome.FAIL, "unsure": Outcome.NO_VERDICT}
_DIGITS = 4
_PAIRED_DRIFT = 0.01
# Data sheets round their peaks, and clocks run a little above them.
_CEILING_TOLERANCE = 1.05


def values_for(bound: Bound, rounds: Sequence[Round]) -> tuple[float, ...]:
    """The bound's value in every round that counts and has one, in order."""
    found = (value_of(bound, seen) for seen in rounds if seen.clean)
    return tuple(value for value in found if value is not None)


def decide(bound: Bound, rounds: Sequence[Round], *, alpha: float) -> Decision:
    """What the rounds so far say about a bound that is judged sequentially; may be asked after each round."""
    return sequential_test(
        values_for(bound, rounds),
        bound.limit,
        bound.direction,
        fraction=fraction_of_rounds(bound),
        alpha=alpha,
        unseen_drift=unseen_drift_of(bound),
    )


def unseen_drift_of(bound: Bound) -> float:
    """How far a bound's metric may still drift after the last round (a share of it).

    Neighbouring rounds of an interleaved comparison drift together, so that their ratio hardly does; a
    stored baseline drifts with nobody.
    """
    paired = bound.metric == "slowdown_ratio" and bound.vs != "baseline"
    return _PAIRED_DRIFT if paired else UNSEEN_DRIFT


def interval_of(bound: Bound, values: Sequence[float], *, alpha: float) -> tuple[float, float]:
    """The interval of a bound's statistic, under the same assumptions as its verdict."""
    return interval(
        values,
        fraction=fraction_of_rounds(bound),
        direction=bound.direction,
        alpha=alpha,
        unseen_drift=unseen_drift_of(bound),
    )


def all_decided(bounds: Sequence[Bound], rounds: Sequence[Round], *, alpha: float) -> bool:
    """Whether more rounds could not change any verdict."""
    sequential = [bound for bound in bounds if bound.judged == "sequential"]
    return all(decide(bound, rounds, alpha=alpha).side != "unsure" for bound in sequential)


def judge(
    bound: Bound, measurement: Measurement, *, alpha: float, ceilings: Mapping[str, float] | None = None
) -> Verdict:
    """The verdict of one bound on one measurement.

    `alpha` is the error rate of either side. `ceilings` maps a metric to its physical limit, for the report.
    """
    ceiling = (ceilings or {}).get(bound.metric)
    if bound.judged == "observed":
        return _judge_observed(bound, measurement, ceiling)
    return _judge_sequential(bound, measurement, alpha, ceiling)


def _judge_observed(bound: Bound, measurement: Measurement, ceiling: float | None) -> Verdict:
    """A plain fact of the session: the most unfavourable observation decides."""
    seen = list(values_for(bound, measurement.rounds))
    if bound.metric in measurement.observed:
        seen.append(measurement.observed[bound.metric])
    if not seen:
        return _nothing(bound, ceiling, NoVerdict.NOT_MEASURABLE, f"nothing here measures {bound.metric}")
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
        reason = _no_values_reason(measurement)
        return _nothing(bound, ceiling, reason, f"no clean round gave {bound.metric} ({reason})")
    decision = decide(bound, measurement.rounds, alpha=alpha)
    fraction = fraction_of_rounds(bound)
    low, high = interval_of(bound, values, alpha=alpha)
    # the quantile that must meet the limit: the upper one for "at most", the lower one for "at least"
    estimate = percentile(values, fraction if bound.direction == "at most" else 1 - fraction)
    outcome, reason = _OUTCOME[decision.side], ""
    if ceiling is not None and _beyond(bound, estimate, ceiling):
        outcome, reason = Outcome.NO_VERDICT, NoVerdict.BEYOND_PHYSICS
    elif outcome is Outcome.NO_VERDICT:
        reason = _unsure_reason(measurement, decision, fraction, alpha)
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


def _nothing(bound: Bound, ceiling: float | None, reason: str, explanation: str) -> Verdict:
    return Verdict(
        bound=bound,
        outcome=Outcome.NO_VERDICT,
        reason=reason,
        estimate=None,
        low=None,
        high=None,
        n=0,
        ceiling=ceiling,
        explanation=f"{Outcome.NO_VERDICT} {bound}: {explanation}",
    )


def _no_values_reason(measurement: Measurement) -> str:
    violated = _worst_violation(measurement)
    if violated:
        return violated
    if measurement.stopped not in ("decided", "budget"):
        return f"{NoVerdict.ERRORS}: {measurement.stopped}"
    return NoVerdict.NOT_MEASURABLE if measurement.clean_rounds else NoVerdict.BUDGET


def _worst_violation(measurement: Measurement) -> str | None:
    """The commonest violation, when violated rounds outnumber the clean ones."""
    timed = [seen for seen in measurement.rounds if seen.kind == "round"]
    counts = Counter(violation for seen in timed for violation in seen.violations)
    if not counts or sum(seen.clean for seen in timed) * 2 > len(timed):
        return None
    return counts.most_common(1)[0][0]


def _unsure_reason(measurement: Measurement, decision: Decision, fraction: float, alpha: float) -> str:
    violated = _worst_violation(measurement)
    if violated:
        return violated
    if measurement.stopped not in ("decided", "budget"):
        return f"{NoVerdict.ERRORS}: {measurement.stopped}"
    needed = minimum_samples(fraction, alpha)
    if decision.n < needed:
        return f"{NoVerdict.TOO_FEW}: {decision.n} of at least {needed}"
    return NoVerdict.UNSTABLE if decision.note == "drifting" else NoVerdict.BUDGET
