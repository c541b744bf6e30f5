"""What gradient checkpointing saves and costs, and a step that does not fit: predicted, then tried."""

from dataclasses import replace

import pytest

from pytest_qwen import gpu, max_step_time, max_vram, model
from pytest_qwen.errors import DoesNotFit

TOLERANCE = 0.05


def compared(finetune, record_property, tokens: int) -> None:
    """Checkpointing keeps less and computes each layer's forward pass twice."""
    kept = finetune("lora", tokens=tokens, gradient_checkpointing=False)
    again = finetune("lora", tokens=tokens, gradient_checkpointing=True)
    record_property("qwen.checkpointing.saved_gb", round(kept.allocated_gb - again.allocated_gb, 3))
    record_property("qwen.checkpointing.time_ratio", round(again.step_time_s / kept.step_time_s, 3))
    print(kept, again, sep="\n")  # noqa: T201 - shown with -s or -rP
    assert again.allocated_gb < kept.allocated_gb
    assert abs(kept.error) <= TOLERANCE, str(kept)
    assert abs(again.error) <= TOLERANCE, str(again)


@gpu
@model("Qwen/Qwen-7B", weights="dummy")
def test_checkpointing(finetune, record_property):
    """At 2,048 tokens, where activations outweigh everything but the weights."""
    compared(finetune, record_property, 2048)


@gpu("cpu")
@model("embedded/qwen2-tiny")
def test_embedded_checkpointing(finetune, record_property):
    """The same on the embedded model."""
    compared(finetune, record_property, 256)


@gpu
@model("Qwen/Qwen-7B", weights="dummy")
def test_too_large_a_batch_runs_out_of_memory(finetune, gpu):
    """The batch that is predicted to need half as much again as the card has does not fit, in plain words."""
    step = finetune("lora", tokens=2048).step
    room = gpu.devices[0].memory_bytes
    batch = 2
    while replace(step, batch=batch).plan().total_bytes < 1.5 * room:
        batch *= 2
    with pytest.raises(DoesNotFit, match="out of memory") as caught:
        finetune("lora", tokens=2048, batch_size=batch)
    assert "needed" in str(caught.value)
    assert "logits and loss" in str(caught.value)
    assert finetune("lora", tokens=2048).n > 0  # it cost one step: the next load works


@gpu("cpu")
@model("embedded/qwen2-tiny")
@max_step_time(20)
@max_vram(8)
def test_embedded_bounds(finetune):
    """Bounds on the step: its seconds, and the memory of the engine's process."""
    assert finetune("lora", tokens=64, rank=8).trainable_parameters > 0
