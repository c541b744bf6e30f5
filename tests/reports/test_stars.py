"""Scorecards in every form: the dimensions always beside the number, and nothing of a guest gets through."""

from __future__ import annotations

import csv
import io
import re
import xml.etree.ElementTree as ET

import pytest
from star_samples import F, I, T, U, evidence, hostile_evidence, shaped

from pytest_qwen.observations import Evidence
from pytest_qwen.programs import NoProgram
from pytest_qwen.reports.star_pages import star_page, star_pages, stars_section
from pytest_qwen.reports.star_rows import COLUMNS, star_properties, stars_csv
from pytest_qwen.reports.stars import scorecard_text, star_text, stars_table
from pytest_qwen.rubric import score
from pytest_qwen.scorecards import DIMENSIONS, Finding, Scorecard

SHAPED = shaped()
HALF = Finding(outcome=F, evidence="2 of 4", share=0.5, timing="12 ms")


def card(facts: dict[str, object] | None = None, **given: object) -> Scorecard:
    return score(evidence(facts, **given), SHAPED)


def cards() -> list[Scorecard]:
    limited = Finding(outcome=U, evidence="environment-limited: the guest image lacks 'foo'")
    return [
        card(),
        card({"C4": F, "D1": F, "D2": F, "P0": F, "C5": HALF}, answer="a-model-with-a-very-long-name" * 3),
        card({"C2": limited, "C4": U, "C7": U}, answer="unrated"),
        card({"C5": I, "T1": T}, answer="tampering"),
        score(hostile_evidence(), SHAPED),
    ]


@pytest.mark.parametrize(
    ("stars", "picture", "plain"),
    [
        (4, "★★★★☆ 4", "****. 4"),
        (0, "☆☆☆☆☆ 0", "..... 0"),
        (5, "★★★★★ 5", "***** 5"),
        (None, "unrated", "unrated"),
    ],
)
def test_stars_as_picture_and_number(stars: int | None, picture: str, plain: str) -> None:
    assert star_text(stars) == picture
    assert star_text(stars, unicode=False) == plain


# ---- terminal


def test_a_row_has_both_profiles_and_every_dimension() -> None:
    lines = stars_table(cards()[:2], width=120).splitlines()
    assert lines[0].split() == ["answer", "run", "read", "corr", "compl", "pract", "docs", "prod"]
    assert lines[1].split() == ["answer", "1", "★★★★★", "5", "★★★★★", "5", "5", "5", "5", "5", "5"]
    row = lines[2].split()
    assert row[1:] == ["★★☆☆☆", "2", "★★★★★", "5", "3", "5", "5", "3", "4"]
    assert lines[3].strip() == "run held down: C4 failed, its answers are wrong: overall at most 2 stars"


def test_unrated_says_so_and_why() -> None:
    text = stars_table(cards()[2:3], width=140)
    assert "unrated  unrated  ★★★★★ 5  -" in text
    assert "run unrated: only 61 % of correctness could be measured" in text


@pytest.mark.parametrize("unicode", [True, False])
@pytest.mark.parametrize("width", [40, 50, 66, 80, 120, 200])
def test_no_line_is_wider_than_the_terminal(width: int, unicode: bool) -> None:
    for text in (
        stars_table(cards(), width=width, unicode=unicode),
        *(scorecard_text(one, width=width, unicode=unicode) for one in cards()),
    ):
        assert max(map(len, text.splitlines())) <= width
        assert text.isascii() or unicode
    narrow = " ".join(stars_table(cards(), width=width, unicode=unicode).split())
    for said in ("tampering", "prod", "docs", "at most 2 stars", "environment-limited"):
        assert said in narrow


def test_no_scorecards_no_table() -> None:
    assert stars_table([], width=80) == ""
    assert stars_section([]) == ""


def test_a_whole_scorecard_has_every_check_under_its_dimension() -> None:
    text = scorecard_text(cards()[1], width=160)
    for dimension in DIMENSIONS:
        assert re.search(
            rf"^{dimension}: run [★☆]{{5}} \d, \d+ % passed of 100 % measured; read", text, re.MULTILINE
        )
    assert "FAIL (50 %) C5 title of C5 (weight 2, run only): 2 of 4 [12 ms]" in text
    assert "FAIL C4 title of C4 (gate, weight 4, run only): saw C4" in text
    assert "rubric toy/1, scenario toy, SHA-256 9a15fccb1fae, seed 7" in text
    for check in SHAPED.checks:
        assert f" {check.id} title of {check.id}" in text
    assert "INFRA ERROR C5" in scorecard_text(cards()[3], width=160)


# ---- markdown


def test_a_page_has_stars_checks_exchanges_logs_and_code() -> None:
    page = star_page(hostile_evidence(), cards()[4])
    headings = [line for line in page.splitlines() if re.match(r"#{2} ", line)]
    assert [line for line in headings if "\\x" not in line] == [
        "## Stars", "## Checks", "## Exchanges", "## Logs", "## Code",
    ]  # fmt: skip
    for dimension in DIMENSIONS:
        assert re.search(rf"^\| {dimension} \| [★☆]{{5}} \d \|", page, re.MULTILINE)
        assert f"### {dimension}" in page
    for check in SHAPED.checks:
        assert f"| {check.id} | title of {check.id} |" in page


def test_no_fence_of_a_guest_ends_ours() -> None:
    """Outside our fences there is only what we wrote: the guest's text is in cells and headings, escaped."""
    fence, outside = "", []
    for line in star_page(hostile_evidence(), cards()[4]).splitlines():
        opened = re.match(r"(`{3,})(\w*)$", line)
        if fence:
            fence = "" if line == fence else fence
        elif opened:
            fence = opened[1]
        else:
            outside.append(line)
    assert not fence
    assert not any(line.startswith(("```", "~~~")) for line in outside)
    assert not any(re.search(r"(?<!\\)<b>", line) for line in outside)


def test_a_page_without_a_program_says_why() -> None:
    none = evidence(program=NoProgram(reason="no code", detail="only <prose>"))
    page = star_page(none, score(none, SHAPED))
    assert r"No program (no code): only \<prose\>" in page
    assert "## Exchanges" not in page


def test_pages_have_names_of_their_own() -> None:
    one, other = evidence(answer="a/../b"), evidence(answer="A/../B")
    names = [name for name, _ in star_pages([(seen, score(seen, SHAPED)) for seen in (one, other, one)])]
    assert names == [
        "a-..-b__9a15fccb1fae__stars.md", "A-..-B__9a15fccb1fae__stars_2.md", "a-..-b__9a15fccb1fae__stars_3.md",
    ]  # fmt: skip


def test_the_overview_shows_every_dimension() -> None:
    lines = stars_section(cards()).splitlines()
    assert lines[0].count("|") == 10
    assert all(len(re.findall(r"(?<!\\)\|", line)) == 10 for line in lines)
    assert re.search(r"\| ★★☆☆☆ 2 \|.*at most 2 stars", lines[3])


# ---- data


def test_properties_have_every_dimension_of_both_profiles() -> None:
    found = dict(star_properties(cards()[1:2]))
    assert found["qwen.stars.run"] == 2
    assert found["qwen.stars.run.production"] == 4
    assert found["qwen.stars.read.documentation"] == 3
    assert found["qwen.rubric"] == "toy/1"
    assert found["qwen.failed"] == "C4 C5 D1 D2 P0"
    assert "qwen.unrated" not in found
    assert dict(star_properties(cards()[2:3]))["qwen.stars.run"] == "unrated"


def test_several_answers_are_numbered() -> None:
    names = [name for name, _ in star_properties(cards())]
    assert len(names) == len(set(names))
    assert "qwen.1.stars.run" in names
    assert "qwen.5.stars.read.production" in names


def test_rows_of_a_spreadsheet() -> None:
    rows = list(csv.DictReader(io.StringIO(stars_csv(cards()))))
    assert tuple(rows[0]) == COLUMNS
    assert [row["run_stars"] for row in rows[:4]] == ["5", "2", "", "0"]
    assert rows[1]["run_documentation"] == "3"
    assert rows[2]["unmeasured"] == "C2 C4 C7"
    assert rows[3]["held_down"].startswith("T1 failed, the program tampers")


# ---- guests


def everything(seen: Evidence) -> dict[str, str]:
    found = score(seen, SHAPED)
    return {
        "table": stars_table([found], width=300),
        "text": scorecard_text(found, width=300),
        "narrow": scorecard_text(found, width=40),
        "page": star_page(seen, found),
        "section": stars_section([found]),
        "csv": stars_csv([found]),
        "properties": "\n".join(f"{name} {value}" for name, value in star_properties([found])),
    }


def test_no_control_character_of_a_guest_is_ever_written() -> None:
    for name, text in everything(hostile_evidence({"undefined": "\x1b[2J"})).items():
        bad = {char for char in text if not char.isprintable() and char != "\n"}
        assert not bad, name
        text.encode("utf-8")
        if name in ("table", "text", "narrow", "properties"):
            assert not any(line.lstrip().startswith("::") for line in text.splitlines()), name
            assert "##" not in text


def test_properties_make_well_formed_xml() -> None:
    root = ET.Element("properties")
    for name, value in star_properties([score(hostile_evidence(), SHAPED)]):
        ET.SubElement(root, "property", name=name, value=str(value))
    again = ET.fromstring(ET.tostring(root, encoding="unicode"))  # noqa: S314 our own text
    assert len(again) == len(root)
