"""Which published claims cannot be so: every check on every row, within a table and between tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from pytest_qwen.claims_arithmetic import ARITHMETIC_CHECKS
from pytest_qwen.claims_physics import PHYSICS_CHECKS
from pytest_qwen.published import Kind, Row, Span, Table, printed, span


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One claim that cannot be so: `impossible` by physics, `inconsistent` with itself or another claim."""

    kind: Kind
    check: str
    document: str
    table: str
    row: str
    text: str

    def __str__(self) -> str:
        return f"{self.kind} [{self.check}] {self.table} / {self.row}: {self.text}"


def findings(tables: Iterable[Table]) -> tuple[Finding, ...]:
    """What every check finds in these tables, by row, by table and between tables."""
    found: list[Finding] = []
    rows: list[Row] = []
    for table in tables:
        rows += table.rows
        for row in table.rows:
            found += _of_row(row)
        found += _memory_of_one_card(table)
        found += _more_work_in_less_time(table)
    return (*found, *_disagreements(rows))


def _of_row(row: Row) -> Iterator[Finding]:
    for name, check in (PHYSICS_CHECKS | ARITHMETIC_CHECKS).items():
        for kind, text in check(row):
            yield _finding(row, kind, name, text)


def _finding(row: Row, kind: Kind, check: str, text: str) -> Finding:
    return Finding(kind=kind, check=check, document=row.document, table=row.table, row=row.name, text=text)


def _memory_of_one_card(table: Table) -> Iterator[Finding]:
    """used + free of one card that differs from row to row."""
    by_card: dict[str, list[tuple[Row, Span]]] = {}
    for row in table.rows:
        if {"gpu", "memory_used_gb", "memory_free_gb"} <= set(row.fields):
            used, free = row.span("memory_used_gb"), row.span("memory_free_gb")
            by_card.setdefault(row["gpu"], []).append((row, Span(used.low + free.low, used.high + free.high)))
    for card, sums in by_card.items():
        least, most = min(sums, key=lambda s: s[1].low), max(sums, key=lambda s: s[1].low)
        if not least[1].overlaps(most[1].widened(0.02)):
            here, there = f"{least[1].low:.1f} GB here", f"{most[1].low:.1f} GB for {most[0].name}"
            text = f"used + free of one {card} is {here} and {there}"
            yield _finding(least[0], "inconsistent", "memory of one card", text)


def _more_work_in_less_time(table: Table) -> Iterator[Finding]:
    """Training everything faster than training adapters only, at the same length on the same card."""
    rows = [row for row in table.rows if "training" in row and row.quantization is None]
    for full in (row for row in rows if row["training"]["trains"] == "everything"):
        for part in (row for row in rows if row["training"]["trains"] == "adapters"):
            a, b = full["training"], part["training"]
            pairs = zip(a["tokens"], a["seconds"], b["seconds"], strict=True)
            faster = [tokens for tokens, whole, some in pairs if span(whole).high < span(some).low]
            if faster:
                text = f"trains all weights in less time than {part.name} at {printed(faster)} tokens"
                yield _finding(full, "inconsistent", "more work in less time", text)


_IDENTITY = (
    "model",
    "gpu",
    "count",
    "quantization",
    "engine",
    "batch",
    "sequences",
    "optimized",
    "kv_quantized",
)
_SHARED = ("tokens_per_sec", "usd_per_mtok", "memory_used_gb", "stars")


def _disagreements(rows: list[Row]) -> Iterator[Finding]:
    """Two places that state the same quantity with values that cannot be the same."""
    stated: dict[tuple[Any, ...], list[tuple[Row, Any, Span]]] = {}
    for row in rows:
        for key, value, meant in _quantities(row):
            stated.setdefault(key, []).append((row, value, meant))
    for key, places in stated.items():
        for (one, first, a), (other, second, b) in combinations(places, 2):
            if not a.overlaps(b):
                text = f"{key[0]} {printed(second)}; '{one.table}' says {printed(first)}"
                yield _finding(other, "inconsistent", "two tables disagree", text)


def _quantities(row: Row) -> Iterator[tuple[tuple[Any, ...], Any, Span]]:
    """(what it is of, as printed, span) of each quantity that another table may state too."""
    if "model" in row:
        identity = tuple(row.fields.get(field) for field in _IDENTITY)
        for field in _SHARED:
            if field in row:
                yield (field, *identity[: 1 if field == "stars" else None]), row[field], row.span(field)
        if "usd_per_ktok" in row:
            thousand = row.span("usd_per_ktok")
            printed = f"{float(row['usd_per_ktok']) * 1000:g}"
            yield ("usd_per_mtok", *identity), printed, Span(thousand.low * 1000, thousand.high * 1000)
    if "name" in row and "weights_gb" in row:
        yield ("weights_gb", row["name"], row.fields.get("bits")), row["weights_gb"], row.span("weights_gb")
