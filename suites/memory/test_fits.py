"""Fits or does not fit: the plan's answer for every published model, and a real out-of-memory, handled."""

import pytest

from pytest_qwen import gpu, model
from pytest_qwen.errors import DoesNotFit
from pytest_qwen.gpus import CATALOGUE

# Larger than any single card of the catalogue but the very largest: 144.5 GB of bf16 weights.
LARGE = "Qwen/Qwen-72B"


@gpu(
    *(
        alias
        for alias, spec in CATALOGUE.items()
        if spec.memory_gb and spec.memory_gb < 144 and spec.vendor == "NVIDIA"
    )
)
@model(LARGE, weights="dummy", dtype="bfloat16", optimize="eager")
def test_a_model_that_does_not_fit_is_refused_by_the_plan(plan, load):
    """The plan says so before anything is loaded, line by line."""
    assert plan.outlook == "impossible"
    with pytest.raises(DoesNotFit, match="weights"):
        load(LARGE)


@gpu("h200", "h200-nvl", "h100", "a100", "l40s", "l4", "t4")
@model("Qwen/Qwen2.5-Coder-32B-Instruct", weights="dummy", dtype="float32", optimize="eager")
def test_a_real_out_of_memory_says_plan_and_need_and_costs_one_test(load):
    """The load is tried although the plan forbids it: the error is told apart from a fault."""
    with pytest.raises(DoesNotFit) as caught:
        load(check_fit=False)
    assert "out of memory" in str(caught.value)
    assert "weights" in str(caught.value)


@gpu
@model("Qwen/Qwen2.5-Coder-7B-Instruct", weights="dummy", optimize="eager", max_model_len=256)
def test_the_memory_is_back_for_the_next_model(llm):
    """Runs after the out-of-memory above: the card is free again, and a model that fits loads."""
    assert llm.generate(prompt_tokens=16, output_tokens=4, ignore_eos=True).output_tokens == 4
