"""Four ways to fine-tune a 7B model at six lengths, as published: seconds a step, peak memory, prediction."""

import pytest

from pytest_qwen import gpu, model

PUBLISHED = "Qwen/Qwen-7B"
CODER = "Qwen/Qwen2.5-Coder-7B-Instruct"
METHODS = ("lora", "lora-embeddings", "qlora", "full")
LENGTHS = (256, 512, 1024, 2048, 4096, 8192)
# one load serves every length of a method: the method varies slowest
ROWS = [(PUBLISHED, method, tokens) for method in METHODS for tokens in LENGTHS]
ROWS += [(CODER, method, tokens) for method in METHODS for tokens in (1024, 8192)]
TOLERANCE = 0.05
PUBLISHED_ROWS = {
    "lora": "LoRA",
    "lora-embeddings": "LoRA (emb)",
    "qlora": "Q-LoRA",
    "full": "full-parameter",
}
# how our step differs from the published one apart from card and software
DIFFERS = {
    "lora": "one adapter each for query, key and value, which the original stacks in one layer",
    "lora-embeddings": "embedding and head trained as copies beside the frozen ones",
    "qlora": "base in nf4 of bitsandbytes, published on a GPTQ base",
    "full": "AdamW in 16 bits holds four times the weights on one card, more than was published",
}


def case(name: str, method: str, tokens: int):
    """One row of the table; weights do not matter for it, the shape does."""
    label = f"{name.rsplit('/', maxsplit=1)[-1]}-{method}-{tokens}"
    return pytest.param(name, method, tokens, id=label, marks=model(name, weights="dummy"))


def note(record_property, tuned, label: str = "finetune") -> None:
    """The row for JUnit and the terminal."""
    record_property(f"qwen.{label}.step_time_s", round(tuned.step_time_s, 4))
    record_property(f"qwen.{label}.allocated_gb", round(tuned.allocated_gb, 3))
    record_property(f"qwen.{label}.vram_gb", round(tuned.vram_gb, 3))
    record_property(f"qwen.{label}.predicted_gb", round(tuned.predicted_gb, 3))
    record_property(f"qwen.{label}.trainable_parameters", tuned.trainable_parameters)
    print(tuned)  # noqa: T201 - shown with -s or -rP


@pytest.mark.parametrize(("name", "method", "tokens"), [case(*row) for row in ROWS])
@gpu
def test_step(finetune, published, record_property, name, method, tokens):
    """Gradient checkpointing, adapters of rank 64 on every linear layer, as the published script did."""
    tuned = finetune(method, tokens=tokens, rank=64, gradient_checkpointing=True)
    note(record_property, tuned)
    if name == PUBLISHED:
        figures = {
            f"training_memory_gb_{tokens}": tuned.vram_gb,
            f"training_seconds_{tokens}": tuned.step_time_s,
        }
        row = PUBLISHED_ROWS[method]
        published("quantization", "fine-tuning Qwen-7B", row, why=DIFFERS[method], **figures)
    assert abs(tuned.error) <= TOLERANCE, f"{tuned}\n{tuned.plan.explain('predicted')}"


@pytest.mark.parametrize("tokens", [128, 512])
@pytest.mark.parametrize("method", ["lora", "lora-embeddings", "full"])
@gpu("cpu")
@model("embedded/qwen2-tiny")
def test_embedded_step(finetune, record_property, method, tokens):
    """The same without a GPU, where the allocator's own events give the peak."""
    tuned = finetune(method, tokens=tokens, rank=8)
    note(record_property, tuned)
    assert abs(tuned.error) <= TOLERANCE, f"{tuned}\n{tuned.plan.explain('predicted')}"
