"""Published figures beside ours: one table for the terminal, one for the markdown page, JUnit properties."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import get_args

from pytest_qwen.published import load_documents
from pytest_qwen.reports.figures import number
from pytest_qwen.reports.junit import Scalar
from pytest_qwen.reports.markdown import escaped, table
from pytest_qwen.reports.text import fit, speak
from pytest_qwen.standing import Standing, Word

NAMES = ("table", "row", "figure", "published", "ours", "standing", "why")
_GAP = "  "
_NAME_LEAST = 12
_RIGHT = {"published", "ours"}
_BESIDE = "published beside it: "  # the start of a reason's part that repeats the published figure


def published_text(standings: Sequence[Standing], *, width: int, unicode: bool) -> str:
    """A block a table, no line longer than `width` (72 at the least); a reason goes below its line.

    What was computed from a row's inputs and agrees is only counted: there is a lot of it. What a reason
    shares with one above it in the same table is said once.
    """
    width, every = max(72, width), by_table(standings)
    standings = [one for one in every if not (one.computed and one.standing == "reproduced")]
    said = [[speak(cell, unicode=unicode) for cell in _cells(one)] for one in standings]
    agreed = len(every) - len(standings)
    columns = list(zip(NAMES, *said, strict=True))[1:-1]
    widths = _fitted([max(map(len, column)) for column in columns], width)
    lines, title, known = [], "", set[str]()
    for one, cells in zip(standings, said, strict=True):
        label = speak(f"{one.document}: {one.table}", unicode=unicode)
        if label != title:
            title, known = label, set()
            lines += [*textwrap.wrap(title, width), _line(NAMES[1:-1], widths, unicode)]
        lines.append(fit(_line(cells[1:-1], widths, unicode), width, unicode=unicode))
        lines += _below(_news(cells[-1], one.published, known), width)
    lines += [f"{agreed} more recomputed from the rows' own inputs, and reproduced"] if agreed else []
    counted = (speak(text, unicode=unicode) for text in counts(every))
    return "\n".join([*lines, "", *_wrapped(counted, width)])


def _fitted(widths: list[int], width: int) -> list[int]:
    """The widths of the columns with those of the names, row and figure, made to give way."""
    over = sum(widths) + len(_GAP) * (len(widths) - 1) - width
    for i in (0, 1):
        given = min(max(over, 0), max(0, widths[i] - _NAME_LEAST))
        widths[i], over = widths[i] - given, over - given
    return widths


def published_section(standings: Sequence[Standing]) -> str:
    """The same in markdown, a table a document."""
    parts = []
    for document, of_document in groupby(by_table(standings), key=lambda one: one.document):
        parts += [f"### {escaped(document)}", table(NAMES, map(_cells, of_document))]
    return "\n\n".join([*parts, "\n".join(f"- {escaped(text)}" for text in counts(standings))])


def by_table(standings: Iterable[Standing]) -> list[Standing]:
    """Those of one document, and there of one table, side by side, else as they came; equal ones once."""
    documents: dict[str, dict[str, list[Standing]]] = {}
    for one in dict.fromkeys(standings):
        documents.setdefault(one.document, {}).setdefault(one.table, []).append(one)
    return [one for tables in documents.values() for rows in tables.values() for one in rows]


def counts(standings: Iterable[Standing]) -> list[str]:
    """A line a document: how many of its rows this run stands beside, and how its figures stand."""
    rows: dict[str, set[tuple[str, str]]] = {}
    words: dict[str, Counter[Word]] = {}
    for one in dict.fromkeys(standings):
        rows.setdefault(one.document, set()).add((one.table, one.row))
        words.setdefault(one.document, Counter())[one.standing] += 1
    found = []
    for tables in load_documents().values():
        document, total = tables[0].document, sum(len(t.rows) for t in tables)
        how = [f"{words[document][w]} {w}" for w in get_args(Word) if words.get(document, Counter())[w]]
        beside = f"{document}: {len(rows.get(document, ()))} of {total} rows compared in this run"
        found.append(f"{beside}; figures: {', '.join(how)}" if how else beside)
    return found


def standing_properties(standings: Iterable[Standing]) -> list[tuple[str, Scalar]]:
    """`qwen.published.<table>.<row>.<figure>.` and published, ours, percent, standing, why, where known."""
    found: list[tuple[str, Scalar]] = []
    for one in standings:
        values = (
            ("published", one.published),
            ("ours", one.measured),
            ("percent", one.percent),
            ("standing", one.standing),
            ("why", one.why or None),
        )
        name = f"qwen.published.{one.table}.{one.row}.{one.figure}"
        found += [(f"{name}.{field}", value) for field, value in values if value is not None]
    return found


def _cells(one: Standing) -> tuple[str, ...]:
    ours = number(one.measured) + " (computed)" * (one.computed and one.measured is not None)
    by = "" if not one.percent or one.standing == "reproduced" else f" {one.percent:+.3g} %"
    return one.table, one.row, one.figure, one.published, ours or "-", one.standing + by, one.why


def _line(row: Sequence[str], widths: Sequence[int], unicode: bool) -> str:
    padded = []
    for name, text, width in zip(NAMES[1:-1], row, widths, strict=True):
        cell = fit(text, width, unicode=unicode)
        padded.append(cell.rjust(width) if name in _RIGHT else cell.ljust(width))
    return _GAP.join(padded).rstrip()


def _news(why: str, published: str, known: set[str]) -> str:
    """What of a reason the table has not said yet, in its line or above; `known` takes it in."""
    repeated = {f"{_BESIDE}{published}", f"{_BESIDE}{published}x"}  # a multiple is printed with an x
    news = [part for part in why.split("; ") if part not in known | repeated]
    known.update(news)
    return "; ".join(news)


def _below(why: str, width: int) -> list[str]:
    return textwrap.wrap(why, width, initial_indent="    ", subsequent_indent="    ") if why else []


def _wrapped(texts: Iterable[str], width: int) -> list[str]:
    return [line for text in texts for line in textwrap.wrap(text, width, subsequent_indent="    ")]
