"""The memory plan against what was measured: peaks of the allocator on an H200, dummy weights, 2026-11-21."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_qwen.data import find_shape
from pytest_qwen.gpus import lookup
from pytest_qwen.memory import activation_bytes, fit
from pytest_qwen.roofline import SERVING_CHUNK_TOKENS, Setup

CODER, FIRST = "Qwen/Qwen2.5-Coder-7B-Instruct", "Qwen/Qwen-7B"


def setup(model: str, **changes) -> Setup:
    shape = find_shape(model)
    assert shape is not None
    made = Setup(shape=shape, gpu=lookup("h200"), dtype="bfloat16", output_tokens=48, chunk_tokens=None)
    return replace(made, **changes)


# Model, what was asked, GB that tensors took at most.
MEASURED = [
    (CODER, {}, 15.279),
    (CODER, {"quantization": "int8"}, 8.893),
    (CODER, {"quantization": "int4", "padded_inputs": 1024}, 6.072),
    (CODER, {"quantization": "fp8"}, 9.432),
    (CODER, {"quantization": "nf4"}, 5.737),
    ("Qwen/Qwen-1_8B", {}, 3.731),
    ("Qwen/Qwen-1_8B", {"quantization": "int8"}, 2.540),
    ("Qwen/Qwen-1_8B", {"quantization": "int4", "padded_inputs": 1024}, 1.963),
    ("Qwen/Qwen-14B", {}, 28.46),
    ("Qwen/Qwen-14B", {"quantization": "int8"}, 16.00),
    ("Qwen/Qwen-72B", {}, 144.90),
    ("Qwen/Qwen-72B", {"quantization": "int8"}, 75.55),
    ("Qwen/Qwen-72B", {"quantization": "int4", "padded_inputs": 1024}, 42.39),
    # prompts as a whole, a cache that grows
    (CODER, {"prompt_tokens": 8192, "output_tokens": 8}, 16.906),
    (CODER, {"prompt_tokens": 8192, "output_tokens": 8, "batch": 4}, 21.815),
    (CODER, {"prompt_tokens": 2048, "output_tokens": 8, "batch": 16}, 21.816),
    (CODER, {"prompt_tokens": 512, "output_tokens": 8, "batch": 64}, 21.833),
    (CODER, {"prompt_tokens": 128, "output_tokens": 128, "batch": 100}, 17.845),
    (CODER, {"prompt_tokens": 2048, "output_tokens": 8, "attention": "eager"}, 16.672),
    (CODER, {"prompt_tokens": 4096, "output_tokens": 8, "attention": "eager"}, 20.421),
    # caches that are there at once
    (FIRST, {"output_tokens": 8, "reserved_tokens": 8192}, 19.814),
    (FIRST, {"output_tokens": 8, "reserved_tokens": 8192, "kv_dtype": "int8"}, 17.898),
    (FIRST, {"output_tokens": 8, "reserved_tokens": 1024, "batch": 16}, 24.208),
    (FIRST, {"output_tokens": 8, "reserved_tokens": 1024, "batch": 16, "kv_dtype": "fp8"}, 20.131),
    (FIRST, {"output_tokens": 8, "reserved_tokens": 1024, "batch": 32}, 32.90),
    (FIRST, {"output_tokens": 8, "reserved_tokens": 1024, "batch": 100, "kv_dtype": "int8"}, 44.80),
    (FIRST, {"prompt_tokens": 2000, "quantization": "int8"}, 10.30),
    ("Qwen/Qwen-72B", {"prompt_tokens": 2000, "quantization": "int8"}, 80.83),
    ("Qwen/Qwen2.5-Coder-32B-Instruct", {"prompt_tokens": 2000, "quantization": "int8"}, 35.49),
    (CODER, {"prompt_tokens": 16384, "output_tokens": 2, "attention": "eager"}, 92.62),
    (CODER, {"prompt_tokens": 32766, "output_tokens": 2}, 21.83),
]


@pytest.mark.parametrize(("model", "changes", "measured_gb"), MEASURED)
def test_the_plan_is_within_two_percent_of_what_was_measured(model, changes, measured_gb) -> None:
    plan = fit(setup(model, **changes))
    assert plan is not None
    assert plan.allocated_bytes / 1e9 == pytest.approx(measured_gb, rel=0.02)


def test_the_context_is_beside_what_the_allocator_holds() -> None:
    plan = fit(setup(CODER))
    assert plan is not None
    assert plan.lines[-1][0].startswith("context")
    assert plan.total_bytes == plan.allocated_bytes + plan.lines[-1][1]


def test_a_serving_engine_takes_prompts_in_chunks() -> None:
    whole = setup(CODER, prompt_tokens=4 * SERVING_CHUNK_TOKENS, reserved_tokens=4 * SERVING_CHUNK_TOKENS)
    chunked = replace(whole, chunk_tokens=SERVING_CHUNK_TOKENS)
    assert activation_bytes(chunked) == activation_bytes(replace(whole, prompt_tokens=SERVING_CHUNK_TOKENS))
    assert activation_bytes(whole) > 3 * activation_bytes(chunked)


@pytest.mark.parametrize(("kv_dtype", "share"), [("fp8", 0.5), ("int8", 0.5), ("int4", 0.25)])
def test_codes_and_their_scales_are_what_a_cache_takes(kv_dtype, share) -> None:
    """A scale of 16 bits for each vector of 128 numbers is 1.6 % beside 8-bit codes; floats have none."""
    full = setup(FIRST).kv_bytes
    scales = 0 if kv_dtype == "fp8" else full / 128
    assert setup(FIRST, kv_dtype=kv_dtype).kv_bytes == pytest.approx(share * full + scales)


def test_only_eager_attention_keeps_scores() -> None:
    assert setup(CODER, prompt_tokens=4096).score_bytes == 0
    eager = setup(CODER, prompt_tokens=4096, attention="eager")
    assert replace(eager, prompt_tokens=8192).score_bytes == 4 * eager.score_bytes


def test_padding_is_part_of_the_weights_of_a_kernel_in_tiles() -> None:
    plain, padded = setup(CODER, quantization="int4"), setup(CODER, quantization="int4", padded_inputs=1024)
    assert padded.weights_bytes - plain.weights_bytes == padded.padding_bytes > 0.3e9
    assert setup(FIRST, quantization="int4", padded_inputs=128).padding_bytes == 0
