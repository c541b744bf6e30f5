"""Models in fewer bits: memory against the plan, rate, and both beside the published table."""

import pytest

from pytest_qwen import gpu, model, workload
from pytest_qwen.errors import DoesNotFit
from pytest_qwen.statistics import percentile

# The published rows' models, and the words that the table uses for precisions.
PUBLISHED = ("Qwen/Qwen-1_8B", "Qwen/Qwen-7B", "Qwen/Qwen-14B", "Qwen/Qwen-72B")
WORDS = {None: "BF16", "int8": "Int8", "int4": "Int4"}
CODERS = ("Qwen/Qwen2.5-Coder-7B-Instruct", "Qwen/Qwen2.5-Coder-32B-Instruct", "Qwen/Qwen3-32B")
EXPERTS = ("Qwen/Qwen3-30B-A3B", "Qwen/Qwen3-Coder-30B-A3B-Instruct")
PLAN_SHARE = 0.05
# The publication generated 2,048 tokens; a prompt fills the cache as well and in less time.
CACHED_TOKENS, OUTPUT_TOKENS = 2048, 48
# Answers after the first one.
TIMES = 3

pytestmark = workload(prompt_tokens=64, output_tokens=OUTPUT_TOKENS)


def case(name: str, quantization: str | None):
    """One row: a shape in a precision."""
    label = f"{name.rsplit('/', maxsplit=1)[-1]}-{quantization or 'bf16'}"
    return pytest.param(name, quantization, id=label, marks=model(name, quantization=quantization))


def check_memory(llm, record_property) -> float | None:
    """The tensors' peak in GB with as many tokens as were published, which is what the plan says.

    None where it does not fit, which the plan must have said too.
    """
    work = {"prompt_tokens": CACHED_TOKENS - OUTPUT_TOKENS, "output_tokens": OUTPUT_TOKENS}
    plan = llm.memory_plan(**work)
    planned = plan.allocated_bytes / 1e9
    try:
        seen = llm.generate(**work, ignore_eos=True).allocated_gb
    except DoesNotFit:
        record_property("qwen.predicted_gb", f"{planned:.2f} GB, out of memory")
        assert plan.total_bytes > (1 - PLAN_SHARE) * plan.available_bytes, plan.explain("should have fitted")
        return None
    record_property("qwen.predicted_gb", f"{planned:.2f} GB, measured {seen:.2f} GB")
    assert planned == pytest.approx(seen, rel=PLAN_SHARE)
    return seen


def rate_of(llm, record_property) -> float:
    """The median decode rate of short answers, in tok/s; intervals are in the other file."""
    answers = [llm.generate(prompt_tokens=64, ignore_eos=True) for _ in range(1 + TIMES)][1:]
    rate = percentile([one.tokens_per_sec for one in answers], 0.5)
    record_property("qwen.tokens_per_sec", round(rate, 2))
    return rate


@pytest.mark.parametrize(("name", "quantization"), [case(name, bits) for name in PUBLISHED for bits in WORDS])
@gpu
@model(dtype="bfloat16", weights="dummy", optimize="eager", max_model_len=CACHED_TOKENS)
def test_published_row(llm, published, record_property, name, quantization):
    """As the publication ran it: the library's own decoding, one sequence."""
    rate, seen = rate_of(llm, record_property), check_memory(llm, record_property)
    row = f"{name.rsplit('/', maxsplit=1)[-1].replace('_', '.')} {WORDS[quantization]}"
    memory = {} if seen is None else {"memory_used_gb": seen}
    published("quantization", "memory and speed", row, tokens_per_sec=rate, **memory)


@pytest.mark.parametrize(
    ("name", "quantization"),
    [case(name, bits) for name in CODERS for bits in (None, "int8", "int4")]
    + [case(CODERS[0], bits) for bits in ("fp8", "nf4")],
)
@gpu
@model(dtype="bfloat16", weights="dummy", optimize="eager", max_model_len=CACHED_TOKENS)
def test_coder(llm, record_property, name, quantization):
    """The coder models in every precision that is made on load."""
    check_memory(llm, record_property)


@pytest.mark.parametrize("name", [pytest.param(name, marks=model(name)) for name in EXPERTS])
@gpu
@model(quantization="int4", weights="dummy", max_model_len=CACHED_TOKENS)
def test_experts(llm, record_property, name):
    """A mixture of experts, where the engine can quantise one; skips with the reason where it cannot."""
    check_memory(llm, record_property)


@gpu("cpu")
@model("embedded/qwen2-tiny", quantization="int8", dtype="float32", max_model_len=128)
def test_embedded(llm):
    """Without a GPU: 8-bit weights are a quarter of those in 32 bits, head and embedding aside."""
    assert llm.measure().rounds
    assert any("8-bit integers" in text for text in llm.loaded.applied)
