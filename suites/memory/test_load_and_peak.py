"""Load time and peak memory against the plan: weights, KV cache, activations, context."""

import pytest

from pytest_qwen import gpu, max_load_time, max_vram, model, workload
from pytest_qwen.data import find_shape

MODELS = (
    "Qwen/Qwen2.5-Coder-7B-Instruct",
    "Qwen/Qwen2.5-Coder-32B-Instruct",
    "Qwen/Qwen3-32B",
    "Qwen/Qwen3-30B-A3B",
    "Qwen/Qwen3-Coder-30B-A3B-Instruct",
)
# Beside the weights: CUDA context, kernels, one prompt's activations, a small KV cache.
BESIDE_WEIGHTS_GB = 3.0


def case(name: str):
    """One model with its bound: the bytes of its weights and a fixed amount beside them."""
    weights_gb = find_shape(name).weights_bytes("bfloat16") / 1e9
    return pytest.param(
        weights_gb,
        id=name.rsplit("/", maxsplit=1)[-1],
        marks=[model(name), max_vram(weights_gb + BESIDE_WEIGHTS_GB)],
    )


@pytest.mark.parametrize("weights_gb", [case(name) for name in MODELS])
@gpu
@model(optimize="eager", max_model_len=256)
@workload(prompt_tokens=64, output_tokens=32)
@max_load_time(600)
def test_peak_is_the_weights_and_little_more(llm, published, weights_gb):
    """Nothing is held twice, and what is loaded has the size that its configuration says."""
    measured = llm.measure()
    peak_gb = measured.observed["vram_gb"]
    row = ("code-generation", "performance on H100 NVL", llm.spec.model.rsplit("/", maxsplit=1)[-1])
    published(*row, memory_used_gb=peak_gb)
    assert peak_gb >= weights_gb
    assert llm.loaded.weights_bytes / 1e9 == pytest.approx(weights_gb, rel=0.01)


@gpu("cpu")
@model("embedded/qwen2-tiny")
@workload(prompt_tokens=16, output_tokens=8)
@max_load_time(120)
@max_vram(8)
def test_embedded_load(llm):
    """The same bounds without a GPU: resident memory of the engine's process."""
    assert llm.measure().observed["vram_gb"] > 0
