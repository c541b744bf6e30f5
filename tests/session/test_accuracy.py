"""Accuracy in whole sessions: verdicts, both sides, records judged again, and what is not there."""

import json

import pytest

from tests.session.conftest import text_of

# here already, so that the sessions inside this process do not import it again: pyarrow cannot be twice
for package in ("lm_eval.evaluator", "lm_eval.tasks", "datasets"):
    pytest.importorskip(package)

TASK = """
task: letters
dataset_path: json
dataset_kwargs: {data_files: {test: letters.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: ["A", "B"]
doc_to_target: answer
num_fewshot: 0
"""
SIDES = """
from pytest_qwen import max_accuracy_drop, min_accuracy
A, B = {"options": {"favours": " A"}}, {"options": {"favours": " B"}}
"""


@pytest.fixture
def letters(pytester):
    """A task of forty questions, all answered by A."""
    rows = [{"question": f"Question {n}", "answer": 0} for n in range(40)]
    (pytester.path / "letters.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (pytester.path / "letters.yaml").write_text(TASK)


def test_shares_and_drops_are_judged_and_judged_again_from_the_record(run, letters, tmp_path):
    source = (
        SIDES
        + """
@model(**A)
@min_accuracy(0.8)
@max_accuracy_drop(0.2, vs=B)
def test_better(accuracy):
    found = accuracy("letters.yaml")
    assert (found.value, found.n, found.of) == (1.0, 40, 40)
    assert found.interval[0] > 0.85

@model(**B)
@max_accuracy_drop(0.2, vs=A)
def test_worse(accuracy):
    accuracy("letters.yaml", limit=30)

@model(**A)
@min_accuracy(0.95)
def test_unsure(accuracy):
    accuracy("letters.yaml")
"""
    )
    folder = tmp_path / "report"
    for given in (f"--qwen-report={folder}", f"--qwen-replay={folder}"):
        result = run(source, given)
        result.assert_outcomes(passed=1, failed=2)
        text = text_of(result)
        assert "FAIL max_accuracy_drop: letters.yaml ≤ 0.2 ratio: 30 of 30 right with options=" in text
        assert "here 0: 30 lost, 0 gained" in text
        assert "NO VERDICT min_accuracy: letters.yaml ≥ 0.95 ratio: 40 of 40 right" in text
        assert "about 9" in text  # 0.01 ** (1 / 90) is 0.95


def test_the_other_side_is_loaded_once_for_all_tasks_and_after_the_own(run, letters, load_log):
    run(
        f"""
LOG = {str(load_log.path)!r}
from pytest_qwen import max_accuracy_drop
@model("own", options={{"load_log": LOG, "favours": " A"}})
@max_accuracy_drop(0.5, vs={{"id": "other"}})
def test_two(accuracy):
    accuracy("letters.yaml")
    accuracy("small-choice", limit=30)
"""
    ).assert_outcomes(passed=1)
    assert load_log() == ["own", "other"]


def test_a_body_that_evaluates_nothing_or_is_no_test_of_accuracy_is_told_so(run, letters):
    result = run(
        SIDES
        + """
@min_accuracy(0.5)
def test_nothing(accuracy): pass

@min_accuracy(0.5)
def test_without(llm): pass

@model(dtype="bfloat16")
@max_accuracy_drop(0.1, vs="bf16")
def test_same(accuracy): accuracy("letters.yaml")
"""
    )
    result.assert_outcomes(failed=1, errors=2)
    text = text_of(result)
    for said in (
        "its task was not evaluated",
        "the argument 'accuracy' is missing",
        "both sides are the same",
    ):
        assert said in text


def test_what_is_not_there_skips_before_anything_is_loaded(run, load_log, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    result = run(
        f"""
from pytest_qwen import min_accuracy
pytestmark = model(options={{"load_log": {str(load_log.path)!r}}})
@min_accuracy(0.5)
def test_data(accuracy): accuracy("mmlu", limit=2)

@min_accuracy(0.5)
def test_code(accuracy): accuracy("small-code")
""",
        "-rs",
    )
    result.assert_outcomes(skipped=2)
    assert "the data set is not there" in text_of(result)
    assert load_log() == []


def test_accuracy_and_speed_share_one_model(run, letters, load_log):
    run(
        f"""
from pytest_qwen import min_accuracy
@model(options={{"load_log": {str(load_log.path)!r}, "favours": " A"}})
@min_accuracy(0.5)
@min_tokens_per_sec(10)
def test_both(llm, accuracy):
    llm.generate("hello")
    accuracy("letters.yaml")
"""
    ).assert_outcomes(passed=1)
    assert len(load_log()) == 1
