"""The most that five coder models can do on three cards by precision: computed, nothing is loaded."""

import pytest

from pytest_qwen.bounds import BOUND_KINDS, Bound
from pytest_qwen.data import find_shape
from pytest_qwen.gpus import lookup
from pytest_qwen.memory import fit
from pytest_qwen.physics import Setup, ceiling, refusal

MODELS = (
    "Qwen/Qwen2.5-Coder-7B-Instruct",
    "Qwen/Qwen2.5-Coder-32B-Instruct",
    "Qwen/Qwen3-32B",
    "Qwen/Qwen3-30B-A3B",
    "Qwen/Qwen3-Coder-30B-A3B-Instruct",
)
CARDS = {"t4": "float16", "l4": "bfloat16", "h100-nvl": "bfloat16"}
PRECISIONS = (None, "int8", "int4")


def setup(name: str, card: str, quantization: str | None) -> Setup:
    shape = find_shape(name)
    assert shape is not None
    return Setup(shape=shape, gpu=lookup(card), dtype=CARDS[card], quantization=quantization)


@pytest.mark.parametrize("card", CARDS)
@pytest.mark.parametrize("name", MODELS)
def test_ceilings_by_precision(name, card, record_property):
    """Fewer bits raise the ceiling; what does not fit has none."""
    rates = []
    for quantization in PRECISIONS:
        asked = setup(name, card, quantization)
        plan, top = fit(asked), ceiling(asked)
        assert plan is not None
        assert top is not None
        rates.append(top.tokens_per_sec)
        said = f"at most {top.tokens_per_sec:.1f} tok/s" if plan.fits else "does not fit"
        record_property(f"qwen.ceiling.{quantization or CARDS[card]}", said)
    assert rates == sorted(rates)


def test_thirty_tokens_a_second_on_an_l4_need_fewer_bits(record_property):
    """The published 30 tok/s of a 7B model on an L4: refused in 16 bits, possible in 8 and in 4."""
    kind = BOUND_KINDS["min_tokens_per_sec"]
    bound = Bound(
        marker=kind.marker, metric=kind.metric, direction=kind.direction, limit=30.0, unit=kind.unit
    )
    refused = {bits: refusal(bound, setup(MODELS[0], "l4", bits)) for bits in PRECISIONS}
    assert refused[None] is not None
    assert "int8" in refused[None]
    assert "int4" in refused[None]
    assert refused["int8"] is None
    assert refused["int4"] is None
    record_property("answer", refused[None])
