"""Stars and what they rest on: findings, checked facts, and the scorecard of one answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

Dimension = Literal["correctness", "completeness", "practices", "documentation", "production"]
DIMENSIONS: tuple[Dimension, ...] = (
    "correctness",
    "completeness",
    "practices",
    "documentation",
    "production",
)
Profile = Literal["run", "read"]
PROFILES: tuple[Profile, ...] = ("run", "read")


class CheckOutcome(StrEnum):
    """What one check found. `INFRA_ERROR` is our own harness's fault, `TAMPER` an attack on it."""

    PASS = "pass"
    FAIL = "fail"
    UNMEASURED = "unmeasured"
    INFRA_ERROR = "infra_error"
    TAMPER = "tamper"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a check function says: the outcome and one line of evidence (≤ 200 characters, no times).

    `timing` holds what differs from run to run (milliseconds, bytes of memory); it never decides equality.
    `share` is the part of the weight that is earned, for the few checks that count a share; 1 for a pass.
    `flaky` says that repeated observations disagreed (the outcome is then unmeasured).
    """

    outcome: CheckOutcome
    evidence: str
    timing: str | None = None
    share: float | None = None
    flaky: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """One check of one answer. `id` is the rubric's ("C4"), `profiles` those it counts in."""

    id: str
    title: str
    dimension: Dimension
    weight: float
    outcome: CheckOutcome
    evidence: str
    timing: str | None = None
    share: float = 0.0
    gate: bool = False
    profiles: tuple[Profile, ...] = PROFILES


@dataclass(frozen=True, slots=True, kw_only=True)
class Rating:
    """Stars of one profile, 0 to 5; None where less than 80 % of the weight was measured (unrated).

    `shares` and `measured` are ratios (0-1) of each dimension; `caps` say which rules held the stars down,
    `unrated` says why there is no overall rating.
    """

    overall: int | None
    stars: Mapping[Dimension, int | None]
    shares: Mapping[Dimension, float]
    measured: Mapping[Dimension, float]
    caps: tuple[str, ...] = ()
    unrated: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scorecard:
    """Every star of one answer, with the observation it rests on.

    `rubric` is the versioned name ("qwen-fastapi-vit/1"), `environment` the versions that it froze, as found
    in the image. `seed` is that of the stand-in model. `notes` say what is not a check: substitutions,
    environment limits. `timings_s` are the seconds of the parts; they and `CheckResult.timing` are all that
    may differ between two scorecards of the same answer.
    """

    answer: str
    answer_sha256: str
    scenario: str
    rubric: str
    ratings: Mapping[Profile, Rating]
    checks: tuple[CheckResult, ...]
    seed: int | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    timings_s: Mapping[str, float] = field(default_factory=dict)

    def rating(self, profile: Profile = "run") -> Rating:
        """The rating of a profile."""
        return self.ratings[profile]

    @property
    def stars(self) -> int | None:
        """The overall stars of the `run` profile."""
        return self.ratings["run"].overall
