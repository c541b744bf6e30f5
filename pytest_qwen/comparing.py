"""Two sides of one session: what the comparison gives, and each round's slowdown against a stored run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pytest_qwen.bounds import BOUND_KINDS
from pytest_qwen.deciding import interval_of
from pytest_qwen.errors import EngineFault
from pytest_qwen.evidence import Measurement, Round
from pytest_qwen.statistics import percentile

EVEN = BOUND_KINDS["max_slowdown"].bound(1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """B against A, interleaved: the ratio of their times per output token (under 1 means B is faster).

    `low` and `high` bound the median ratio at the run's confidence. `agreement` is the share of answers that
    were the same on both sides (same prompts and seeds, greedy decoding), None where it cannot be said.
    """

    slowdown: float
    low: float
    high: float
    n: int
    a: Measurement
    b: Measurement
    agreement: float | None = None

    @classmethod
    def of(cls, a: Measurement, b: Measurement, *, alpha: float) -> Comparison:
        """The comparison that B's rounds hold. Raises EngineFault when no pair of them was clean."""
        ratios = b.values("slowdown_ratio")
        if not ratios:
            raise EngineFault("no clean pair of rounds: " + "; ".join(b.rounds[-1].violations))
        low, high = interval_of(EVEN, ratios, alpha=alpha)
        return cls(
            slowdown=percentile(ratios, 0.5),
            low=low,
            high=high,
            n=len(ratios),
            a=a,
            b=b,
            agreement=b.observed.get("agreement"),
        )

    @property
    def speedup(self) -> float:
        """How many times faster B is."""
        return 1 / self.slowdown


def with_slowdown(rounds: Sequence[Round], baseline: Measurement | None) -> tuple[Round, ...]:
    """Each round with its slowdown against the median of a stored run; rounds that have one keep theirs."""
    if baseline is None:
        return tuple(rounds)
    metric = "tpot_ms" if baseline.values("tpot_ms") else "e2e_latency_ms"
    reference = percentile(baseline.values(metric), 0.5)
    return tuple(
        replace(seen, metrics={"slowdown_ratio": seen.metrics[metric] / reference, **seen.metrics})
        if metric in seen.metrics
        else seen
        for seen in rounds
    )
