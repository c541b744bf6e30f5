"""Five models, eager and fully optimised, on whatever GPU this is: decode rate against its own ceiling.

Bounds are shares of the bandwidth roofline (MBU), so that they hold on any card; the published absolute
figures are checked in `test_published_rates.py`.
"""

import pytest

from pytest_qwen import gpu, max_ttft, min_mbu, min_tokens_per_sec, model, workload

DENSE = (
    "Qwen/Qwen2.5-Coder-7B-Instruct",
    "Qwen/Qwen2.5-Coder-32B-Instruct",
    "Qwen/Qwen3-32B",
)
EXPERTS = ("Qwen/Qwen3-30B-A3B", "Qwen/Qwen3-Coder-30B-A3B-Instruct")

pytestmark = [gpu, workload(prompt_tokens=64, output_tokens=128)]


@pytest.mark.parametrize("name", [pytest.param(name, marks=model(name)) for name in DENSE])
@model(optimize="max", max_model_len=256)
@min_mbu(0.5)
@max_ttft(250)
def test_dense_at_its_best(llm, name):
    """A compiled, graph-captured dense model reads its weights at half the card's bandwidth or better."""
    assert llm.measure().rounds


@pytest.mark.parametrize("name", [pytest.param(name, marks=model(name)) for name in EXPERTS])
@model(optimize="max", max_model_len=256)
@min_mbu(0.25)
@max_ttft(500)
def test_experts_at_their_best(llm, name):
    """A mixture of experts reads little a step and fixed costs weigh more: a quarter of the bandwidth."""
    assert llm.measure().rounds


@pytest.mark.parametrize("name", [pytest.param(name, marks=model(name)) for name in DENSE + EXPERTS])
@model(optimize="eager", max_model_len=256)
@workload(output_tokens=64)
@min_tokens_per_sec(5)
def test_eager(llm, name):
    """As transformers runs it. On a fast card this measures the host, far below the ceiling."""
    assert llm.measure().rounds
