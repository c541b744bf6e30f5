"""How much accuracy quantisation costs: the published claims as bounds, on real weights and real questions.

Less than 1 point for int8, less than 2 for int4 "on most benchmarks"; nothing on HumanEval and 0.4 points on
MBPP for AWQ. Where data or weights are not on this machine the test skips. A benchmark of 164 questions
cannot show so small a drop: then there is no verdict, and it says how many questions would.
"""

import pytest

from pytest_qwen import gpu, max_accuracy_drop, model
from pytest_qwen.errors import Unavailable
from pytest_qwen.harness import Asked, Tasks
from pytest_qwen.published import Row, load_tables, span

CODER = "Qwen/Qwen2.5-Coder-32B-Instruct"
CLAIMED = {"int8": 0.01, "int4": 0.02}

pytestmark = [gpu, pytest.mark.usefixtures("at_hand")]


def preserved(benchmark: str) -> Row:
    """A row of the published table on what AWQ preserves."""
    (table,) = (one for one in load_tables() if one.name == "AWQ quality preservation")
    return next(row for row in table.rows if row.name == benchmark)


@pytest.fixture
def at_hand(request, task):
    """Skips where weights are random, or questions or weights are not on this machine."""
    config = request.config
    if (config.getoption("qwen_weights") or config.getini("qwen_weights")) == "dummy":
        pytest.skip("random weights know nothing: --qwen-weights=real")
    try:
        Tasks(Asked(task=task))
    except Unavailable as missing:
        pytest.skip(" ".join(str(missing).split()))
    from huggingface_hub import try_to_load_from_cache

    for name in (mark.args[0] for mark in request.node.iter_markers("model") if mark.args):
        if not isinstance(try_to_load_from_cache(name, "config.json"), str):
            pytest.skip(f"the weights of {name} are not on this machine: hf download {name}")


def cases():
    """Every benchmark in every precision, each with its claim."""
    for task in ("mmlu", "ceval", "gsm8k"):
        for method, claimed in CLAIMED.items():
            marks = [model("Qwen/Qwen3-8B", quantization=method), max_accuracy_drop(claimed, vs="bf16")]
            yield pytest.param(task, marks=marks, id=f"{task}-{method}")
    for method, claimed in CLAIMED.items():
        name = "Qwen/Qwen2.5-Coder-7B-Instruct"
        marks = [model(name, quantization=method), max_accuracy_drop(claimed, vs="bf16")]
        yield pytest.param("humaneval", marks=marks, id=f"humaneval-{method}")
    for task, row in (("humaneval", "HumanEval"), ("mbpp", "MBPP")):
        most = span(preserved(row)["points"]["lost"]).high / 100
        full = {"id": CODER, "dtype": "float16", "quantization": None}
        marks = [model(f"{CODER}-AWQ", quantization="awq"), max_accuracy_drop(most, vs=full)]
        yield pytest.param(task, marks=marks, id=f"{task}-awq")


@pytest.mark.parametrize("task", [*cases()])
@model(max_model_len=4096)
def test_the_drop_is_as_small_as_claimed(accuracy, task):
    """The same questions on both sides, loaded one after the other."""
    accuracy(task)
