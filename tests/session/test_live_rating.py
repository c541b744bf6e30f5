"""A model's own answer, rated in the test that made it: stars and speed on the same tokens."""

from pathlib import Path

import pytest

from pytest_qwen.errors import Unavailable
from pytest_qwen.sandbox import engines, image

from .conftest import Run

ANSWER = Path(__file__).parents[2] / "fixtures" / "answers" / "crud" / "good.md"
SOURCE = f"""
    from pathlib import Path
    from pytest_qwen import min_stars

    TEXT = Path({str(ANSWER)!r}).read_text()
    pytestmark = [model("a/model", engine="fake", options={{"text": TEXT, "itl_ms": 0.5}})]

    @min_tokens_per_sec(100)
    @min_stars(5)
    def test_good(llm, rate):
        rate(llm.generate("Write a to-do API.", output_tokens=100_000), scenario="fastapi-crud")

    @min_stars(1)
    def test_cut(llm, rate):
        rate(llm.generate("Write a to-do API.", output_tokens=120), scenario="fastapi-crud")
"""


@pytest.mark.slow
def test_stars_and_speed_of_the_same_answer(run: Run) -> None:
    try:
        image.find(engines.connect("auto"), "guest-slim")
    except Unavailable as error:
        pytest.skip(str(error).splitlines()[0])
    result = run(SOURCE, "--gpu=cpu", process=True)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*cut by the limit of 120 tokens that the test set*"])
    table = ["*PASS*min_tokens_per_sec*", "*PASS*min_stars run overall*5 stars", "*FAIL*min_stars run overall*"]
    result.stdout.fnmatch_lines(table)
