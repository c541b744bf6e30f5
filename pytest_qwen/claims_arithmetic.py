"""Checks of published claims against the figures that stand beside them."""

from __future__ import annotations

import math
from collections.abc import Iterator

from pytest_qwen.physics import usd_per_mtok
from pytest_qwen.published import Check, Problem, Row, Span, printed, span


def _tokens_over_seconds(row: Row) -> Iterator[Problem]:
    """tokens / seconds that is not the stated rate."""
    if not {"tokens", "seconds", "tokens_per_sec"} <= set(row.fields):
        return
    tokens = float(row["tokens"])
    rate = Span(tokens, tokens) / row.span("seconds")
    if not rate.overlaps(row.span("tokens_per_sec")):
        yield "inconsistent", f"{printed(row['tokens_per_sec'])} tok/s; tokens / seconds is {rate.low:.2f}"


def _cost(row: Row) -> Iterator[Problem]:
    """A cost per token that is not price / rate."""
    if not {"usd_per_hour", "usd_per_mtok", "tokens_per_sec"} <= set(row.fields):
        return
    price, rate = row.span("usd_per_hour"), row.span("tokens_per_sec")
    cost = Span(usd_per_mtok(price.low, rate.high), usd_per_mtok(price.high, rate.low))
    if not cost.overlaps(row.span("usd_per_mtok")):
        yield (
            "inconsistent",
            f"{printed(row['usd_per_mtok'])} USD; price / rate is {cost.low:.2f}-{cost.high:.2f}",
        )


def _parts(row: Row) -> Iterator[Problem]:
    """Components that do not add up to the total."""
    if "parts" not in row:
        return
    spans = [span(value) for value in row["parts"].values()]
    together = Span(sum(s.low for s in spans), sum(s.high for s in spans))
    if not together.overlaps(row.span("total")):
        middle = (together.low + together.high) / 2
        yield "inconsistent", f"a total of {printed(row['total'])}; the components add up to {middle:.1f}"


def _product(row: Row) -> Iterator[Problem]:
    """Factors that do not give the result."""
    if "product" not in row:
        return
    factors = row["product"]["factors"]
    value = math.prod(float(factor) for factor in factors.values())
    if not span(row["product"]["result"]).overlaps(Span(value * (1 - 1e-9), value * (1 + 1e-9))):
        text = " x ".join(f"{factor} {name}" for name, factor in factors.items())
        yield "inconsistent", f"{printed(row['product']['result'])}; {text} = {value:,.6g}"


def _changes(row: Row) -> Iterator[Problem]:
    """Stated percentages that disagree with the figures."""
    for change in row.fields.get("changes", ()):
        ratio = span(change["to"]) / span(change["from"])
        percent = Span(100 * (ratio.low - 1), 100 * (ratio.high - 1))
        if not percent.overlaps(span(change["percent"])):
            said = change.get("stated", f"{printed(change['percent'])} %")
            yield "inconsistent", f"{said}; from {change['from']} to {change['to']} is {percent.low:+.1f} %"


def _multiple(row: Row) -> Iterator[Problem]:
    """Stated multiples, or ranges of multiples, that disagree with the figures."""
    if "ratio" in row:
        ratio = row["ratio"]
        times = span(ratio["of"]) / span(ratio["to"])
        if not times.overlaps(span(ratio["times"])):
            yield (
                "inconsistent",
                f"{printed(ratio['times'])}x; {ratio['of']} / {ratio['to']} is {times.low:.2f}",
            )
    if "multiple" in row:
        times, said = (
            span(row["multiple"]["of"]) / span(row["multiple"]["to"]),
            span(row["multiple"]["times"]),
        )
        if times.low < said.low or times.high > said.high:
            stated = printed(row["multiple"]["times"])
            yield "inconsistent", f"{stated}x; the figures give {times.low:.1f}-{times.high:.1f}"


def _speedup(row: Row) -> Iterator[Problem]:
    """A range of speed-ups that the two ranges of times do not give."""
    if "speedup" not in row:
        return
    slow, fast = row["speedup"]["slow"], row["speedup"]["fast"]
    low, high = float(slow[0]) / float(fast[1]), float(slow[1]) / float(fast[0])
    said_low, said_high = (float(end) for end in row["speedup"]["times"])
    if not (math.isclose(low, said_low, rel_tol=0.1) and math.isclose(high, said_high, rel_tol=0.1)):
        yield "inconsistent", f"{printed(row['speedup']['times'])}x; the times give {low:.1f}-{high:.0f}"


def _points(row: Row) -> Iterator[Problem]:
    """A stated loss of points that is not the difference."""
    if "points" not in row:
        return
    lost = float(row["points"]["from"] - row["points"]["to"])
    if not Span(lost, lost).overlaps(span(row["points"]["lost"])):
        yield "inconsistent", f"{printed(row['points']['lost'])} points lost; it is {lost:.2f}"


def _active_share(row: Row) -> Iterator[Problem]:
    """A stated share of active parameters that the counts contradict."""
    if "active_share" not in row:
        return
    share = row["active_share"]
    percent = 100 * float(share["active"]) / float(share["total"])
    if not Span(percent, percent).overlaps(span(share["percent"])):
        counts = f"{share['active']} of {share['total']}"
        yield "inconsistent", f"{printed(share['percent'])} % active; {counts} is {percent:.1f} %"


ARITHMETIC_CHECKS: dict[str, Check] = {
    "tokens over seconds": _tokens_over_seconds,
    "cost": _cost,
    "sum": _parts,
    "product": _product,
    "change": _changes,
    "multiple": _multiple,
    "speed-up": _speedup,
    "points": _points,
    "active share": _active_share,
}
