"""Fitted laws: a line each for the terminal, a table for the markdown page, JUnit properties."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

from pytest_qwen.laws import Law
from pytest_qwen.reports.junit import Scalar
from pytest_qwen.reports.markdown import table
from pytest_qwen.reports.text import speak

NAMES = ("what", "law", "R²", "n", "worst residual", "largest residuals")
_SHOWN = 3


def laws_text(laws: Iterable[Law], *, width: int, unicode: bool) -> str:
    """One line a law, wrapped at `width`."""
    lines = [speak(str(law), unicode=unicode) for law in laws]
    return "\n".join(part for line in lines for part in textwrap.wrap(line, width, subsequent_indent="    "))


def laws_section(laws: Sequence[Law]) -> str:
    """The table in markdown."""
    return table(NAMES, map(_cells, laws))


def law_properties(laws: Iterable[Law]) -> list[tuple[str, Scalar]]:
    """`qwen.law.<what>.` law, n, r2, and each coefficient by its term."""
    found: list[tuple[str, Scalar]] = []
    for law in laws:
        name = f"qwen.law.{law.subject}"
        found += [(f"{name}.law", law.formula), (f"{name}.n", law.n)]
        found += [] if law.r2 is None else [(f"{name}.r2", law.r2)]
        found += [(f"{name}.{term.of}", term.coefficient) for term in law.terms]
    return found


def _cells(law: Law) -> tuple[str, ...]:
    largest = sorted(law.residuals, key=abs, reverse=True)[:_SHOWN]
    return (
        law.subject,
        law.formula,
        "" if law.r2 is None else f"{law.r2:.5f}",
        str(law.n),
        f"{law.worst_percent:.1f} %",
        ", ".join(f"{value:+.3g} {law.unit}" for value in largest),
    )
