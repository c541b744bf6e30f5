"""The tables of published figures and of fitted laws: widths, order, counts, and text of strangers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_qwen.laws import fit_power, fit_sum
from pytest_qwen.published import load_documents
from pytest_qwen.reports.laws_ import law_properties, laws_section, laws_text
from pytest_qwen.reports.published_ import (
    by_table,
    counts,
    published_section,
    published_text,
    standing_properties,
)
from pytest_qwen.standing import Ours, Standing, find_row, standing_of

DOCUMENTS = load_documents()
CASES = (
    ("quantization", "memory and speed", "Qwen-7B Int4", "memory_used_gb", 8.3),
    ("gpu-comparison", "7B on L4", "measured", "tokens_per_sec", 15.0),
    ("quantization", "memory and speed", "Qwen-7B Int8", "memory_used_gb", 15.0),
)


def standings() -> list[Standing]:
    found = []
    for document, table, row, figure, value in CASES:
        found.append(
            standing_of(find_row(DOCUMENTS, document, table, row), figure, Ours(value=value, gpu="h200"))
        )
    return found


@pytest.mark.parametrize("width", [72, 80, 120])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    text = published_text(standings(), width=width, unicode=True)
    assert max(map(len, text.splitlines())) <= width
    for word in ("reproduced", "different +33.9 %", "impossible", "the weights alone are"):
        assert word in " ".join(text.split())


def test_ascii_terminals_get_ascii() -> None:
    strange = Standing(
        document="d\x1b[31m",
        table="t",
        row="Größe",
        figure="f",
        published="1",
        measured=2.0,
        standing="different",
    )
    text = published_text([strange], width=80, unicode=False)
    assert text.isascii()
    assert "\x1b" not in published_text([strange], width=80, unicode=True)


def test_rows_of_a_table_stand_together() -> None:
    assert [one.row for one in by_table(standings())] == ["Qwen-7B Int4", "Qwen-7B Int8", "measured"]
    assert (
        published_text(standings(), width=100, unicode=True).count("memory and speed: memory and speed") == 1
    )
    assert published_section(standings()).count("### ") == 2


def test_every_document_is_counted() -> None:
    found = counts(standings())
    assert len(found) == len(DOCUMENTS)
    quantization = next(line for line in found if line.startswith("Qwen performance"))
    rows = sum(len(table.rows) for table in DOCUMENTS["quantization"])
    assert quantization.endswith(
        f": 2 of {rows} rows compared in this run; figures: 1 reproduced, 1 different"
    )
    assert sum(": 0 of " in line for line in found) == len(DOCUMENTS) - 2


def test_properties_leave_out_what_is_not_known() -> None:
    found = dict(standing_properties(standings()[1:2]))
    assert found["qwen.published.7B on L4.measured.tokens_per_sec.standing"] == "impossible"
    assert {type(value) for value in found.values()} <= {str, int, float}
    assert not [name for name in found if name.endswith(".percent")]  # speed of another card


def test_laws_are_lines_and_a_table() -> None:
    memory = fit_sum("memory", [({"batch": b}, 15 + 0.5 * b) for b in (1, 2, 4)], ("1", "batch"), unit="GB")
    scores = fit_power("scores", [({"tokens": t}, 2.0 * t**2) for t in (1, 2, 4)], "tokens", unit="GB")
    assert laws_text([memory, scores], width=100, unicode=True).splitlines() == [
        "memory = 15 GB + 0.5 GB x batch (R² 1.00000, n 3, worst residual 0.0 %)",
        "scores = 2 GB x tokens^2.000 (R² 1.00000, n 3, worst residual 0.0 %)",
    ]
    assert laws_text([memory], width=100, unicode=False).isascii()
    assert max(map(len, laws_text([memory], width=40, unicode=True).splitlines())) <= 40
    assert "| memory | 15 GB + 0.5 GB x batch | 1.00000 | 3 | 0.0 % |" in laws_section([memory, scores])
    assert dict(law_properties([scores]))["qwen.law.scores.tokens"] == pytest.approx(2)


def test_what_was_computed_and_agrees_is_counted_on_the_terminal_and_listed_on_the_page() -> None:
    row = find_row(DOCUMENTS, "gpu-comparison", "attention scores", "one head at 32K tokens")
    agreed = standing_of(row, "product_result", Ours(value=4.0, gpu="cpu", computed=True))
    text = published_text([*standings(), agreed], width=100, unicode=True)
    assert "one head" not in text
    assert "1 more recomputed from the rows' own inputs, and reproduced" in text
    assert "one head at 32K tokens" in published_section([*standings(), agreed])
    assert "1 more" in published_text([agreed], width=100, unicode=True)


def test_the_same_comparison_twice_is_one() -> None:
    assert counts(standings() * 2) == counts(standings())
    assert len(by_table(standings() * 2)) == len(standings())


def test_a_reason_is_said_once_a_table_and_in_full_on_the_page() -> None:
    row = find_row(DOCUMENTS, "quantization", "memory and speed", "Qwen-7B Int4")
    shared = standing_of(row, "memory_used_gb", Ours(value=5.0, gpu="h200"))
    whys = ("one reason; published beside it: 8.21; 2 + 2 = 4", "one reason; 3 + 3 = 6")
    found = [replace(shared, published="8.21", row=f"row {n}", why=why) for n, why in enumerate(whys)]
    text = published_text(found, width=100, unicode=True)
    assert text.count("one reason") == 1
    assert "published beside it" not in text
    for part in ("2 + 2 = 4", "3 + 3 = 6"):
        assert part in text
    assert published_section(found).count("one reason") == 2
    elsewhere = replace(found[1], table="another table")
    assert published_text([found[0], elsewhere], width=100, unicode=True).count("one reason") == 2
