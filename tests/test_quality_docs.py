"""The page on quality has the rubrics as they are, and the agreement as it was measured."""

import hashlib
import json
import re
from pathlib import Path

import pytest

from pytest_qwen.agreement import read_ratings
from pytest_qwen.rubric import CheckSpec
from pytest_qwen.scenarios import SCENARIOS
from pytest_qwen.scorecards import DIMENSIONS

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "quality.md").read_text("utf-8")
ANSWERS = ROOT / "fixtures" / "answers"


def row(spec: CheckSpec) -> str:
    seen = "while it runs" if spec.runs and not spec.read else "both" if spec.read else "in its text"
    weight = "gate" if spec.gate and not spec.weight else f"{spec.weight:g}{', gate' if spec.gate else ''}"
    return f"| {spec.id} | {spec.title} | {weight} | {seen} |"


def table() -> str:
    """What the page has to say of the first rubric."""
    lines = []
    for dimension in DIMENSIONS:
        rows = [row(spec) for spec in SCENARIOS["fastapi-vit"]().rubric.checks if spec.dimension == dimension]
        rows = [one for one in rows if "| T1 |" not in one]
        lines += [f"| **{dimension}** | | | |", *rows]
    return "\n".join(["| check | what holds | weight | seen |", "| --- | --- | --- | --- |", *lines])


def test_the_page_has_every_check_of_the_rubric() -> None:
    assert table() in PAGE


def test_the_page_has_the_agreement_that_the_data_have() -> None:
    stars = json.loads((ANSWERS / "stars.json").read_text("utf-8"))
    for rating in read_ratings((ANSWERS / "ratings.csv").read_text("utf-8")):
        name = rating.sample.partition("/")[2].removesuffix(".md")
        ours = stars[rating.sample]
        assert f"| {name} | {rating.stars} | {ours['run']['overall']} | {ours['read']['overall']} |" in PAGE


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_names_its_version_and_has_what_it_needs(name: str) -> None:
    scenario = SCENARIOS[name]()
    assert re.fullmatch(r"qwen-[a-z-]+/\d+", scenario.rubric.name)
    assert scenario.good.is_file()
    assert scenario.bad.is_file()
    assert len(scenario.prompt.split()) > 10
    assert f"`{scenario.rubric.name}`" in PAGE


@pytest.mark.parametrize("kind", ["recorded", "reconstructed"])
def test_answers_are_byte_for_byte_what_their_index_says(kind: str) -> None:
    for one in json.loads((ANSWERS / kind / "index.json").read_text("utf-8"))["answers"]:
        content = (ANSWERS / kind / one["file"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == one["sha256"], one["file"]
