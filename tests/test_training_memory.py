"""The arithmetic of a fine-tuning step: parameters counted by hand, terms, and how the peak moves."""

from dataclasses import replace

import pytest

from pytest_qwen.data import find_shape
from pytest_qwen.training_memory import METHODS, WORKSPACE_BYTES, Step

SEVEN = find_shape("Qwen/Qwen-7B")  # 32 layers, 4096 wide, MLP 11008, vocabulary 151,936, untied
EMBEDDING = 151_936 * 4096
STEP = Step(shape=SEVEN, method="lora", tokens=1024)


def line(step: Step, start: str) -> float:
    return next(size for label, size in step.plan().lines if label.startswith(start))


def test_adapters_are_counted_as_peft_makes_them():
    square, wide = 4096 + 4096, 4096 + 11_008
    assert STEP.trainable_parameters == 32 * 64 * (4 * square + 3 * wide)
    assert replace(STEP, targets=("q_proj",)).trainable_parameters == 32 * 64 * square
    assert replace(STEP, rank=1).trainable_parameters * 64 == STEP.trainable_parameters
    assert replace(STEP, method="qlora").trainable_parameters == STEP.trainable_parameters


def test_embeddings_and_the_whole_model_are_counted():
    both = replace(STEP, method="lora-embeddings")
    assert both.trainable_parameters == STEP.trainable_parameters + 2 * EMBEDDING
    assert replace(STEP, method="full").trainable_parameters == SEVEN.parameters


def test_what_lies_there_before_the_first_token():
    assert STEP.weights_bytes == 2 * SEVEN.parameters
    assert STEP.added_bytes == 2 * STEP.trainable_parameters
    assert STEP.state_bytes == 4 * STEP.trainable_parameters
    full = replace(STEP, method="full")
    assert full.added_bytes == 0
    assert full.weights_bytes + full.state_bytes == 6 * SEVEN.parameters
    nf4 = replace(STEP, method="qlora")
    # head and embedding stay in 16 bits, the rest takes a little more than half a byte
    rest = SEVEN.parameters - 2 * EMBEDDING
    assert nf4.weights_bytes == pytest.approx(4 * EMBEDDING + 0.5167 * rest, rel=0.005)


@pytest.mark.parametrize(
    ("optimizer", "each"), [("adamw", 4), ("adamw-fp32", 8), ("adamw8bit", 2.03125), ("paged-adamw8bit", 0)]
)
def test_optimiser_states(optimizer, each):
    assert replace(STEP, optimizer=optimizer).state_bytes == each * STEP.trainable_parameters


def test_the_loss_of_a_large_vocabulary_is_the_peak_of_adapters():
    """Three copies of tokens x vocabulary in 32 bits; checkpoints are one tensor a layer."""
    plan = STEP.plan()
    assert plan.phase == "loss"
    assert line(STEP, "logits") == 3 * 4 * 1024 * 151_936
    assert line(STEP, "checkpoints") == pytest.approx(32 * 2 * 1024 * 4096, rel=0.1)
    assert line(STEP, "workspaces") == WORKSPACE_BYTES
    assert plan.total_bytes == sum(size for _, size in plan.lines)
    assert "peak: loss" in plan.explain("title", 1e12)


def test_the_gradients_of_everything_are_the_peak_of_full_training():
    full = replace(STEP, method="full", tokens=256)
    assert full.plan().phase == "embedding"
    assert line(full, "gradients") == 2 * SEVEN.parameters
    assert full.plan().total_bytes == pytest.approx(8 * SEVEN.parameters, rel=0.01)


def test_a_small_vocabulary_moves_the_peak_into_a_layer():
    small = replace(STEP, shape=replace(SEVEN, vocab=512))
    assert small.plan().phase in {"last layer", "first layer"}


@pytest.mark.parametrize("method", METHODS)
def test_more_work_needs_more_memory_and_checkpointing_less(method):
    step = replace(STEP, method=method, tokens=2048)
    assert step.plan().total_bytes < replace(step, tokens=4096).plan().total_bytes
    assert step.plan().total_bytes < replace(step, batch=2).plan().total_bytes
    assert step.plan().total_bytes < replace(step, checkpointing=False).plan().total_bytes


def test_a_batch_is_as_much_work_as_a_longer_sequence():
    """But for the rotary tables, which sequences share."""
    long, wide = replace(STEP, tokens=4096), replace(STEP, tokens=1024, batch=4)
    assert wide.plan().total_bytes == pytest.approx(long.plan().total_bytes, rel=1e-3)
    assert wide.plan().total_bytes < long.plan().total_bytes
