"""The `accuracy` fixture's parts: programs pass by an exit status of their own, records are judged again."""

from pathlib import Path

import pytest

from pytest_qwen.accuracy import Accuracy, RecordedGrading, check_sides, run_program
from pytest_qwen.ask import read_marks
from pytest_qwen.bounds import Bound
from pytest_qwen.correctness import Graded, Item
from pytest_qwen.engines.base import LoadSpec
from pytest_qwen.errors import Misuse
from pytest_qwen.harness import Asked
from pytest_qwen.sandbox.base import Job, Output


class Runs:
    """A sandbox whose programs end as `ends` says; "own" is the status that their last line names."""

    def __init__(self, ends: int | str) -> None:
        self._ends = ends
        self.jobs: list[Job] = []

    def run(self, job: Job, **_: object) -> Output:
        self.jobs.append(job)
        last = job.files["program.py"].decode().strip().splitlines()[-1]
        status = int(last.removeprefix("_os._exit(").removesuffix(")")) if self._ends == "own" else self._ends
        return Output(exit_code=int(status), stdout=b"", stderr=b"")


@pytest.mark.parametrize(("ends", "passed"), [("own", True), (0, False), (1, False), (137, False)])
def test_a_program_passes_by_reaching_its_end_and_by_nothing_else(ends, passed):
    sandbox = Runs(ends)
    assert run_program(sandbox, "assert 1 + 1 == 2") is passed
    (job,) = sandbox.jobs
    assert job.files["program.py"].startswith(b"assert 1 + 1 == 2\n")


def test_the_status_of_a_program_cannot_be_known_beforehand():
    sandbox = Runs("own")
    for _ in range(20):
        assert run_program(sandbox, "pass")
    assert len({job.files["program.py"] for job in sandbox.jobs}) > 5


def graded(task: str, side: str = "", **asked: object) -> Graded:
    facts = {"task": task, "limit": None, "shots": None, "metric": None, "seed": 0} | asked
    items = (Item(task=task, number=0, digest="d", right=not side),)
    return Graded(task=task, metric="acc", of=1, items=items, asked=facts, side=side)


def test_a_record_gives_what_was_asked_in_the_same_way_and_nothing_else():
    recorded = [graded("a"), graded("a", limit=5), graded("a", side="bf16")]
    grading = RecordedGrading("t.py::test", recorded, lambda: None)
    assert grading.own(Asked(task="a", limit=5)) == recorded[1]
    assert grading.other(Asked(task="a"), "bf16") == recorded[2]
    with pytest.raises(Misuse, match="not in the records"):
        grading.own(Asked(task="a", limit=6))


@pytest.mark.parametrize("given", [{"limit": 0}, {"limit": 2.5}, {"limit": True}, {"shots": -1}])
def test_numbers_that_make_no_sense_are_refused(given):
    accuracy = Accuracy(RecordedGrading("t", [], lambda: None), Path(), alpha=0.01)
    with pytest.raises(Misuse, match="whole number"):
        accuracy("a", **given)


def test_a_bound_on_a_task_that_was_not_evaluated_is_misuse():
    accuracy = Accuracy(RecordedGrading("t", [graded("a")], lambda: None), Path(), alpha=0.01)
    accuracy("a")
    bound = Bound(
        marker="min_accuracy", metric="b", direction="at least", limit=0.5, unit="", judged="counted"
    )
    with pytest.raises(Misuse, match="'b', limit=200"):
        accuracy.settle([bound])


def spec(**given: object) -> LoadSpec:
    return LoadSpec(engine="fake", model="m", **given)


@pytest.mark.parametrize(
    ("vs", "arguments"),
    [
        ("bf16", {"dtype": "bfloat16", "quantization": None}),
        ("float32", {"dtype": "float32", "quantization": None}),
        ("int8", {"quantization": "int8"}),
        ({"dtype": "float16", "optimize": "eager"}, {"dtype": "float16", "optimize": "eager"}),
    ],
)
def test_the_other_side_is_a_precision_or_model_arguments(vs, arguments):
    mark = pytest.mark.max_accuracy_drop(0.1, vs=vs).mark
    request = read_marks([(object(), mark)], uses_fixtures=True)
    (bound,) = request.counted
    assert request.versus[bound.vs] == arguments


def test_a_side_is_not_compared_with_itself():
    mark = pytest.mark.max_accuracy_drop(0.1).mark
    bounds = read_marks([(object(), mark)], uses_fixtures=True).counted
    check_sides(bounds, lambda vs: spec(dtype="bfloat16", quantization=None if vs else "int8"))
    with pytest.raises(Misuse, match="m in bfloat16 on both"):
        check_sides(bounds, lambda vs: spec(dtype="bfloat16"))


def marks(*given: pytest.MarkDecorator) -> list[tuple[object, pytest.Mark]]:
    return [(place, one.mark) for place, one in enumerate(given)]


def test_the_closest_bound_of_a_task_wins_and_two_in_one_place_conflict():
    near, far = pytest.mark.min_accuracy(0.4, task="a"), pytest.mark.min_accuracy(0.6, task="a")
    other = pytest.mark.min_accuracy(0.7)
    found = read_marks(marks(near, far, other), uses_fixtures=True).counted
    assert [(bound.metric, bound.limit) for bound in found] == [("a", 0.4), ("", 0.7)]
    with pytest.raises(Misuse, match="conflict"):
        read_marks([(1, near.mark), (1, far.mark)], uses_fixtures=True)


@pytest.mark.parametrize(
    ("mark", "said"),
    [
        (pytest.mark.min_accuracy(60), "write 0.6"),
        (pytest.mark.max_accuracy_drop(1), "write 0.01"),
        (pytest.mark.max_accuracy_drop(0.1, vs=""), "neither a precision"),
        (pytest.mark.max_accuracy_drop(0.1, vs=16), "neither a precision"),
    ],
)
def test_marks_that_make_no_sense_are_refused_with_what_was_meant(mark, said):
    with pytest.raises(Misuse, match=said):
        read_marks(marks(mark), uses_fixtures=True)
