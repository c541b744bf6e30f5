"""Answers rated on a real engine, from the mark to the verdict, and answers that are none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pytest_qwen.data import fixtures_dir
from pytest_qwen.errors import Unavailable
from pytest_qwen.quality_records import fingerprint, rated_of
from pytest_qwen.records import load_records

from .conftest import Run, text_of

pytestmark = pytest.mark.slow
WORKERS = pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "xdist"])
CRUD = fixtures_dir() / "answers" / "crud"
HEAD = """
import pathlib
from pytest_qwen import answer, min_pass_at_k, min_stars
pytestmark = answer(scenario="fastapi-crud")
"""


@pytest.fixture(scope="module", autouse=True)
def _engine() -> None:
    pytest.importorskip("docker", reason="needs the Docker SDK")
    from pytest_qwen.sandbox import engines, image

    try:
        client = engines.connect()
        image.find(client, "guest-slim")
        client.close()
    except Unavailable as error:
        pytest.skip(str(error).splitlines()[0] + " (`make test` starts one where it can)")


@pytest.fixture(autouse=True)
def _answers(pytester: pytest.Pytester) -> None:
    for name in ("good", "mediocre"):
        shutil.copy(CRUD / f"{name}.md", pytester.path)


BOUNDS = f"""{HEAD}
@answer("good.md")
@min_stars(5, documentation=5)
def test_good(rate):
    card = rate()
    assert card.rating("read").overall == 5

@answer("mediocre.md")
@min_stars(4)
def test_mediocre(rate):
    rate()

@answer("mediocre.md")
@min_stars(5, documentation=5)
def test_too_much_asked(rate):
    rate()
"""


@WORKERS
def test_stars_of_answers_and_the_same_again_without_an_engine(
    run: Run, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, workers: tuple[str, ...]
) -> None:
    result = run(BOUNDS, "--qwen-report=out", *workers, process=True)
    result.assert_outcomes(passed=2, failed=1)
    text = text_of(result)
    assert "min_stars: run overall ≥ 5 stars: 4 stars" in text
    assert "min_stars: run documentation ≥ 5 stars: 1 star" in text
    assert "failed, heaviest first:" in text
    assert text.count("checking the sandbox") <= 1

    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere.sock")
    again = run(BOUNDS, "--qwen-replay=out", "--qwen-report=again", *workers, process=True)
    again.assert_outcomes(passed=2, failed=1)
    cards = [
        {
            record.nodeid: [fingerprint(card) for _, card in rated_of(record)]
            for record in load_records(pytester.path / folder)
        }
        for folder in ("out", "again")
    ]
    assert cards[0] == cards[1]
    assert len(cards[0]) == 3


# What is no program: how it is made, the words of its failure.
NOTHING = {
    "''": "no program (empty)",
    "' \\n\\t' * 1000": "no program (empty)",
    "b''": "no program (empty)",
    "'I cannot help with that.'": "no program (no code)",
    "'```' * 100_000": "no program (no code)",
    "bytes(range(256)) * 4096": "no program (not text)",
    "'\\ud800```python\\n\\ud800\\n```'": "no program (not text)",
    "'x = 1\\n' * (40 * 2**20 // 6)": "no program (too large)",
    "'```python\\nx = 1\\n```\\n' * 5000": "no program (too many fences)",
    "'```python\\nprint(1)\\n```'": "no program (no entry)",
    "'```python\\napp = FastAPI()\\ndef broken(:\\n```'": "main.py:2",
}


def test_what_is_no_program_has_no_stars_and_the_reason_is_said(run: Run, pytester: pytest.Pytester) -> None:
    tests = [
        f"@min_stars(1)\ndef test_{n}(rate):\n    assert rate({made}).stars == 0"
        for n, made in enumerate(NOTHING)
    ]
    result = run("\n".join([HEAD, *tests]), "--qwen-report=out", process=True)
    result.assert_outcomes(failed=len(NOTHING))
    # by line: where CI is set, pytest's closing summary repeats the texts
    lines = text_of(result).splitlines()
    assert lines.count("min_stars: run overall ≥ 1 star: 0 stars") == len(NOTHING)
    for record, (made, wanted) in zip(load_records(pytester.path / "out"), NOTHING.items(), strict=True):
        (verdict,) = record.verdicts
        assert verdict.estimate == 0.0
        assert wanted in verdict.explanation, made
        assert "held down: " in verdict.explanation, made


def test_the_answer_of_a_model_is_rated_beside_its_speed(run: Run) -> None:
    text = (CRUD / "mediocre.md").read_text(encoding="utf-8")
    source = f"""{HEAD}
TEXT = {json.dumps(text)}

@model("m", options={{"text": TEXT, "itl_ms": 1.0}})
@min_tokens_per_sec(30)
@min_stars(4)
def test_it(llm, rate):
    made = llm.generate("Write", output_tokens=100_000)
    assert rate(made).stars == 4
"""
    result = run(source, process=True)
    result.assert_outcomes(passed=1)
    assert "2 PASS, 0 FAIL" in text_of(result)


@WORKERS
def test_samples_are_rated_side_by_side(run: Run, workers: tuple[str, ...]) -> None:
    body = "rate.all([pathlib.Path('good.md'), 'nothing', pathlib.Path('mediocre.md'), ''])"
    source = f"""{HEAD}
@min_pass_at_k(0.5, k=1, stars=4)
def test_met(rate):
    assert [card.stars for card in {body}] == [5, 0, 4, 0]

@min_pass_at_k(0.5, k=1, stars=5)
def test_missed(rate):
    {body}
"""
    result = run(source, *workers, process=True)
    result.assert_outcomes(passed=1, failed=1)
    text = text_of(result)
    assert "min_pass_at_k: pass@1 ≥ 0.5 ratio: 1 of 4 samples have 5 stars or more: pass@1 = 0.25" in text


def test_nothing_is_left_of_a_session(run: Run, pytester: pytest.Pytester, tmp_path: Path) -> None:
    from pytest_qwen.locks import runtime_directory

    run(f"{HEAD}\ndef test_it(rate): rate('')", process=True).assert_outcomes(passed=1)
    assert not list(runtime_directory().glob("session-*"))
