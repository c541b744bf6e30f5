"""What a search for the highest load found: every level that was tried, and the one that met every bound."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pytest_qwen.outcomes import Outcome
from pytest_qwen.verdicts import Verdict

Kind = Literal["concurrency", "request_rate"]
UNITS: dict[Kind, str] = {"concurrency": "users", "request_rate": "req/s"}

# What grows with the load: a level that misses only these may be too low rather than too high.
_GROWING = frozenset({"output_tokens_per_sec", "goodput_per_sec", "usd_per_mtok", "joules_per_token"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """One level of a load and the verdicts on it. `measurement` is its place among the test's measurements.

    `figures` are medians over the rounds that count, by the metric's name.
    """

    level: float
    verdicts: tuple[Verdict, ...]
    requests: int
    measurement: int
    figures: Mapping[str, float] = field(default_factory=dict)

    @property
    def met(self) -> bool:
        """Whether every bound was shown to be met; one without a verdict was not."""
        return bool(self.verdicts) and all(verdict.outcome == Outcome.PASS for verdict in self.verdicts)

    @property
    def too_low(self) -> bool:
        """Whether it misses nothing but what grows with the load."""
        missed = [verdict for verdict in self.verdicts if verdict.outcome == Outcome.FAIL]
        return bool(missed) and all(verdict.bound.metric in _GROWING for verdict in missed)

    @property
    def why_not(self) -> str:
        """The bounds that were not shown to be met, in words; "" when all were."""
        return "; ".join(v.explanation for v in self.verdicts if v.outcome != Outcome.PASS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Highest:
    """The highest level whose every bound was shown to be met, None when none was.

    `levels` are all that were tried, in that order; `stopped` says in words why no more were. `resolved`:
    the next higher level that could be tried was tried and was not shown to meet the bounds.
    """

    kind: Kind
    value: float | None
    levels: tuple[Level, ...]
    stopped: str
    resolved: bool

    @property
    def best(self) -> Level | None:
        """The level of `value`."""
        return next((one for one in self.levels if one.met and one.level == self.value), None)

    def __str__(self) -> str:
        unit = UNITS[self.kind]
        found = f"{self.value:g} {unit}" if self.value is not None else "no level"
        return f"highest {self.kind} that meets every bound: {found} ({self.stopped})"
