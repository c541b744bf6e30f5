"""KV caches in fewer bits: memory by batch and by length, against the plan and the published tables."""

import pytest

from pytest_qwen import gpu, model, workload

PUBLISHED = "Qwen/Qwen-7B"
BATCHES = (1, 4, 16, 32, 64, 100)
LENGTHS = (512, 1024, 2048, 4096, 8192)
PLAN_SHARE = 0.05
# A static cache takes its whole room at once: a short answer there needs what a long one does.
PROMPT_TOKENS, OUTPUT_TOKENS = 64, 8
# Larger ones were out of memory where it was published.
MOST_PUBLISHED_WITHOUT = 32


def peak_gb(llm, record_property, batch: int = 1) -> float:
    """The tensors' peak, which is what the plan says."""
    work = {"prompt_tokens": PROMPT_TOKENS, "output_tokens": OUTPUT_TOKENS, "batch_size": batch}
    seen = llm.generate(**work, ignore_eos=True).allocated_gb
    planned = llm.memory_plan(**work).allocated_bytes / 1e9
    record_property(f"qwen.predicted_gb.{batch}", f"{planned:.2f} GB, measured {seen:.2f} GB")
    assert planned == pytest.approx(seen, rel=PLAN_SHARE)
    return seen


def set_beside(published, table: str, row: str, without: float, coded: float) -> None:
    """Ours beside one published row: what both take, and what is saved."""
    saved = {"without_gb": without, "with_gb": coded, "saved_gb": without - coded}
    published("quantization", table, row, **{f"kv_saving_{name}": gb for name, gb in saved.items()})


@gpu
@model(dtype="bfloat16", weights="dummy", optimize="static", max_model_len=1024)
def test_batches(load, published, record_property):
    """The published table by batch: 1,024 tokens of each sequence; one load serves all batches."""
    peaks = {}
    for kv_cache in (None, "int8"):
        llm = load(PUBLISHED, kv_cache=kv_cache)
        peaks[kv_cache] = [peak_gb(llm, record_property, batch) for batch in BATCHES]
    table = "KV quantisation by batch"
    for batch, without, coded in zip(BATCHES, peaks[None], peaks["int8"], strict=True):
        assert coded < without
        if batch <= MOST_PUBLISHED_WITHOUT:
            set_beside(published, table, f"batch {batch}", without, coded)
        else:
            published("quantization", table, f"batch {batch}", memory_used_gb=coded)


@pytest.mark.parametrize("length", LENGTHS)
@gpu
@model(dtype="bfloat16", weights="dummy", optimize="static")
def test_length(load, published, record_property, length):
    """The published table by length: one sequence."""
    peaks = []
    for kv_cache in (None, "int8"):
        llm = load(PUBLISHED, kv_cache=kv_cache, max_model_len=length)
        peaks.append(peak_gb(llm, record_property))
    assert peaks[1] < peaks[0]
    set_beside(published, "KV quantisation by sequence length", f"{length} tokens", *peaks)


@pytest.mark.parametrize(
    "kv_cache", [pytest.param(kind, marks=model(kv_cache=kind)) for kind in (None, "fp8", "int8", "int4")]
)
@gpu
@model(PUBLISHED, dtype="bfloat16", weights="dummy", optimize="static", max_model_len=1024)
def test_every_kind(llm, record_property, kv_cache):
    """Each type of cache takes the bytes that its codes and scales need."""
    peak_gb(llm, record_property, batch=16)


COMBINED = {
    ("BF16 + KV cache", None, "int8"),
    ("Int8", "int8", None),
    ("Int8 + KV cache", "int8", "int8"),
    ("Int4", "int4", None),
    ("Int4 + KV cache", "int4", "int8"),
}


@pytest.mark.parametrize(("row", "quantization", "kv_cache"), sorted(COMBINED, key=str))
@gpu
@model(dtype="bfloat16", weights="dummy", optimize="static")
def test_combined(load, published, record_property, row, quantization, kv_cache):
    """Weights and cache in fewer bits, 2,048 tokens, as the published breakdown."""
    llm = load(PUBLISHED, quantization=quantization, kv_cache=kv_cache, max_model_len=2048)
    seen = peak_gb(llm, record_property)
    published("quantization", "combined quantisation", row, memory_used_gb=seen)


@pytest.mark.parametrize("kv_cache", ["int8", "int4", "fp8"])
@gpu("cpu")
@model("embedded/qwen2-tiny", max_model_len=128)
@workload(prompt_tokens=16, output_tokens=16, batch_size=2)
def test_embedded(load, kv_cache):
    """Without a GPU: the same paths; the answer of random weights may differ, its length may not."""
    llm = load("embedded/qwen2-tiny", kv_cache=kv_cache)
    assert llm.generate(prompt_tokens=16, output_tokens=16, ignore_eos=True).output_tokens == 16
    assert any(f"cache in {kv_cache}" in text for text in llm.loaded.applied)
