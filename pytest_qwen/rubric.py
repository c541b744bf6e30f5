"""Weighted checks to stars: what a rubric is, and how evidence is scored by it."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pytest_qwen.errors import Misuse, explain
from pytest_qwen.escaping import escaped
from pytest_qwen.observations import Evidence
from pytest_qwen.scorecards import (
    DIMENSIONS,
    PROFILES,
    CheckOutcome,
    CheckResult,
    Dimension,
    Finding,
    Profile,
    Rating,
    Scorecard,
)

Check = Callable[[Evidence], Finding]

MOST_STARS = 5
# The share of measured weight from which a dimension has 1, 2, 3, 4 and 5 stars.
STAR_SHARES = (0.15, 0.35, 0.55, 0.75, 0.90)
# Of a dimension's weight, below which it is not rated.
LEAST_MEASURED = 0.80
DIMENSION_WEIGHTS: Mapping[Dimension, float] = {
    "correctness": 0.35,
    "completeness": 0.20,
    "practices": 0.15,
    "documentation": 0.10,
    "production": 0.20,
}
FAILURES = (CheckOutcome.FAIL, CheckOutcome.TAMPER)
NOT_REACHED = "not reached: "
# Decides by digits that summing floats leaves alone: 0.35·4 + 0.20·4 + … must be 3.5 where it is.
_DIGITS = 9


@dataclass(frozen=True, slots=True)
class CheckSpec:
    """One row of a rubric.

    A check `runs` when it needs the running program: it then counts in the profile `run` alone, unless
    `read` is the check that counts in its place when the program is only read. `behind` is the id of the
    gate without which it cannot be reached.
    """

    id: str
    title: str
    dimension: Dimension
    weight: float
    check: Check
    gate: bool = False
    runs: bool = False
    behind: str | None = None
    read: Check | None = None


@dataclass(frozen=True, slots=True)
class Cap:
    """The most stars, overall or of one dimension, while a check fails or something is found.

    `when` is a check's id, or a function that says what it found, None for nothing. `by` is the check whose
    pass would also lift the cap of a function.
    """

    when: str | Callable[[Evidence], str | None]
    most: int
    why: str
    dimension: Dimension | None = None
    profiles: tuple[Profile, ...] = PROFILES
    by: str | None = None

    @property
    def lifter(self) -> str | None:
        """The check whose pass lifts it."""
        return self.when if isinstance(self.when, str) else self.by

    def __str__(self) -> str:
        said = f"{self.when} failed, {self.why}" if isinstance(self.when, str) else self.why
        stars = "star" if self.most == 1 else "stars"
        return f"{said}: {self.dimension or 'overall'} at most {self.most} {stars}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rubric:
    """A versioned list of checks, what the dimensions weigh (1 in all), and what holds the stars down.

    Raises Misuse where it contradicts itself.
    """

    name: str
    checks: tuple[CheckSpec, ...]
    caps: tuple[Cap, ...] = ()
    dimension_weights: Mapping[Dimension, float] = field(default_factory=lambda: DIMENSION_WEIGHTS)

    def __post_init__(self) -> None:
        problem = next(_contradictions(self), None)
        if problem:
            raise Misuse(explain(f"the rubric {self.name!r} contradicts itself", found=problem))


def score(evidence: Evidence, rubric: Rubric, *, strict: bool = False) -> Scorecard:
    """Every check on the evidence, and the stars that follow; runs nothing, never raises for a check's sake.

    `strict` fails a check whose repeated observations disagreed.
    """
    results = _results(evidence, rubric, strict=strict)
    return Scorecard(
        answer=evidence.answer,
        answer_sha256=evidence.answer_sha256,
        scenario=evidence.scenario,
        rubric=rubric.name,
        ratings={profile: _rating(profile, evidence, rubric, results) for profile in PROFILES},
        checks=results,
        seed=evidence.seed,
        environment=evidence.environment,
        notes=tuple(dict.fromkeys(map(escaped, _notes(evidence)))),
        timings_s=evidence.timings_s,
    )


def counted(checks: Iterable[CheckResult], profile: Profile) -> list[CheckResult]:
    """The results that count in a profile."""
    return [one for one in checks if profile in one.profiles]


def stars_of_share(share: float) -> int:
    """Stars of a dimension of whose measured weight this share (0-1) passed."""
    return bisect_right(STAR_SHARES, round(share, _DIGITS))


def overall_of(weighted_stars: float) -> int:
    """Overall stars from the sum of the dimensions' stars by weight, rounded, the half up."""
    return math.floor(round(weighted_stars, _DIGITS) + 0.5)


# ---- checks


def _results(evidence: Evidence, rubric: Rubric, *, strict: bool) -> tuple[CheckResult, ...]:
    specs = {spec.id: spec for spec in rubric.checks}
    own = {spec.id: _finding(spec.check, evidence, strict=strict) for spec in rubric.checks}
    results = []
    for spec in rubric.checks:
        profiles: tuple[Profile, ...] = ("run",) if spec.runs or spec.read else PROFILES
        results.append(_result(spec, _reached(spec, specs, own), profiles))
        if spec.read:
            results.append(_result(spec, _finding(spec.read, evidence, strict=strict), ("read",)))
    return tuple(results)


def _finding(check: Check, evidence: Evidence, *, strict: bool) -> Finding:
    try:
        finding = check(evidence)
    except Exception as error:  # whatever it is, the check is ours and the answer must not pay for it
        return Finding(outcome=CheckOutcome.INFRA_ERROR, evidence=f"the check raised {type(error).__name__}")
    if strict and finding.flaky:
        return Finding(outcome=CheckOutcome.FAIL, evidence=finding.evidence, timing=finding.timing)
    return finding


def _reached(spec: CheckSpec, specs: Mapping[str, CheckSpec], own: Mapping[str, Finding]) -> Finding:
    """The check's own finding, unless a gate before it failed or our harness broke there.

    What was asked for and not delivered is failed. Of several gates the outermost says it.
    """
    finding, stopped = own[spec.id], None
    for gate in gates_before(spec.id, {one.id: one.behind for one in specs.values()}):
        if own[gate].outcome in (*FAILURES, CheckOutcome.INFRA_ERROR):
            stopped = gate
    if stopped is None or finding.outcome == CheckOutcome.TAMPER:
        return finding
    if own[stopped].outcome == CheckOutcome.INFRA_ERROR:
        return own[stopped]
    return Finding(outcome=CheckOutcome.FAIL, evidence=f"{NOT_REACHED}{stopped} failed")


def gates_before(check: str, behind: Mapping[str, str | None]) -> list[str]:
    """The gates that a check is behind, the nearest first."""
    found: list[str] = []
    gate = behind.get(check)
    while gate is not None:
        found.append(gate)
        gate = behind.get(gate)
    return found


def _result(spec: CheckSpec, finding: Finding, profiles: tuple[Profile, ...]) -> CheckResult:
    share = finding.share if finding.share is not None else 0.0
    earned = {CheckOutcome.PASS: 1.0, CheckOutcome.FAIL: min(1.0, max(0.0, share))}
    return CheckResult(
        id=spec.id,
        title=spec.title,
        dimension=spec.dimension,
        weight=spec.weight,
        outcome=finding.outcome,
        evidence=escaped(finding.evidence),
        timing=finding.timing,
        share=earned.get(finding.outcome, 0.0),
        gate=spec.gate,
        profiles=profiles,
    )


def _notes(evidence: Evidence) -> Iterator[str]:
    """What is not a check: what was decided on the way, and what the environment did not let us see."""
    yield from getattr(evidence.program, "notes", ())
    yield from evidence.facts.get("notes", ())
    for name in ("cut", "limited", "cannot_ask"):
        if name in evidence.facts:
            yield str(evidence.facts[name])


# ---- stars


def _rating(profile: Profile, evidence: Evidence, rubric: Rubric, results: Sequence[CheckResult]) -> Rating:
    checks = counted(results, profile)
    shares, measured = {}, {}
    for dimension in DIMENSIONS:
        shares[dimension], measured[dimension] = _measure(
            [one for one in checks if one.dimension == dimension]
        )
    stars: dict[Dimension, int | None] = {
        dimension: stars_of_share(shares[dimension]) if measured[dimension] >= LEAST_MEASURED else None
        for dimension in DIMENSIONS
    }
    caps, undecided = _caps(profile, evidence, rubric, results)
    for cap, _ in caps:
        if cap.dimension is not None:
            stars[cap.dimension] = _at_most(stars[cap.dimension], cap.most)
    most = min([cap.most for cap, _ in caps if cap.dimension is None], default=MOST_STARS)
    unrated = undecided or _why_unrated(stars, measured, rubric, checks)
    overall = 0 if most == 0 else None if unrated else _overall(stars, rubric, most)
    unreached = {one.id for one in checks if is_unreached(one)}  # the gate before them holds lower
    return Rating(
        overall=overall,
        stars=stars,
        shares=shares,
        measured=measured,
        caps=tuple(
            f"{cap} ({detail})" if detail else str(cap) for cap, detail in caps if cap.when not in unreached
        ),
        unrated=unrated if overall is None else None,
    )


def _measure(checks: Sequence[CheckResult]) -> tuple[float, float]:
    """The share of measured weight that passed, and the share of the weight that was measured."""
    seen = [one for one in checks if one.outcome in (CheckOutcome.PASS, *FAILURES)]
    whole, weight = sum(one.weight for one in checks), sum(one.weight for one in seen)
    earned = sum(one.weight * one.share for one in seen)
    return (
        round(earned / weight, _DIGITS) if weight else 0.0,
        round(weight / whole, _DIGITS) if whole else 0.0,
    )


def _caps(
    profile: Profile, evidence: Evidence, rubric: Rubric, results: Sequence[CheckResult]
) -> tuple[list[tuple[Cap, str]], str | None]:
    """The caps that hold, each with what was found, and why one could not be decided, if so."""
    failed = {one.id for one in counted(results, profile) if one.outcome in FAILURES}
    held = [(cap, "") for cap in tamper_caps(results)]
    undecided = None
    for cap in rubric.caps:
        if profile not in cap.profiles:
            continue
        if isinstance(cap.when, str):
            held += [(cap, "")] if cap.when in failed else []
            continue
        try:
            found = cap.when(evidence)
        except Exception as error:  # ours, as with a check
            undecided = f"whether {cap.why} could not be decided: {type(error).__name__}"
        else:
            held += [] if found is None else [(cap, escaped(found))]
    return held, undecided


def tamper_caps(results: Iterable[CheckResult]) -> list[Cap]:
    """What reaches for the harness takes every star, in every profile."""
    ids = dict.fromkeys(one.id for one in results if one.outcome == CheckOutcome.TAMPER)
    return [Cap(check, most=0, why="the program tampers with the harness") for check in ids]


def is_unreached(check: CheckResult) -> bool:
    """Whether it failed because a gate before it did."""
    return check.outcome == CheckOutcome.FAIL and check.evidence.startswith(NOT_REACHED)


def _at_most(stars: int | None, most: int) -> int | None:
    return None if stars is None else min(stars, most)


def _overall(stars: Mapping[Dimension, int | None], rubric: Rubric, most: int) -> int:
    weighted = sum(weight * (stars[name] or 0) for name, weight in rubric.dimension_weights.items())
    return min(overall_of(weighted), most)


def _why_unrated(
    stars: Mapping[Dimension, int | None],
    measured: Mapping[Dimension, float],
    rubric: Rubric,
    checks: Sequence[CheckResult],
) -> str | None:
    """Which dimensions were measured too little, and the first thing that could not be; None if none was."""
    missing = [name for name, weight in rubric.dimension_weights.items() if weight and stars[name] is None]
    if not missing:
        return None
    parts = ", ".join(f"{100 * measured[name]:.0f} % of {name}" for name in missing)
    blind = (one for one in checks if one.outcome not in (CheckOutcome.PASS, *FAILURES))
    first = next((one for one in blind if one.gate or one.dimension in missing), None)
    why = f": {first.id} {first.evidence}" if first else ""
    return f"only {parts} could be measured, {100 * LEAST_MEASURED:.0f} % are needed{why}"


def _contradictions(rubric: Rubric) -> Iterator[str]:
    seen: dict[str, CheckSpec] = {}
    for spec in rubric.checks:
        if spec.id in seen:
            yield f"two checks have the id {spec.id!r}"
        if spec.weight < 0:
            yield f"{spec.id} has the weight {spec.weight:g}"
        if spec.behind is not None and (spec.behind not in seen or not seen[spec.behind].gate):
            yield f"{spec.id} is behind {spec.behind!r}, which is no gate above it"
        seen[spec.id] = spec
    for cap in rubric.caps:
        if cap.lifter is not None and cap.lifter not in seen:
            yield f"a cap names the check {cap.lifter!r}, which is not there"
    if not math.isclose(sum(rubric.dimension_weights.values()), 1.0):
        yield "the weights of the dimensions are not 1 in all"
