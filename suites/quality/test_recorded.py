"""Recorded answers, run again: what a model really wrote, and the harness's own best."""

import json

import pytest

from pytest_qwen import answer, min_stars
from pytest_qwen.data import fixtures_dir

ANSWERS = fixtures_dir() / "answers"
# The stars that each answer had when it was last looked at by a person; see `docs/results`.
STARS = json.loads((ANSWERS / "stars.json").read_text(encoding="utf-8"))
RECORDED = sorted(name for name in STARS if name.startswith("recorded/"))


@pytest.mark.parametrize("name", RECORDED)
def test_a_recorded_answer_keeps_its_stars(rate, name):
    """The same answer gets the same stars, in every dimension and both profiles."""
    card = rate(ANSWERS / name)
    found = {profile: {"overall": one.overall, **one.stars} for profile, one in card.ratings.items()}
    assert found == STARS[name]


@answer(str(ANSWERS / "reference" / "good.md"))
@min_stars(5, correctness=5, completeness=5, practices=5, documentation=5, production=5)
def test_the_best_that_is_known(rate):
    """The reference passes every check: five stars are within reach."""
    rate()


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("good", marks=[answer(str(ANSWERS / "crud" / "good.md")), min_stars(5)]),
        pytest.param("mediocre", marks=[answer(str(ANSWERS / "crud" / "mediocre.md")), min_stars(3)]),
    ],
)
@answer(scenario="fastapi-crud")
def test_a_program_without_any_model(rate, name):
    """Another kind of program: a to-do API, with a rubric of its own."""
    rate()
