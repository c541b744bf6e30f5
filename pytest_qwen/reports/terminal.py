"""The table at the end of a run: one row a bound, as wide as the terminal and no wider."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pytest_qwen.outcomes import Outcome
from pytest_qwen.records import RunRecord
from pytest_qwen.reports.figures import (
    bound_text,
    ceiling_text,
    figures_of,
    grouped,
    heading_of,
    interval_text,
    number,
    totals,
)
from pytest_qwen.reports.text import fit, speak

Markup = Callable[[str, Outcome], str]

_GAP = "  "
_TEST_LEAST = 12
_RIGHT = ("measured", "n")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One bound of one test, in words; `outcome` is None when it was never judged."""

    test: str
    bound: str
    measured: str = ""
    interval: str = ""
    n: str = ""
    ceiling: str = ""
    outcome: Outcome | None = None
    reason: str = ""

    @property
    def verdict(self) -> str:
        """The outcome's word, "-" for none."""
        return self.outcome.value if self.outcome else "-"


def rows_of(record: RunRecord) -> list[Row]:
    """A row for every verdict; for a test that has none, a row for every bound, or what it did measure."""
    test = short_name(record.nodeid)
    if record.verdicts:
        return [
            Row(
                test=test,
                bound=bound_text(verdict.bound),
                measured=number(verdict.estimate),
                interval=interval_text(verdict),
                n=str(verdict.n),
                ceiling=ceiling_text(verdict),
                outcome=verdict.outcome,
                reason=verdict.reason,
            )
            for verdict in record.verdicts
        ]
    why = f"{record.outcome}: {record.reason}" if record.reason else record.outcome
    if record.bounds:
        return [Row(test=test, bound=bound_text(bound), reason=why) for bound in record.bounds]
    rate = figures_of(record).tokens_per_sec
    return [] if rate is None else [Row(test=test, bound="no bound, decode tok/s", measured=number(rate))]


def short_name(nodeid: str) -> str:
    """The test without its folders: "test_speed.py::test_decode[7b]"."""
    path, separator, rest = nodeid.partition("::")
    return path.rpartition("/")[2] + separator + rest


def summary(
    records: Sequence[RunRecord], *, width: int, unicode: bool = True, markup: Markup | None = None
) -> str:
    """The whole table, grouped by what was measured on what; "" when there is nothing to say.

    `markup` colours a verdict's word; it gets the word padded and must not change what is seen of it. No line
    is longer than `width` columns, markup apart (40 at the least).
    """
    page = _Page(width=max(40, width), unicode=unicode, markup=markup)
    blocks = [page.group(group) for group in grouped(records)]
    found = [block for block in blocks if block]
    if not found:
        return ""
    return "\n\n".join([*found, "\n".join(page.wrapped(totals(records)))])


@dataclass(frozen=True, slots=True)
class _Page:
    """What holds for every line: the width, the alphabet and the colours."""

    width: int
    unicode: bool
    markup: Markup | None

    def group(self, records: Sequence[RunRecord]) -> str:
        """One configuration: what it is, then its rows."""
        rows = [self._spoken(row) for record in records for row in rows_of(record)]
        if not rows:
            return ""
        confidence = f"{100 * (1 - records[0].alpha):g} % interval"
        heading = {
            name: name
            for name in ("test", "bound", "measured", "interval", "n", "ceiling", "verdict", "reason")
        }
        table = _columns(rows, heading | {"interval": confidence})
        lines = self._wide(table, rows) if _natural_width(table) <= self.width else self._narrow(rows)
        return "\n".join([*self._title(records[0]), *lines])

    def _title(self, first: RunRecord) -> list[str]:
        title, about = heading_of(first)
        return [*self.wrapped(title), *(self.wrapped(about, indent="  ") if about else [])]

    def wrapped(self, text: str, indent: str = "") -> list[str]:
        """The text over as many lines as it needs."""
        return textwrap.wrap(
            speak(text, unicode=self.unicode), self.width, initial_indent=indent, subsequent_indent=indent
        )

    def _spoken(self, row: Row) -> Row:
        def of(text: str) -> str:
            return speak(text, unicode=self.unicode)

        return Row(
            test=of(row.test),
            bound=of(row.bound),
            measured=of(row.measured),
            interval=of(row.interval),
            n=row.n,
            ceiling=of(row.ceiling),
            outcome=row.outcome,
            reason=of(row.reason),
        )

    def _wide(self, table: dict[str, list[str]], rows: Sequence[Row]) -> list[str]:
        """A line a row; the test's name gives way, and a reason that finds no room goes below."""
        widths = {name: max(map(len, cells)) for name, cells in table.items()}
        others = sum(widths[name] + len(_GAP) for name in widths if name not in ("test", "reason"))
        widths["test"] = min(widths["test"], self.width - others)
        beside = others + widths["test"] + len(_GAP) + widths.get("reason", 0) <= self.width
        lines = []
        for index in range(len(rows) + 1):
            row = rows[index - 1] if index else None
            cells = [
                self._cell(name, table[name][index], widths[name], row)
                for name in table
                if name != "reason" or beside
            ]
            lines.append(_GAP.join(cells).rstrip())
            if row and row.reason and not beside:
                lines += self.wrapped(row.reason, indent=" " * (widths["test"] + len(_GAP)))
        return lines

    def _cell(self, name: str, text: str, width: int, row: Row | None) -> str:
        if name == "test":
            text = fit(text, width, unicode=self.unicode, keep="end")
        if name in _RIGHT:
            return text.rjust(width)
        padded = text.ljust(width)
        return self._coloured(padded, row) if name == "verdict" and row else padded

    def _coloured(self, text: str, row: Row) -> str:
        return self.markup(text, row.outcome) if self.markup and row.outcome else text

    def _narrow(self, rows: Sequence[Row]) -> list[str]:
        """For a terminal too narrow for the table: verdict and bound, figures and reason below them."""
        lines, test = [], ""
        column = len(Outcome.NO_VERDICT.value) + len(_GAP)
        for row in rows:
            if row.test != test:
                test = row.test
                lines.append(fit(test, self.width, unicode=self.unicode, keep="end"))
            verdict = self._coloured(row.verdict.ljust(column - len(_GAP)), row)
            bound = fit(row.bound, self.width - column - len(_GAP), unicode=self.unicode)
            lines.append(f"{_GAP}{verdict}{_GAP}{bound}")
            figures = [f"{row.measured} {row.interval}".strip(), row.n and f"n={row.n}"]
            figures += [row.ceiling and f"ceiling {row.ceiling}"]
            below = [", ".join(text for text in figures if text), row.reason]
            lines += [
                line for text in below if text for line in self.wrapped(text, indent=" " * (column + 2))
            ]
        return lines


def _columns(rows: Sequence[Row], heading: dict[str, str]) -> dict[str, list[str]]:
    """The cells of each column under its heading; a column in which no row says anything is left out."""
    table = {name: [getattr(row, name) for row in rows] for name in heading}
    return {name: [heading[name], *cells] for name, cells in table.items() if any(cells)}


def _natural_width(table: dict[str, list[str]]) -> int:
    """What the table needs with the shortest name of a test and the reasons below."""
    widths = [max(map(len, cells)) for name, cells in table.items() if name not in ("test", "reason")]
    return _TEST_LEAST + sum(width + len(_GAP) for width in widths)
