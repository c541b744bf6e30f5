"""What our code assistant promises its users, on the GPUs that we rent. A merge must keep all of it."""

import pytest

from pytest_qwen import (
    gpu,
    max_slowdown,
    max_ttft,
    max_usd_per_mtok,
    max_vram,
    min_tokens_per_sec,
    model,
    workload,
)

CODER = "Qwen/Qwen2.5-Coder-7B-Instruct"
L4_USD_PER_HOUR = 0.75

bf16 = pytest.param("bf16", marks=[gpu("h100"), model(CODER)])
int4 = pytest.param("int4", marks=[gpu("l4", "h100"), model(CODER, quantization="int4")])


@pytest.mark.parametrize("weights", [bf16, int4])
@min_tokens_per_sec(30)
@max_vram(20)
def test_interactive(llm, weights):
    """Code appears faster than people read it, and the text that was timed is the text that we look at."""
    answer = llm.generate("Write a quicksort in Python.", output_tokens=256)
    assert "def " in answer.text


@pytest.mark.parametrize("weights", [bf16, int4])
@workload(prompt_tokens=512, output_tokens=1)
@max_ttft(500, stat="p95")
def test_first_token(llm, weights):
    """A percentile needs a hundred rounds and more: one token a round keeps them short."""
    llm.measure()


@gpu("l4")
@model(CODER, quantization="int4")
@workload(prompt_tokens=64, output_tokens=256)
@max_usd_per_mtok(8, price_per_hour=L4_USD_PER_HOUR)
def test_cost(llm):
    """One user at a time on the rented card: the dearest that a token can be."""
    llm.measure()


@gpu("l4", "h100")
@model(CODER, quantization="int4")
@workload(prompt_tokens=64, output_tokens=64)
@max_slowdown(1.1, vs={"optimize": "eager"})
def test_optimised_is_no_slower(llm):
    """The default profile of the card against plain decoding, interleaved in one session."""
    llm.measure()
