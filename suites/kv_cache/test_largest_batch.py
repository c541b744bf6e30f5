"""The largest batch that a card holds: predicted, then met and exceeded for real."""

import pytest

from pytest_qwen import gpu, model, workload
from pytest_qwen.capacity import largest_batch
from pytest_qwen.data import find_shape
from pytest_qwen.errors import DoesNotFit
from pytest_qwen.physics import Setup

MODEL = "Qwen/Qwen-7B"
ROOM, PROMPT_TOKENS, OUTPUT_TOKENS = 1024, 64, 4


def largest(card, kv_cache: str | None) -> int:
    """The most sequences of 1,024 tokens whose plan is within the card's memory."""
    shape = find_shape(MODEL)
    assert shape is not None
    asked = Setup(
        shape=shape,
        gpu=card,
        dtype="bfloat16",
        kv_dtype=kv_cache,
        prompt_tokens=PROMPT_TOKENS,
        output_tokens=OUTPUT_TOKENS,
        reserved_tokens=ROOM,
        chunk_tokens=None,
    )
    found = largest_batch(asked)
    assert found
    return found


@pytest.mark.parametrize("kv_cache", [None, "int8"])
@gpu
@model(dtype="bfloat16", weights="dummy", optimize="static", max_model_len=ROOM)
@workload(prompt_tokens=PROMPT_TOKENS, output_tokens=OUTPUT_TOKENS)
def test_largest_batch(load, gpu, record_property, kv_cache):
    """A twentieth less than predicted runs; a tenth more is out of memory, and costs this load only."""
    batch = largest(gpu.devices[0], kv_cache)
    record_property("qwen.largest_batch", batch)
    llm = load(MODEL, kv_cache=kv_cache)
    fits = int(batch * 0.95)
    assert llm.generate(
        batch_size=fits, prompt_tokens=PROMPT_TOKENS, output_tokens=OUTPUT_TOKENS
    ).output_tokens
    again = load(MODEL, kv_cache=kv_cache, seed=1)
    with pytest.raises(DoesNotFit, match="out of memory"):
        again.generate(batch_size=int(batch * 1.1), prompt_tokens=PROMPT_TOKENS, output_tokens=OUTPUT_TOKENS)
    assert load(MODEL, kv_cache=kv_cache, seed=2).generate(output_tokens=OUTPUT_TOKENS).output_tokens
