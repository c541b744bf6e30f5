"""Where a published figure stands beside ours: reproduced, different, impossible, or not measurable here."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import Any, Literal, TypeVar

from pytest_qwen.claims_arithmetic import ARITHMETIC_CHECKS
from pytest_qwen.claims_physics import PHYSICS_CHECKS
from pytest_qwen.errors import Misuse, closest, explain
from pytest_qwen.gpus import CATALOGUE
from pytest_qwen.published import Problem, Row, Span, Table, printed, span

Word = Literal["reproduced", "different", "impossible", "not measurable here"]
Nature = Literal["memory", "speed", "plain"]

# How far from the printed digits ours may lie and still be called the same: conventions, not measurements.
# What is plain has no excuse but its rounding; inputs that something is computed from are rounded as well.
SHARES: Mapping[Nature, float] = {"memory": 0.05, "speed": 0.10, "plain": 0.0}
COMPUTED = 0.01
_EXACT = 1e-9
_Value = TypeVar("_Value")
# Articles write GB for 1e9 bytes and for 2**30 alike.
_GIB = 2**30 / 1e9
# What depends on the card itself, whatever the model: it compares on the published card alone.
_OF_THE_CARD = ("per_sec", "seconds", "usd_per", "_ms", "free_gb", "tflops", "utilization", "power_w")
# Which figures each check of `claims` speaks of.
_SPEAKS_OF = {
    "rate above the ceiling": "*tokens_per_sec",
    "memory below the weights": "memory_used_gb",
    "size of the weights": "weights_gb",
    "KV cache": "kv_cache_gb",
    "KV saving": "kv_saving_*",
    "utilisation": "*_percent*",
    "specification": "*",
    "context": "context_limit_tokens",
    "training memory": "training_memory_gb_*",
    "tokens over seconds": "tokens_per_sec",
    "cost": "usd_per_mtok",
    "sum": "total",
    "product": "product_result",
    "multiple": "*_times",
    "speed-up": "speedup_times*",
    "points": "points_lost",
    "active share": "active_share_percent",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """One published figure beside ours.

    `published` is as it was printed. `measured` is None where nothing could be measured, `computed` says that
    it was recomputed from the row's own inputs. `percent` is how far ours lies beyond the nearer end of the
    printed digits (0 within them), None where the two cannot be compared. `gpu` is the card's alias, "cpu",
    or a name.
    """

    document: str
    table: str
    row: str
    figure: str
    published: str
    measured: float | None
    standing: Word
    why: str = ""
    percent: float | None = None
    computed: bool = False
    gpu: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ours:
    """Our side of a comparison: the value, on which cards, and what the measurer knows of the difference."""

    value: float | None
    gpu: str
    count: int = 1
    computed: bool = False
    why: str = ""


def figures(row: Row) -> dict[str, Any]:
    """Every number of a row by its name, as printed; one inside another field carries that field's name.

    `kv_saving_saved_gb`; a series goes by its tokens: `training_memory_gb_256`.
    """
    found: dict[str, Any] = {}
    for name, value in row.fields.items():
        if isinstance(value, Mapping):
            found |= _inner(name, value)
        elif _is_number(value):
            found[name] = value
    return found


def _inner(outer: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    series = fields.get("tokens")
    for name, value in fields.items():
        if isinstance(series, list) and isinstance(value, list):
            if name != "tokens":
                found |= {f"{outer}_{name}_{t}": v for t, v in zip(series, value, strict=True)}
        elif _is_number(value):
            found[f"{outer}_{name}"] = value
    return found


def _is_number(value: Any) -> bool:
    if isinstance(value, str):
        return value.startswith(("~", ">="))
    if isinstance(value, list):
        return len(value) == 2 and all(map(_is_number, value))
    return isinstance(value, (int, Decimal)) and not isinstance(value, bool)


def find_row(documents: Mapping[str, tuple[Table, ...]], document: str, table: str, row: str) -> Row:
    """The row by the names of document (or its title), table and row. Raises Misuse for an unknown one."""
    titled = {tables[0].document: tables for tables in documents.values()}
    tables = {t.name: t for t in titled.get(document) or _named("document", document, documents)}
    rows = {r.name: r for r in _named("table", table, tables).rows}
    return _named("row", row, rows)


def _named(what: str, name: str, known: Mapping[str, _Value]) -> _Value:
    if name in known:
        return known[name]
    guess = closest(name, known)
    raise Misuse(
        explain(
            f"no published {what} has this name",
            asked=repr(name),
            slip=f"did you mean {guess!r}?" if guess else None,
            choices=map(repr, known),
        )
    )


def standing_of(row: Row, figure: str, ours: Ours, *, against: Row | None = None) -> Standing:
    """Where one figure of a row stands; with `against`, the ratio of the row's figure to that row's.

    Raises Misuse for a figure that a row does not have.
    """
    rows = [row] if against is None else [row, against]
    stated = [_named(f"figure of '{one.name}'", figure, figures(one)) for one in rows]
    spans = [span(value) for value in stated]
    case = _Case(row=row, figure=figure, ours=ours, against=against)
    word, percent, why = case.judged(spans[0] if against is None else spans[0] / spans[1])
    return Standing(
        document=row.document,
        table=row.table,
        row=row.name,
        figure=figure if against is None else f"{figure} / {against.name}",
        published=" / ".join(printed(value) for value in stated),
        measured=ours.value,
        standing=word,
        why=why,
        percent=percent,
        computed=ours.computed,
        gpu=ours.gpu,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    """One comparison while it is judged."""

    row: Row
    figure: str
    ours: Ours
    against: Row | None

    @property
    def nature(self) -> Nature:
        """What the figure depends on."""
        return nature_of(self.figure)

    def judged(self, published: Span) -> tuple[Word, float | None, str]:
        """The standing's word, the percentage, and why."""
        problems = [p for one in (self.row, self.against) if one for p in problems_of(one, self.figure)]
        forbidden = "; ".join(text for kind, text in problems if kind == "impossible")
        elsewhere = self._elsewhere()
        value = None if elsewhere else self.ours.value
        percent = None if value is None else _beyond(value, published)
        if forbidden:
            return "impossible", percent, forbidden
        if value is None:
            return "not measurable here", None, "; ".join(filter(None, (self.ours.why, elsewhere)))
        if self._within(value, published):
            return "reproduced", percent, ""
        if self.nature == "memory" and not self.against and self._within(value / _GIB, published):
            return "reproduced", percent, "if GB stands for 2^30 bytes there"
        return "different", percent, self._why([text for _, text in problems])

    def _within(self, value: float, published: Span) -> bool:
        share = COMPUTED if self.ours.computed else max(SHARES[self.nature], _EXACT)
        return published.widened(share).overlaps(Span(value, value))

    @property
    def _other_card(self) -> str:
        """Both cards in words where they differ; "" where they are the same or the row names none."""
        if "gpu" not in self.row:
            return ""
        alias, count = str(self.row["gpu"]), int(self.row.fields.get("count", 1))
        if (alias, count) == (self.ours.gpu, self.ours.count):
            return ""
        return f"published on {_cards(alias, count)}, ours on {_cards(self.ours.gpu, self.ours.count)}"

    def _elsewhere(self) -> str:
        """Why the value cannot be compared here, "" where it can."""
        if self.ours.computed or self.nature == "plain" or not self._other_card:
            return ""
        if self.ours.gpu == "cpu":
            return self._other_card
        if self.nature == "speed" and self.against is None:
            return f"{self._other_card}: of speeds only ratios carry over"
        return ""

    def _why(self, inconsistent: list[str]) -> str:
        reasons = [self.ours.why, *(f"published beside it: {text}" for text in inconsistent)]
        if not self.ours.computed and self.nature != "plain":
            reasons.append(self._other_card)
        known = [reason for reason in reasons if reason]
        setup = self.row.setup
        if "memory" in self.figure and self.against is None and setup is not None and setup.sizes_known:
            known.append(f"the weights alone are {setup.weights_bytes / 1e9:.2f} GB")
        if known or self.ours.computed or self.nature == "plain":
            return "; ".join(known)
        return "the same card; software, settings or workload differ"


def nature_of(figure: str) -> Nature:
    """What a figure depends on: "memory" on the model, "speed" on the card too, "plain" on no card."""
    if any(word in figure for word in _OF_THE_CARD):
        return "speed"
    return "memory" if re.search(r"_gb(_|$)", figure) else "plain"


def problems_of(row: Row, figure: str) -> Iterator[Problem]:
    """What the checks of `claims` find wrong with one figure of a row."""
    stated = figures(row)[figure]
    tokens = figure.rpartition("_")[2]
    says = rf"(?<![\w.]){re.escape(printed(stated))}(?!\.?\d)"
    of_series = rf"(?<!\d){tokens} tokens " if tokens.isdigit() else r"(?!)"
    for name, check in (PHYSICS_CHECKS | ARITHMETIC_CHECKS).items():
        if fnmatchcase(figure, _SPEAKS_OF.get(name, "")):
            yield from (p for p in check(row) if re.search(says, p[1]) or re.search(of_series, p[1]))


def _beyond(value: float, published: Span) -> float | None:
    """Percent beyond the nearer end of the span, 0 within it; None where that end is 0."""
    if published.low <= value <= published.high:
        return 0.0
    end = published.low if value < published.low else published.high
    return None if end == 0 or math.isinf(end) else 100 * (value / end - 1)


def _cards(alias: str, count: int) -> str:
    spec = CATALOGUE.get(alias)
    name = spec.name.removeprefix("NVIDIA ") if spec else alias.upper() if alias == "cpu" else alias
    return f"{count} x {name}" if count > 1 else name
