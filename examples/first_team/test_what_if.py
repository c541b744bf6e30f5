"""Questions, not promises: run with --qwen-plan before anything is rented."""

from pytest_qwen import gpu, min_tokens_per_sec, model


@gpu("l4", "h100")
@model("Qwen/Qwen2.5-Coder-7B-Instruct")
@min_tokens_per_sec(30)
def test_unquantised(llm):
    """Could the L4 keep our promise without int4?"""
    llm.generate("Write a quicksort in Python.", output_tokens=256)
