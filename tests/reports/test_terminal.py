"""The table: aligned, grouped, never wider than the terminal, and nothing left unsaid."""

from __future__ import annotations

import math

import pytest
from record_samples import H200, bound, full_record, record, verdict

from pytest_qwen.outcomes import Outcome
from pytest_qwen.records import RunRecord
from pytest_qwen.reports.terminal import short_name, summary

SPEED, TTFT = bound("min_tokens_per_sec", 150.0), bound("max_ttft", 500.0, "p95")
CO_TENANT = "another process used the GPU"


def records() -> list[RunRecord]:
    failed = record(
        nodeid="suites/performance/test_speed.py::test_decode[14b-" + "long" * 20 + "]",
        outcome="failed",
        verdicts=(
            verdict(SPEED, Outcome.FAIL, estimate=98.76, low=97.5, high=99.9, ceiling=158.2),
            verdict(TTFT, Outcome.NO_VERDICT, reason=CO_TENANT, low=-math.inf, high=math.inf, n=7),
        ),
    )
    other = record(spec={**record().spec, "optimize": "eager"}, verdicts=(verdict(SPEED),))
    skipped = record(outcome="skipped", reason="wants gpu l4", bounds=(TTFT,), spec={}, loaded={}, device={})
    return [full_record(), other, failed, skipped, record(measurements=full_record().measurements)]


@pytest.mark.parametrize("unicode", [True, False])
@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 200])
def test_no_line_is_wider_than_the_terminal(width: int, unicode: bool) -> None:
    text = summary(records(), width=width, unicode=unicode)
    assert max(map(len, text.splitlines())) <= width
    assert text.isascii() or unicode
    words = " ".join(text.split())
    for said in ("98.76", "158.2 (62 %)", "FAIL", "skipped: wants gpu l4", "2 PASS, 1 FAIL, 3 NO VERDICT"):
        assert said in words
    assert CO_TENANT in words


def test_what_was_measured_stands_above_the_rows() -> None:
    lines = summary(records(), width=120).splitlines()
    assert lines[0] == H200
    assert lines[1].strip() == (
        "Qwen/Qwen2.5-Coder-7B-Instruct: transformers, max, bfloat16, sdpa (torch 2.13.0, transformers 5.1.0)"
    )
    assert lines.count(H200) == 2  # max and eager, each once, although they alternate
    assert "nothing was loaded (asked for GPU: h200)" in lines


def test_columns_are_aligned() -> None:
    lines = summary(records()[:1], width=120).splitlines()
    heading = next(line for line in lines if line.startswith("test "))
    rows = [line for line in lines if line.startswith("test_speed.py")]
    assert len(rows) == 3
    for name in ("bound", "99 % interval", "verdict"):
        column = heading.index(name)
        assert all(row[column - 1] == " " for row in rows)
    assert [row[heading.index("verdict") :].split("  ")[0] for row in rows] == [
        "PASS",
        "NO VERDICT",
        "NO VERDICT",
    ]
    end = heading.index("measured") + len("measured")
    assert rows[0][:end].endswith("205.2")


def test_a_long_name_gives_way_and_keeps_its_end() -> None:
    text = summary(records()[2:3], width=120)
    assert "…" in text
    assert "long]" in text


def test_the_confidence_is_the_runs_own() -> None:
    text = summary([record(alpha=0.001, verdicts=(verdict(SPEED),))], width=120)
    assert "99.9 % interval" in text


def test_infinite_ends_and_ascii() -> None:
    made = [record(verdicts=(verdict(TTFT, low=-math.inf, high=math.inf),))]
    assert "[-∞, ∞]" in summary(made, width=120)
    assert "[-inf, inf]" in summary(made, width=120, unicode=False)
    assert "p95 <= 500 ms" in summary(made, width=120, unicode=False)


def test_a_test_without_bounds_shows_what_it_measured() -> None:
    text = summary([record(measurements=full_record().measurements)], width=120)
    assert "no bound, decode tok/s" in text
    assert " 197" in text


@pytest.mark.parametrize("width", [60, 120])
def test_colours_change_nothing_else(width: int) -> None:
    asked: list[tuple[str, Outcome]] = []

    def markup(text: str, outcome: Outcome) -> str:
        asked.append((text, outcome))
        return f"<{text}>"

    plain = summary(records(), width=width)
    coloured = summary(records(), width=width, markup=markup)
    marked = coloured.replace("<", "").replace(">", "")
    assert [line.rstrip() for line in marked.splitlines()] == plain.splitlines()
    assert {outcome for _, outcome in asked} == set(Outcome)
    assert all(text.strip() == outcome for text, outcome in asked)


def test_escape_sequences_are_shown_not_sent() -> None:
    text = summary(
        [record(nodeid="t.py::test[\x1b[2J]", verdicts=(verdict(SPEED, reason="\x1b]0;x\x07"),))], width=120
    )
    assert "\x1b" not in text
    assert "\\x1b[2J" in text


def test_nothing_to_say() -> None:
    assert summary([], width=80) == ""
    assert summary([record()], width=80) == ""


def test_short_names() -> None:
    assert short_name("a/b/test_x.py::TestA::test_b[c/d]") == "test_x.py::TestA::test_b[c/d]"
