"""Recorded ratings judged again: outcomes, texts, exit codes and files, without any engine."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_qwen.data import fixtures_dir
from pytest_qwen.extraction import extract
from pytest_qwen.observations import Evidence
from pytest_qwen.quality_records import evidence_from_json, evidence_to_json, scorecard_to_json
from pytest_qwen.rating import digest_of, rescore
from pytest_qwen.records import RUN_NAME, RUN_VERSION, RunRecord, to_json

from .conftest import Run, text_of

WORKERS = pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "xdist"])
# What the sandbox saw of fixtures/answers/crud/mediocre.md: it works, and lacks documentation.
SEEN = Path(__file__).parents[1] / "data" / "evidence_crud_mediocre.json"
ANSWER = fixtures_dir() / "answers" / "crud" / "mediocre.md"
EMPTY = b"I cannot help with that."

Record = Callable[[dict[str, Sequence[Evidence]]], None]


def mediocre(**given: Any) -> Evidence:
    seen = evidence_from_json(json.loads(SEEN.read_text(encoding="utf-8")))
    return replace(seen, **{"answer_sha256": digest_of(ANSWER.read_bytes()), "answer": "mediocre", **given})


def broken() -> Evidence:
    """The same answer, had our own sandbox broken down before the program was started."""
    why = "the engine closed the connection while starting a guest"
    return mediocre(servers={}, exchanges={}, infra_errors=(why,))


def refusal() -> Evidence:
    """An answer without a program, which is never run."""
    return Evidence(
        scenario="fastapi-crud",
        answer="refusal",
        answer_sha256=digest_of(EMPTY),
        program=extract(EMPTY),
    )


@pytest.fixture
def recorded(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Record:
    """`recorded({"test_it": [evidence]})` writes the folder `rec` as a run of the next test file would."""
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere.sock")
    (pytester.path / "answers").mkdir()
    (pytester.path / "answers" / "mediocre.md").write_bytes(ANSWER.read_bytes())
    (pytester.path / "answers" / "refusal.md").write_bytes(EMPTY)

    def write(tests: dict[str, Sequence[Evidence]]) -> None:
        records = [
            to_json(
                RunRecord(
                    nodeid=f"{pytester.path.name.rstrip('0123456789')}.py::{name}",
                    outcome="passed",
                    started="2026-01-01T00:00:00+00:00",
                    rated=tuple(
                        {
                            "evidence": evidence_to_json(one),
                            "scorecard": scorecard_to_json(rescore(one).scorecard),
                        }
                        for one in seen
                    ),
                )
            )
            for name, seen in tests.items()
        ]
        folder = pytester.path / "rec"
        folder.mkdir(exist_ok=True)
        (folder / RUN_NAME).write_text(json.dumps({"version": RUN_VERSION, "records": records}))

    return write


HEAD = """
from pytest_qwen import answer, min_pass_at_k, min_stars
pytestmark = answer("answers/mediocre.md", scenario="fastapi-crud")
"""


def properties(path: Path) -> dict[str | None, dict[str | None, str | None]]:
    cases = ET.parse(path).getroot().iter("testcase")  # noqa: S314 - our own file
    return {c.get("name"): {p.get("name"): p.get("value") for p in c.iter("property")} for c in cases}


THREE = f"""{HEAD}
@min_stars(4)
def test_pass(rate):
    assert rate().stars == 4

@min_stars(5, documentation=3)
def test_fail(rate):
    rate()

@min_stars(1)
def test_unrated(rate):
    assert rate().stars is None
"""
THREE_SEEN = {"test_pass": [mediocre()], "test_fail": [mediocre()], "test_unrated": [broken()]}


@WORKERS
def test_the_three_outcomes_without_an_engine(
    run: Run, recorded: Record, pytester: pytest.Pytester, workers: tuple[str, ...]
) -> None:
    recorded(THREE_SEEN)
    result = run(THREE, "--qwen-replay=rec", "--junitxml=junit.xml", "--qwen-report=again", *workers)
    result.assert_outcomes(passed=1, failed=2)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    text = text_of(result)
    assert "min_stars: run overall ≥ 5 stars: 4 stars" in text
    assert "min_stars: run documentation ≥ 3 stars: 1 star" in text
    assert "min_stars: run overall ≥ 1 star: NO VERDICT: mediocre is unrated: " in text
    assert "1 PASS, 2 FAIL, 1 NO VERDICT" in text
    assert "qwen: stars" in text

    found = properties(pytester.path / "junit.xml")
    assert found["test_pass"]["qwen.stars.run"] == "4"
    assert found["test_pass"]["qwen.stars.run.documentation"] == "1"
    assert found["test_pass"]["qwen.scenario"] == "fastapi-crud"
    assert found["test_pass"]["qwen.min_stars.run.overall.verdict"] == "PASS"
    assert found["test_unrated"]["qwen.stars.run"] == "unrated"
    assert found["test_unrated"]["qwen.min_stars.run.overall.verdict"] == "NO VERDICT"

    again = run(THREE, "--qwen-replay=again", *workers)  # what a replay records can be judged again
    again.assert_outcomes(passed=1, failed=2)


def test_verdicts_of_two_ratings_have_their_own_properties(
    run: Run, recorded: Record, pytester: pytest.Pytester
) -> None:
    recorded({"test_it": [mediocre()]})
    source = f"{HEAD}\n@min_stars(3, documentation=3)\ndef test_it(rate): rate()"
    run(source, "--qwen-replay=rec", "--junitxml=junit.xml").assert_outcomes(failed=1)
    found = properties(pytester.path / "junit.xml")["test_it"]
    verdicts = {name: value for name, value in found.items() if name and name.endswith(".verdict")}
    assert verdicts == {
        "qwen.min_stars.run.overall.verdict": "PASS",
        "qwen.min_stars.run.documentation.verdict": "FAIL",
    }


def test_the_failure_names_the_heaviest_checks_first_and_the_cheapest_way(run: Run, recorded: Record) -> None:
    recorded({"test_it": [mediocre()]})
    result = run(f"{HEAD}\n@min_stars(5)\ndef test_it(rate): rate()", "--qwen-replay=rec")
    result.assert_outcomes(failed=1)
    text = text_of(result)
    body = text[text.index("failed, heaviest first") :]
    weights = [float(part.split(")")[0]) for part in body.split("cheapest:")[0].split("weight ")[1:]]
    assert len(weights) > 3
    assert weights == sorted(weights, reverse=True)
    assert "no docstring" in body
    assert "cheapest: +" in body
    assert "→ 5 stars" in body


def test_no_verdict_can_skip_but_never_passes(run: Run, recorded: Record) -> None:
    recorded(THREE_SEEN)
    result = run(THREE, "--qwen-replay=rec", "--qwen-no-verdict=skip", "-rs")
    result.assert_outcomes(passed=1, failed=1, skipped=1)
    assert "NO VERDICT: mediocre is unrated" in text_of(result)


@pytest.mark.parametrize(("least", "code"), [(3, 0), (4, 0), (5, 1)])
def test_other_bounds_on_the_same_records(run: Run, recorded: Record, least: int, code: int) -> None:
    recorded({"test_it": [mediocre()]})
    result = run(f"{HEAD}\n@min_stars({least})\ndef test_it(rate): rate()", "--qwen-replay=rec")
    assert result.ret == code


def test_an_answer_without_a_program_has_no_stars_and_is_not_unrated(run: Run, recorded: Record) -> None:
    recorded({"test_it": [refusal()]})
    source = f"{HEAD}\n@answer('answers/refusal.md')\n@min_stars(1)\ndef test_it(rate): rate()"
    result = run(source, "--qwen-replay=rec")
    result.assert_outcomes(failed=1)
    text = text_of(result)
    assert "min_stars: run overall ≥ 1 star: 0 stars" in text
    assert "NO VERDICT" not in text.replace("0 NO VERDICT", "")


@WORKERS
def test_pass_at_k_of_recorded_samples(run: Run, recorded: Record, workers: tuple[str, ...]) -> None:
    samples = [mediocre(), refusal(), refusal(), broken()]
    recorded({"test_met": samples, "test_missed": samples, "test_open": samples})
    body = """
    m, r = pathlib.Path("answers/mediocre.md"), pathlib.Path("answers/refusal.md")
    rate.all([m, r]); rate.all([r, m])
    """
    source = "import pathlib\n" + HEAD
    for name, limit in (("met", 0.25), ("missed", 0.6), ("open", 0.4)):
        source += f"\n@min_pass_at_k({limit})\ndef test_{name}(rate):{body}\n"
    result = run(source, "--qwen-replay=rec", *workers)
    result.assert_outcomes(passed=1, failed=2)
    text = text_of(result)
    assert "min_pass_at_k: pass@1 ≥ 0.6 ratio: 1 of 4 samples have 4 stars or more: pass@1 = 0.25" in text
    assert "NO VERDICT: 1 of 4 samples have 4 stars or more: pass@1 = 0.25, up to 0.5" in text


# ---- misuse of the fixture


@WORKERS
def test_misuse_of_rate(run: Run, recorded: Record, workers: tuple[str, ...]) -> None:
    cases = {
        "rate(123)": ["rate() takes an answer", "rate(int)", "rate(llm.generate(PROMPT))"],
        "rate(['a'])": ["rate(list)"],
        "rate(rate)": ["rate(Rate)"],
        "rate(pathlib.Path('answers/medicore.md'))": ["cannot be read", "did you mean 'mediocre.md'?"],
        "rate(pathlib.Path('answer/mediocre.md'))": ["the path counts from the folder of the test's file"],
        "rate(pathlib.Path('answers'))": ["Is a directory"],
        "rate('x', scenario='fastapi-curd')": ["no scenario 'fastapi-curd'", "did you mean 'fastapi-crud'?"],
        "rate('another answer')": ["this answer is not in the records that are judged again"],
        "rate(); rate()": ["1 rated answer(s) of this test, 0 not yet judged again"],
        "pass": ["too few answers were rated", "0 rated answer(s), at least 1 needed"],
        "rate.all([])": ["the test body lacks a call"],
    }
    recorded({f"test_{n}": [mediocre()] for n in range(len(cases))} | {"test_few": [mediocre()]})
    tests = [f"@min_stars(1)\ndef test_{n}(rate): {body}" for n, body in enumerate(cases)]
    few = "@min_pass_at_k(0.5, k=3)\ndef test_few(rate): rate()"
    result = run("\n".join(["import pathlib", HEAD, *tests, few]), "--qwen-replay=rec", *workers)
    result.assert_outcomes(failed=len(cases) + 1)
    text = text_of(result)
    for body, messages in cases.items():
        for message in messages:
            assert message in text, body
    assert "min_pass_at_k: pass@3 ≥ 0.5 ratio" in text
    assert "1 rated answer(s), at least 3 needed" in text


def test_rate_without_an_answer_and_without_a_mark(run: Run, recorded: Record) -> None:
    recorded({"test_it": [mediocre()]})
    result = run("def test_it(rate): rate()", "--qwen-replay=rec")
    result.assert_outcomes(failed=1)
    text = text_of(result)
    assert "rate() without an answer rates the recorded one, and the test has none" in text
    assert "the mark is missing: @answer('answers/one.md')" in text


def test_an_edited_answer_is_not_the_one_that_was_recorded(
    run: Run, recorded: Record, pytester: pytest.Pytester
) -> None:
    recorded({"test_it": [mediocre()]})
    file = pytester.path / "answers" / "mediocre.md"
    file.write_bytes(file.read_bytes() + b"\n")
    result = run(f"{HEAD}\n@min_stars(1)\ndef test_it(rate): rate()", "--qwen-replay=rec")
    result.assert_outcomes(failed=1)
    assert "the answer or the test was changed" in text_of(result)


def test_answers_are_found_again_in_another_order(run: Run, recorded: Record) -> None:
    recorded({"test_it": [mediocre(), refusal()]})
    body = "assert [rate(pathlib.Path(f'answers/{n}.md')).stars for n in ('refusal', 'mediocre')] == [0, 4]"
    run(f"import pathlib\n{HEAD}\ndef test_it(rate): {body}", "--qwen-replay=rec").assert_outcomes(passed=1)


def test_a_failure_of_the_tests_own_comes_before_the_stars(run: Run, recorded: Record) -> None:
    recorded({"test_it": [mediocre()]})
    source = f"{HEAD}\n@min_stars(5)\ndef test_it(rate): assert rate().rating('read').stars['practices'] > 5"
    result = run(source, "--qwen-replay=rec")
    result.assert_outcomes(failed=1)
    text = text_of(result)
    assert "rating('read').stars['practices'] > 5" in text
    assert "heaviest first" not in text
