"""Two sides of a comparison: how much slower B's round was than A's, and whether both answered the same."""

from __future__ import annotations

from dataclasses import replace

from pytest_qwen.evidence import Measurement, Round


def with_ratio(b: Round, a: Round) -> Round:
    """B's round with its slowdown against A's; a violation on either side spoils the pair."""
    violations = tuple(dict.fromkeys((*b.violations, *a.violations)))
    known = [m for m in ("tpot_ms", "e2e_latency_ms") if m in a.metrics and m in b.metrics]
    if not known:  # on one side nothing was answered
        return replace(b, violations=violations)
    ratio = b.metrics[known[0]] / a.metrics[known[0]]
    return replace(b, metrics={**b.metrics, "slowdown_ratio": ratio}, violations=violations)


def with_agreement(b: Measurement, a: Measurement) -> Measurement:
    """B with the share of its answers that were A's, and a remark when not all were."""
    pairs = [
        pair
        for mine, theirs in zip(_timed(b), _timed(a), strict=True)
        for pair in zip(_digests(mine), _digests(theirs), strict=False)
    ]
    if not pairs:
        return b
    same = sum(one == other for one, other in pairs)
    observed = {**b.observed, "agreement": same / len(pairs)}
    if same == len(pairs):
        return replace(b, observed=observed)
    hint = (
        f"the two sides gave the same answer to {same} of {len(pairs)} equal requests: what is faster here "
        "also answers differently"
    )
    return replace(b, observed=observed, hints=(*b.hints, hint))


def _timed(measurement: Measurement) -> list[Round]:
    return [seen for seen in measurement.rounds if seen.kind == "round"]


def _digests(seen: Round) -> tuple[str, ...]:
    """What stands for each answer; nothing for a load, whose requests end in no fixed order."""
    if seen.client is not None:
        return ()
    if seen.streams:
        return tuple(sorted(stream.digest for stream in seen.streams))
    return (seen.tokens_digest,) if seen.tokens_digest else ()
