"""lm-evaluation-harness over an engine of ours: its tasks, its grading, offline, and no model's code run."""

import json
import os
import runpy
import sys
from pathlib import Path

import pytest

pytest.importorskip("lm_eval")

from pytest_qwen.data import fixtures_dir
from pytest_qwen.engines.base import LoadSpec
from pytest_qwen.engines.fake import FakeEngine
from pytest_qwen.errors import Misuse, Unavailable
from pytest_qwen.harness import OWN, Asked, Tasks

OURS = fixtures_dir() / "accuracy"


def engine(**programme: str) -> FakeEngine:
    made = FakeEngine()
    made.load(LoadSpec(engine="fake", model="fake", options=tuple(sorted(programme.items()))))
    return made


def rows(name: str) -> list[dict]:
    return [json.loads(line) for line in (OURS / f"{name}.jsonl").read_text("utf-8").splitlines()]


def task_file(folder: Path, text: str, data: list[dict], **more: list[dict]) -> str:
    """A task's file with its data beside it, named relative to it."""
    files = {"test": "data.jsonl"} | {split: f"{split}.jsonl" for split in more}
    for split, name in files.items():
        lines = data if split == "test" else more[split]
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in lines))
    kwargs = json.dumps({"data_files": files})
    (folder / "task.yaml").write_text(
        f"{text}\ndataset_path: json\ndataset_name: null\ndataset_kwargs: {kwargs}\n"
    )
    return "task.yaml"


def shipped(name: str) -> Path:
    """A file of the harness's own."""
    return Path(sys.modules["lm_eval"].__file__).parent / "tasks" / name


def test_the_questions_that_come_along_are_what_their_rules_give():
    made = runpy.run_path(str(OURS / "make.py"))
    for name, make in made["FILES"].items():
        assert (OURS / name).read_text("utf-8") == made["lines"](make())


def test_every_right_choice_is_there_once_and_each_letter_is_right_equally_often():
    questions = rows("small-choice")
    assert all(len(set(row["choices"])) == 4 for row in questions)
    assert [sum(row["answer"] == letter for row in questions) for letter in range(4)] == [15] * 4


def test_choices_are_graded_by_what_the_engine_holds_likeliest():
    samples = Tasks(Asked(task="small-choice")).ask(engine(favours=" C"), None)
    assert [sample.right for sample in samples] == [row["answer"] == 2 for row in rows("small-choice")]
    assert {sample.metric for sample in samples} == {"acc,none"}


def test_generated_answers_are_cut_filtered_and_compared_by_the_harness():
    answer = rows("small-exact")[3]["answer"]
    samples = Tasks(Asked(task="small-exact")).ask(engine(text=f" 7, no: {answer}.\nQuestion: 9"), None)
    assert [sample.right for sample in samples] == [row["answer"] == answer for row in rows("small-exact")]
    assert samples[3].answer == answer


def test_programs_are_given_with_their_tests_and_not_run(tmp_path):
    trace = tmp_path / "ran"
    text = f"    open({str(trace)!r}, 'w')\n    return a + b\n\ndef other(): pass\n"
    tasks = Tasks(Asked(task="small-code", limit=1, seed=3))
    (sample,) = tasks.ask(engine(text=text), None)
    problem = rows("small-code")[sample.number]
    assert tasks.runs_code
    assert sample.right is None
    assert sample.program == f"{problem['prompt']}{text.partition(chr(10) + chr(10))[0]}\n\n{problem['test']}"
    assert not trace.exists()


def test_a_limit_draws_the_same_questions_each_time_and_others_for_another_seed():
    def numbers(seed: int) -> list[int]:
        found = Tasks(Asked(task="small-choice", limit=7, seed=seed)).ask(engine(), None)
        return [sample.number for sample in found]

    assert numbers(1) == numbers(1) == sorted(set(numbers(1)))
    assert len(numbers(1)) == 7
    assert numbers(1) != numbers(2)


def test_both_sides_are_asked_the_same_questions_in_the_same_words(tmp_path):
    file = task_file(
        tmp_path,
        f"include: {shipped('gsm8k/gsm8k.yaml')}\ntask: gsm8k-here",
        [{"question": f"Q{n}?", "answer": f"so\n#### {n}"} for n in range(9)],
        train=[{"question": f"E{n}?", "answer": f"it is\n#### {n}"} for n in range(30)],
    )
    prompts: list[list[str]] = []

    class Listening(FakeEngine):
        def run(self, request, on_token=None):
            prompts[-1].append(request.prompt)
            return super().run(request, on_token)

    tasks = Tasks(Asked(task=file, folder=tmp_path, limit=4))
    answers = []
    for _ in range(2):
        prompts.append([])
        listening = Listening()
        listening.load(LoadSpec(engine="fake", model="fake", options=(("text", "clear\n#### 5"),)))
        answers.append(tasks.ask(listening, None))
    assert prompts[0] == prompts[1]
    assert answers[0] == answers[1]
    assert all(prompt.count("Question: E") == 5 for prompt in prompts[0])  # the task's own five examples


def test_gsm8k_of_the_harness_is_graded_on_local_data_by_either_filter(tmp_path):
    file = task_file(
        tmp_path,
        f"include: {shipped('gsm8k/gsm8k.yaml')}\ntask: gsm8k-here\nfewshot_split: test",
        [{"question": "How many?", "answer": "2 + 3 = 5\n#### 5"}, {"question": "And?", "answer": "#### 6"}],
    )
    for metric, text, rights in (
        (None, " 5 is it\n#### 5", [True, False]),
        (None, " it is 5", [False, False]),
        ("exact_match,flexible-extract", " it is 5", [True, False]),
    ):
        asked = Asked(task=file, folder=tmp_path, shots=0, metric=metric)
        found = Tasks(asked).ask(engine(text=text), None)
        assert [sample.right for sample in found] == rights


def test_humaneval_of_the_harness_gives_programs_without_its_code_being_run(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ALLOW_CODE_EVAL", "1")
    problem = {
        "task_id": "HumanEval/0",
        "prompt": "def twice(n):\n",
        "test": "def check(candidate):\n    assert candidate(2) == 4\n",
        "entry_point": "twice",
    }
    file = task_file(
        tmp_path, f"include: {shipped('humaneval/humaneval.yaml')}\ntask: humaneval-here", [problem]
    )
    tasks = Tasks(Asked(task=file, folder=tmp_path))
    (sample,) = tasks.ask(engine(text="    return 2 * n\n\ndef more(): pass"), None)
    assert tasks.runs_code
    assert sample.right is None
    space: dict = {}
    exec(sample.program, space)  # noqa: S102 - written above
    assert "more" not in space
    assert os.environ["HF_ALLOW_CODE_EVAL"] == "1"


def test_mmlu_of_the_harness_scores_letters_on_local_data(tmp_path):
    rows = [{"question": f"Q{n}", "choices": ["w", "x", "y", "z"], "answer": n % 4} for n in range(8)]
    text = f"include: {shipped('mmlu/default/_default_template_yaml')}\ntask: mmlu-here\nfewshot_split: test"
    file = task_file(tmp_path, text, rows)
    found = Tasks(Asked(task=file, folder=tmp_path, shots=0)).ask(engine(favours=" B"), None)
    assert [sample.right for sample in found] == [n % 4 == 1 for n in range(8)]


@pytest.fixture
def no_hub(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.mark.parametrize("task", ["mmlu", "gsm8k", "ceval", "humaneval", "mbpp"])
def test_a_data_set_that_is_not_there_is_one_message(task, no_hub):
    with pytest.raises(Unavailable, match="the data set is not there") as caught:
        Tasks(Asked(task=task))
    for part in (f"accuracy({task!r})", "HF_HUB_OFFLINE=0", "dataset_kwargs", *OWN):
        assert part in str(caught.value)


def test_a_data_file_that_is_not_there_is_named(tmp_path, no_hub):
    text = (OURS / "small-choice.yaml").read_text("utf-8").replace("small-choice.jsonl", "gone.jsonl")
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(Unavailable, match=r"gone\.jsonl") as caught:
        Tasks(Asked(task="mine.yaml", folder=tmp_path))
    assert "HF_HUB_OFFLINE" not in str(caught.value)  # no download would bring it


@pytest.mark.parametrize(
    ("old", "new", "slip"),
    [
        ("test_split: test", "test_split: tset", "a split or a figure that does not exist"),
        ("{{question}}", "{{qestion}}", "a field that the data does not have"),
        ("small-exact.jsonl", "empty.jsonl", "a data file is empty"),
        ("small-exact.jsonl", "broken.jsonl", "JSON parse error"),
    ],
)
def test_what_is_wrong_in_a_tasks_file_is_said(tmp_path, old, new, slip, no_hub):
    text = (OURS / "small-exact.yaml").read_text("utf-8")
    assert old in text
    for name, content in (("empty", ""), ("broken", '{"question": '), ("small-exact", None)):
        kept = (OURS / "small-exact.jsonl").read_text("utf-8") if content is None else content
        (tmp_path / f"{name}.jsonl").write_text(kept)
    (tmp_path / "mine.yaml").write_text(text.replace(old, new))
    with pytest.raises(Misuse, match=slip) as caught:
        Tasks(Asked(task="mine.yaml", folder=tmp_path))
    assert "--tasks mine.yaml" in str(caught.value)


def test_more_shots_than_there_are_examples_are_refused():
    with pytest.raises(Misuse, match=r"too few examples[^$]*shots=20\n  found: 20 examples"):
        Tasks(Asked(task="small-exact", limit=1, shots=20))
    assert Tasks(Asked(task="small-exact", limit=1, shots=19)).ask(engine(), None)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("gone.yaml", None, "cannot be read"),
        ("bad.yaml", "task: [unclosed", "cannot be read"),
        ("list.yaml", "- task", "cannot be read"),
        ("none.yaml", "task: x\ndataset_path: json\n", "does not say where its data is"),
    ],
)
def test_a_file_that_is_no_task_is_the_users(tmp_path, name, text, message, no_hub):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(Misuse, match=message):
        Tasks(Asked(task=name, folder=tmp_path))


def test_figures_and_filters_that_a_task_has_not_are_named():
    for metric, found in (("f1", "acc"), ("acc,strict", "none")):
        with pytest.raises(Misuse, match=found):
            Tasks(Asked(task="small-choice", limit=2, metric=metric)).ask(engine(), None)


def test_a_task_that_samples_is_refused(tmp_path):
    text = (
        (OURS / "small-exact.yaml")
        .read_text("utf-8")
        .replace("do_sample: false", "do_sample: true\n  temperature: 0.7")
    )
    (tmp_path / "mine.yaml").write_text(text.replace("small-exact.jsonl", str(OURS / "small-exact.jsonl")))
    with pytest.raises(Misuse, match="samples its answers"):
        Tasks(Asked(task="mine.yaml", folder=tmp_path)).ask(engine(), None)


def test_a_task_that_would_execute_answers_itself_is_stopped(tmp_path):
    text = (OURS / "small-code.yaml").read_text("utf-8")
    text = text.replace("unsafe_code: true\n", "").replace(
        "metric: bypass", "metric: !function runs.graded\n    aggregation: mean"
    )
    text = text.replace("small-code.jsonl", str(OURS / "small-code.jsonl"))
    text = text.replace("completion.with_prompt", "runs.whole")
    (tmp_path / "mine.yaml").write_text(text)
    (tmp_path / "runs.py").write_text(
        "import evaluate\nwhole = lambda resps, docs: resps\n"
        "def graded(references, predictions):\n"
        "    return evaluate.load('code_eval').compute(references=references, predictions=predictions)[0]\n"
    )
    with pytest.raises(Misuse, match="unsafe_code: true"):
        Tasks(Asked(task="mine.yaml", folder=tmp_path)).ask(engine(), None)
