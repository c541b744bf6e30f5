"""Published tables as data: numbers with the precision they were printed in, rows, tables, documents."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from pytest_qwen.data import find_shape, fixtures_dir
from pytest_qwen.gpus import lookup
from pytest_qwen.models import ModelShape
from pytest_qwen.physics import Setup

Kind = Literal["impossible", "inconsistent"]
Problem = tuple[Kind, str]
_ABOUT = 0.05


@dataclass(frozen=True, slots=True)
class Span:
    """Every value that a printed number can stand for."""

    low: float
    high: float

    def overlaps(self, other: Span) -> bool:
        """Whether both can be the same value."""
        return self.low <= other.high and other.low <= self.high

    def widened(self, share: float) -> Span:
        """The span, larger by a share of its ends."""
        return Span(self.low * (1 - share), self.high * (1 + share))

    def __truediv__(self, other: Span) -> Span:
        ends = [a / b for a in (self.low, self.high) for b in (other.low, other.high)]
        return Span(min(ends), max(ends))


def span(stated: Any) -> Span:
    """The span of a printed number: half a unit of its last digit either way.

    "~18" is within 5 %, ">=15" has no upper end, [a, b] is a range. Raises ValueError for anything else.
    """
    if isinstance(stated, list):
        return Span(span(stated[0]).low, span(stated[1]).high)
    text = str(stated)
    if text.startswith("~"):
        about = float(text[1:])
        return Span(about * (1 - _ABOUT), about * (1 + _ABOUT))
    if text.startswith(">="):
        return Span(float(text[2:]), float("inf"))
    number = Decimal(text)
    half_unit = 0.5 * 10.0 ** int(number.as_tuple().exponent)
    return Span(float(number) - half_unit, float(number) + half_unit)


def printed(stated: Any) -> str:
    """A number or range as it was printed."""
    if isinstance(stated, list):
        return "-".join(str(part) for part in stated) if len(stated) == 2 else ", ".join(map(str, stated))
    return str(stated)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row: what it is called, where it stands, and its fields as printed (units in their names)."""

    document: str
    table: str
    name: str
    fields: Mapping[str, Any]

    def __contains__(self, field: str) -> bool:
        return field in self.fields

    def __getitem__(self, field: str) -> Any:
        return self.fields[field]

    def span(self, field: str) -> Span:
        """The span of one field; KeyError when the row lacks it."""
        return span(self.fields[field])

    @property
    def shape(self) -> ModelShape | None:
        """The model's shape, None when the row names none that is shipped."""
        return find_shape(self.fields["model"]) if "model" in self.fields else None

    @property
    def dtype(self) -> str:
        """The number format of what is not quantised."""
        return str(self.fields.get("dtype", "bfloat16"))

    @property
    def quantization(self) -> str | None:
        """The weights' quantisation, None for full precision."""
        found = self.fields.get("quantization")
        return None if found is None else str(found)

    @property
    def setup(self) -> Setup | None:
        """The arithmetic's view of a row that names a model and a card, at the shortest context."""
        shape = self.shape
        if shape is None or "gpu" not in self.fields:
            return None
        return Setup(
            shape=shape,
            gpu=lookup(self.fields["gpu"]),
            dtype=self.dtype,
            quantization=self.quantization,
            prompt_tokens=0,
            output_tokens=0,
            batch=int(self.fields.get("batch", 1)),
            count=int(self.fields.get("count", 1)),
        )


# What a check says of one row: nothing, or what cannot be so and why.
Check = Callable[[Row], Iterator[Problem]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One published table with its source: document and section."""

    document: str
    section: str
    name: str
    rows: tuple[Row, ...]

    @property
    def label(self) -> str:
        """ "h100-report: configuration comparison"."""
        return f"{self.document}: {self.name}"


def load_documents() -> dict[str, tuple[Table, ...]]:
    """The tables of each document under `fixtures/published`, by its file's short name."""
    found: dict[str, tuple[Table, ...]] = {}
    for path in sorted((fixtures_dir() / "published").glob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"), parse_float=Decimal)
        found[path.stem] = tuple(_table(content["document"], table) for table in content["tables"])
    return found


def load_tables() -> tuple[Table, ...]:
    """Every table under `fixtures/published`, in the order of the files' names."""
    return tuple(table for tables in load_documents().values() for table in tables)


def _table(document: str, content: Mapping[str, Any]) -> Table:
    name = content["name"]
    rows = tuple(
        Row(document=document, table=name, name=fields["row"], fields=fields) for fields in content["rows"]
    )
    return Table(document=document, section=content["section"], name=name, rows=rows)
