"""Without a GPU: small models of the same architectures with dummy weights, so that every path runs."""

import pytest

from pytest_qwen import (
    gpu,
    max_itl,
    max_ttft,
    min_prefill_tokens_per_sec,
    min_tokens_per_sec,
    model,
    workload,
)

EMBEDDED = ("embedded/qwen2-tiny", "embedded/qwen3-tiny", "embedded/qwen3-moe-tiny")

pytestmark = [gpu("cpu"), workload(prompt_tokens=64, output_tokens=32)]


@pytest.mark.parametrize("name", [pytest.param(name, marks=model(name)) for name in EMBEDDED])
@min_tokens_per_sec(10)
@min_prefill_tokens_per_sec(50)
@max_ttft(1000)
@max_itl(200)
def test_decode(llm, name):
    """Far below what one slow core does: fails when decoding is broken, not when the host is busy."""
    assert llm.measure().rounds


@model("embedded/qwen2-tiny")
@min_tokens_per_sec(10)
def test_generate_and_judge_the_same_tokens(llm):
    """The answer that is timed is the answer that is checked."""
    answer = llm.generate("Write a quicksort in Python.", output_tokens=32)
    assert answer.output_tokens == 32
    assert llm.count_tokens(answer.text) == 32


@model("embedded/qwen2-tiny")
def test_stream(llm):
    """Streamed pieces are the whole answer."""
    assert "".join(llm.stream("Hello", output_tokens=16)) == llm.answers[-1].text
