"""The bounds a test can set: one row each, with metric, direction and statistic."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

Direction = Literal["at least", "at most"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundKind:
    """What a bound's marker measures and how it is judged.

    `judged` is "sequential" for a metric seen once a round (judged by the anytime-valid test), "observed" for
    one that is a plain fact of the session (peak memory, load time, the longest gap) and "requests" for a
    share of all requests together.
    """

    marker: str
    metric: str
    direction: Direction
    unit: str
    judged: Literal["sequential", "observed", "requests"] = "sequential"

    def bound(self, limit: float, stat: str = "median", **given: Any) -> Bound:
        """A bound of this kind; `given` are other fields of it, such as another metric."""
        fields: dict[str, Any] = {
            "marker": self.marker,
            "metric": self.metric,
            "direction": self.direction,
            "unit": self.unit,
            "judged": self.judged,
        }
        return Bound(limit=limit, stat=stat, **(fields | given))


@dataclass(frozen=True, slots=True, kw_only=True)
class Slo:
    """One limit of a request that counts as good: its metric at or under `limit` ms.

    For "itl_ms" it is the request's own quantile `fraction` of its gaps that has to be.
    """

    metric: str
    limit: float
    fraction: float = 0.5


BOUND_KINDS: dict[str, BoundKind] = {
    kind.marker: kind
    for kind in (
        BoundKind(
            marker="min_tokens_per_sec", metric="decode_tokens_per_sec", direction="at least", unit="tok/s"
        ),
        BoundKind(
            marker="min_prefill_tokens_per_sec",
            metric="prefill_tokens_per_sec",
            direction="at least",
            unit="tok/s",
        ),
        BoundKind(marker="max_ttft", metric="ttft_ms", direction="at most", unit="ms"),
        BoundKind(marker="max_tpot", metric="tpot_ms", direction="at most", unit="ms"),
        BoundKind(marker="max_itl", metric="itl_ms", direction="at most", unit="ms"),
        BoundKind(marker="max_step_time", metric="step_time_s", direction="at most", unit="s"),
        BoundKind(marker="max_e2e_latency", metric="e2e_latency_ms", direction="at most", unit="ms"),
        BoundKind(
            marker="max_longest_gap",
            metric="longest_gap_ms",
            direction="at most",
            unit="ms",
            judged="observed",
        ),
        BoundKind(
            marker="max_error_rate",
            metric="error_ratio",
            direction="at most",
            unit="of the requests",
            judged="requests",
        ),
        BoundKind(marker="min_goodput", metric="goodput_per_sec", direction="at least", unit="req/s"),
        BoundKind(marker="min_mbu", metric="mbu_ratio", direction="at least", unit="ratio"),
        BoundKind(marker="min_mfu", metric="mfu_ratio", direction="at least", unit="ratio"),
        BoundKind(marker="max_vram", metric="vram_gb", direction="at most", unit="GB", judged="observed"),
        BoundKind(
            marker="max_load_time", metric="load_time_s", direction="at most", unit="s", judged="observed"
        ),
        BoundKind(marker="max_joules_per_token", metric="joules_per_token", direction="at most", unit="J"),
        BoundKind(marker="max_usd_per_mtok", metric="usd_per_mtok", direction="at most", unit="USD"),
        BoundKind(marker="max_slowdown", metric="slowdown_ratio", direction="at most", unit="ratio"),
    )
}

_PERCENTILE = re.compile(r"^p(\d{1,2}(?:\.\d+)?)$")


def fraction_of(stat: str) -> float:
    """The share of rounds that must meet a bound: 0.5 for "median", 0.95 for "p95".

    The same reading serves both directions: `max_ttft(500, stat="p95")` wants 95 % of the rounds at or
    under 500 ms, `min_tokens_per_sec(30, stat="p95")` wants 95 % of them at or over 30 tok/s.

    Raises ValueError for anything else.
    """
    if stat == "median":
        return 0.5
    found = _PERCENTILE.match(stat)
    if found is None or not 50 <= float(found[1]) < 100:
        raise ValueError(f"{stat!r} is not 'median' or a percentile from 'p50' to 'p99.9'")
    return float(found[1]) / 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """One bound of one test: the limit in the kind's unit, and the statistic that must meet it.

    `metric` names what is compared (it differs from the kind's own metric for `scope="system"`).
    `vs` names the other side of a `max_slowdown`, None for every other bound. `judged` is the kind's, and
    "rated" for a bound on the stars of answers, whose metric is a profile and a dimension ("run overall"), or
    "counted" for one on right answers, whose metric is a task ("" for every task of the test). `slos` are the
    limits that a request has to meet to count for a `min_goodput`.
    """

    marker: str
    metric: str
    direction: Direction
    limit: float
    unit: str
    stat: str = "median"
    judged: Literal["sequential", "observed", "requests", "rated", "counted"] = "sequential"
    vs: str | None = None
    slos: tuple[Slo, ...] = ()

    @property
    def fraction(self) -> float:
        """The share of rounds that must meet the limit."""
        return fraction_of(self.stat)

    def met_by(self, value: float) -> bool:
        """Whether one observation meets the limit; equality meets it."""
        return value >= self.limit if self.direction == "at least" else value <= self.limit

    def __str__(self) -> str:
        sign = "≥" if self.direction == "at least" else "≤"
        named = f"{self.metric} ".lstrip()
        unstated = {"observed": "", "requests": "", "rated": named, "counted": named}
        stat = unstated.get(self.judged, f"{self.stat} ")
        return f"{self.marker}: {stat}{sign} {self.limit:g} {self.unit}"
