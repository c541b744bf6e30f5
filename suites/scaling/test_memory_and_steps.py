"""Memory and time of a step against batch and length, as fitted laws; memory beside the plan's figure."""

import pytest

from pytest_qwen import gpu, max_vram, model, workload
from pytest_qwen.errors import DoesNotFit
from pytest_qwen.laws import MEMORY, STEP

CODER = "Qwen/Qwen2.5-Coder-7B-Instruct"
TINY = "embedded/qwen2-tiny"
# Batch and prompt tokens: each alone over its whole range, and corners up to 32,768 tokens at a time.
GRID = [(1, 8192), (1, 2048), (1, 512), (4, 8192), (4, 512), (16, 2048), (16, 512), (64, 512)]
OUTPUT_TOKENS = 8
PLAN_SHARE = 0.05


@gpu
@model(CODER, weights="dummy", optimize="eager", max_model_len=8192 + OUTPUT_TOKENS)
@workload(output_tokens=OUTPUT_TOKENS)
@max_vram(40)  # 15 GB of weights, some 7 GB for 32,768 tokens, and what the allocator keeps
def test_memory(llm, law, peak_gb, record_property):
    """Weights, and a constant amount a token of every sequence: its KV cache and its activations."""
    points, beside = [], []
    for batch, tokens in GRID:
        try:
            seen = peak_gb(llm.measure(batch_size=batch, prompt_tokens=tokens, output_tokens=OUTPUT_TOKENS))
        except DoesNotFit:  # a smaller card: the law is fitted to what fits
            break
        points.append(({"batch": batch, "tokens": tokens}, seen))
        work = {"batch_size": batch, "prompt_tokens": tokens, "output_tokens": OUTPUT_TOKENS}
        planned = llm.memory_plan(**work).allocated_bytes / 1e9
        beside.append(({"planned GB": planned}, seen))
        record_property(f"qwen.predicted.{batch}x{tokens}", f"{planned:.2f} GB, measured {seen:.2f} GB")
    found = law("peak memory of 7B in bf16", points, MEMORY, unit="GB")
    assert found.r2 > 0.99
    assert found.coefficient("1") == pytest.approx(llm.loaded.weights_bytes / 1e9, rel=0.05)
    law("peak memory of 7B in bf16, measured against planned", beside, ("planned GB",), unit="GB")
    apart = [
        f"{seen:.2f}: {where}" for where, seen in beside if abs(where["planned GB"] / seen - 1) > PLAN_SHARE
    ]
    assert not apart, f"measured GB, more than {PLAN_SHARE:.0%} apart: {apart}"


ROOMS, BATCHES = (1024, 4096), (1, 8, 32, 64)


@gpu
@workload(prompt_tokens=64, output_tokens=16)
def test_time_of_a_step(load, law, step_ms):
    """The weights are read once a step, the room of every sequence as well: a static cache is read whole."""
    points, rates = [], {}
    for room in ROOMS:
        llm = load(CODER, weights="dummy", optimize="static", max_model_len=room)
        for batch in BATCHES:
            try:
                tpot_ms = step_ms(llm.measure(batch_size=batch))
            except DoesNotFit:
                break
            points.append(({"batch": batch, "context": room}, tpot_ms))
            rates[batch, room] = 1000 * batch / tpot_ms
    found = law("time of a step of 7B in bf16, static cache", points, STEP, unit="ms")
    assert found.r2 > 0.9
    assert found.coefficient("batch*context") > 0
    # one read of the weights serves all sequences: in a short room, eight cost less than four do alone
    assert rates[8, ROOMS[0]] > 2 * rates[1, ROOMS[0]]


@gpu("cpu")
@model(TINY, max_model_len=256)
@workload(prompt_tokens=16, output_tokens=8)
def test_embedded_time_of_a_step(llm, law, step_ms):
    """The same path without a GPU: more sequences take longer, but not in proportion."""
    points = []
    for batch in (1, 4, 16, 32):
        points.append(({"batch": batch}, step_ms(llm.measure(batch_size=batch))))
    found = law(f"time of a step of {TINY}", points, ("1", "batch"), unit="ms")
    assert found.coefficient("batch") > 0
    assert points[-1][1] < 32 * points[0][1]
