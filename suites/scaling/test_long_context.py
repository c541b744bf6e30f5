"""Long prompts with and without efficient attention: linear against quadratic memory, by the exponent."""

import pytest

from pytest_qwen import gpu, max_vram, model
from pytest_qwen.errors import DoesNotFit
from pytest_qwen.memory import TIGHT

CODER = "Qwen/Qwen2.5-Coder-7B-Instruct"
TINY = "embedded/qwen2-tiny"
POSITIONS = 32_768
OUTPUT_TOKENS = 2
LENGTHS = (2048, 4096, 8192, 16_384, POSITIONS - OUTPUT_TOKENS)
SHORT = 16
PLAN_SHARE = 0.05


def peaks(llm, peak_gb, lengths):
    """(prompt tokens, peak GB) of each length until one does not fit; and that one's tokens, or None."""
    seen = []
    for tokens in lengths:
        try:
            measured = llm.measure(prompt_tokens=tokens, output_tokens=OUTPUT_TOKENS)
        except DoesNotFit:  # the engine ended, its memory is back; what was measured stands
            return seen, tokens
        seen.append((tokens, peak_gb(measured)))
    return seen, None


def above_short(seen):
    """Points of a law: what each prompt takes above the first, short one."""
    (_, base_gb), *rest = seen
    return [({"tokens": tokens}, peak - base_gb) for tokens, peak in rest]


def planned_by(llm):
    """GB that the plan gives the tensors of a prompt."""

    def planned_gb(tokens: int) -> float:
        return llm.memory_plan(prompt_tokens=tokens, output_tokens=OUTPUT_TOKENS).allocated_bytes / 1e9

    return planned_gb


def apart(seen, planned_gb):
    """What was measured more than 5 % away from the plan."""
    wrong = {t: (peak, planned_gb(t)) for t, peak in seen if abs(planned_gb(t) / peak - 1) > PLAN_SHARE}
    return {tokens: f"{peak:.2f} GB, planned {planned:.2f}" for tokens, (peak, planned) in wrong.items()}


@gpu
@model(CODER, weights="dummy", optimize="eager", attention="sdpa", max_model_len=POSITIONS)
@max_vram(40)  # 15 GB of weights, some 7 GB for the prompt, and what the allocator keeps
def test_efficient_attention_is_linear(llm, law, peak_gb):
    """Scores are never kept: twice the prompt takes twice the memory."""
    seen, refused = peaks(llm, peak_gb, (SHORT, *LENGTHS))
    assert refused is None
    found = law.power("sdpa, memory above a short prompt", above_short(seen), "tokens", unit="GB")
    assert found.coefficient("tokens") == pytest.approx(1, abs=0.15)
    assert not apart(seen, planned_by(llm))


@gpu
@model(CODER, weights="dummy", optimize="eager", attention="eager", max_model_len=POSITIONS)
def test_plain_attention_is_quadratic(llm, law, gpu, peak_gb, record_property):
    """Every head's scores are written down: twice the prompt takes four times the memory."""
    planned_gb = planned_by(llm)
    memory_gb = gpu.devices[0].memory_bytes / 1e9
    seen, refused = peaks(llm, peak_gb, (SHORT, *LENGTHS))
    record_property("qwen.out_of_memory_at", f"{refused} tokens" if refused else "none")
    assert refused is None or planned_gb(refused) > TIGHT * memory_gb
    assert all(planned_gb(tokens) <= memory_gb for tokens, _ in seen)
    assert not apart(seen, planned_gb)
    if len(seen) > 3:
        found = law.power(
            "eager attention, memory above a short prompt", above_short(seen), "tokens", unit="GB"
        )
        assert found.coefficient("tokens") > 1.6


@gpu("cpu")
@model(TINY, optimize="eager", max_model_len=4096)
@max_vram(8)
@pytest.mark.parametrize(
    "attention", [pytest.param(name, marks=model(attention=name)) for name in ("sdpa", "eager")]
)
def test_embedded(llm, peak_gb, attention):
    """Without a GPU, by the resident memory of the engine's process: one layer's scores are there or not."""
    tokens = 4096 - OUTPUT_TOKENS
    scores_gb = llm.loaded.config["num_attention_heads"] * tokens**2 * 4 / 1e9
    seen, _ = peaks(llm, peak_gb, (SHORT, tokens))
    [(_, taken_gb)] = above_short(seen)
    assert taken_gb > scores_gb if attention == "eager" else taken_gb < scores_gb


def test_the_published_matrix_of_scores(published):
    """One head's scores of 32,768 tokens in 32 bits, recomputed."""
    row = ("gpu-comparison", "attention scores", "one head at 32K tokens")
    (found,) = published(*row, product_result=32_768**2 * 4 / 2**30, computed=True)
    assert found.standing == "reproduced"
