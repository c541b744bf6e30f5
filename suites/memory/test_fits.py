"""Does not fit: refused by the plan before anything is loaded, and a real out-of-memory, handled."""

import pytest

from pytest_qwen import gpu, model
from pytest_qwen.errors import DoesNotFit

pytestmark = gpu


def test_a_model_that_does_not_fit_is_refused_by_the_plan(load):
    """289 GB of weights in float32, more than any single card has: said line by line, nothing is loaded."""
    with pytest.raises(DoesNotFit, match="needed"):
        load("Qwen/Qwen-72B", weights="dummy", dtype="float32", optimize="eager")


def test_a_real_out_of_memory_says_plan_and_need(load):
    """The load is tried although the plan may forbid it: told apart from a fault, it costs one test."""
    room = {"max_model_len": 262_144, "dtype": "float32", "optimize": "static"}
    with pytest.raises(DoesNotFit) as caught:
        load("Qwen/Qwen2.5-Coder-32B-Instruct", weights="dummy", check_fit=False, **room)
    assert "out of memory" in str(caught.value)
    assert "weights" in str(caught.value)


@model("Qwen/Qwen2.5-Coder-7B-Instruct", weights="dummy", optimize="eager", max_model_len=256)
def test_the_memory_is_back_for_the_next_model(llm):
    """After the out-of-memory above the card is free again, and a model that fits loads and answers."""
    assert llm.generate(prompt_tokens=16, output_tokens=4, ignore_eos=True).output_tokens == 4
