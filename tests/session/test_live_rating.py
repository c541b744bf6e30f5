"""A model's own answer, rated in the test that made it, and cut by that test."""

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

    @min_stars(1)
    def test_cut(llm, rate):
        rate(llm.generate("Write a to-do API.", output_tokens=120), scenario="fastapi-crud")
"""


@pytest.mark.slow
def test_an_answer_that_the_tests_own_limit_cut_says_so(run: Run) -> None:
    try:
        image.find(engines.connect("auto"), "guest-slim")
    except Unavailable as error:
        pytest.skip(str(error).splitlines()[0])
    result = run(SOURCE, "--gpu=cpu", process=True)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*cut by the limit of 120 tokens that the test set*"])
