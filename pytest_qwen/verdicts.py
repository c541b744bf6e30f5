"""The verdict: what the evidence says of one bound, with the numbers it rests on."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_qwen.bounds import Bound
from pytest_qwen.evidence import Measurement
from pytest_qwen.outcomes import NoVerdict, Outcome
from pytest_qwen.statistics import Side

OUTCOME_OF: dict[Side, Outcome] = {
    "meets": Outcome.PASS,
    "misses": Outcome.FAIL,
    "unsure": Outcome.NO_VERDICT,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One bound, judged.

    All figures are in the bound's unit. `estimate` is the quantile that the bound is about; `low` and `high`
    are its confidence interval, infinite where nothing bounds that side; all three are None when nothing was
    measured. `n` counts the observations behind them. `ceiling` is what physics allows this metric, None when
    unknown. `reason` is the text of an `outcomes.NoVerdict`, "" for PASS and FAIL. `explanation` is one
    sentence that stands alone.
    """

    bound: Bound
    outcome: Outcome
    reason: str
    estimate: float | None
    low: float | None
    high: float | None
    n: int
    ceiling: float | None
    explanation: str


def fault_reason(measurement: Measurement) -> str:
    """The fault that ended a measurement as a reason of NO VERDICT; "" where none did."""
    normal = measurement.stopped in ("decided", "budget")
    return "" if normal else f"{NoVerdict.ERRORS}: {measurement.stopped}"


def nothing_seen(bound: Bound, reason: str, explanation: str, *, ceiling: float | None = None) -> Verdict:
    """NO VERDICT on a bound with no observation; the explanation goes on after the bound's name."""
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
