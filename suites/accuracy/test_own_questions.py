"""Without a GPU and without a hub: the questions that come along, on small models with random weights."""

from pytest_qwen import gpu, max_accuracy_drop, min_accuracy, model

pytestmark = [gpu("cpu"), model("embedded/qwen2-tiny", dtype="float32")]


def test_generated_answers_are_graded(accuracy):
    """Random weights know no sums."""
    assert accuracy("small-exact").value < 0.5


def test_programs_are_run_in_the_sandbox(accuracy):
    """Random weights write no programs: none passes its tests. Skips where there is no container engine."""
    assert accuracy("small-code").right == 0


@max_accuracy_drop(0.2, vs="bf16")
def test_precision_hardly_changes_what_is_likeliest(accuracy):
    """The same sixty questions in float32 and in bfloat16: rounding turns few answers over."""
    found = accuracy("small-choice")
    assert found.interval[0] < 0.25 < found.interval[1]  # it guesses among four


@model("embedded/qwen3-tiny")
@min_accuracy(0.01)
def test_another_architecture_guesses_too(accuracy):
    """Random weights are right by chance; fails when letters are not scored at all."""
    assert accuracy("small-choice", seed=1).n == 60
