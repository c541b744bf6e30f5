"""A serving configuration recomputed: sizes by hand, shares on one definition, contradictions by name."""

from decimal import Decimal

import pytest

from pytest_qwen.errors import Misuse
from pytest_qwen.optimization import optimization
from pytest_qwen.published import Row

GOOD = {
    "model": "Qwen/Qwen3-8B",
    "gpu": "h100",
    "sequences": 8,
    "context_tokens": 32768,
}


def made(**fields):
    return optimization(Row(document="d", table="t", name="mine", fields={"row": "mine", **GOOD, **fields}))


def test_the_sizes_are_those_of_the_shape():
    found = made()
    assert found.weights_gb == pytest.approx(2 * 8.190735360)
    # 2 x 36 layers x 8 KV heads x 128 x 2 bytes a token
    assert found.kv_cache_gb == pytest.approx(8 * 32768 * 147_456 / 1e9)
    assert found.total_gb > found.weights_gb + found.kv_cache_gb + found.activations_gb
    assert found.memory_percent == pytest.approx(found.total_gb / 80 * 100)
    assert found.batch == 8
    assert found.contradictions == ()


def test_the_busier_peak_is_at_a_hundred_and_rates_follow_from_it():
    found = made()
    shares = found.shares
    assert shares.bandwidth == pytest.approx(100)
    read = found.setup.step_bytes()
    assert found.tokens_per_sec == pytest.approx(8 * 3350e9 / read)
    flops = 8 * found.setup.shape.flops_per_token(32768)
    assert shares.compute == pytest.approx(100 * flops / 989e12 / (read / 3350e9))


def test_many_short_sequences_are_held_by_compute():
    shares = made(sequences=2000, context_tokens=16).shares
    assert shares.compute == pytest.approx(100)
    assert shares.bandwidth < 100


def test_what_does_not_fit_is_cut_to_what_does():
    found = made(sequences=64)
    assert found.memory_percent > 100
    assert 0 < found.batch < 64
    assert found.shares.memory <= 100
    assert (
        f"would fit: {found.batch} x 32768 tokens, or 64 x {found.longest_context} tokens" in found.explain()
    )


def test_weights_beyond_the_card_leave_no_shares():
    found = made(model="meta-llama/Llama-3.3-70B-Instruct")
    assert (found.batch, found.longest_context, found.shares, found.tokens_per_sec) == (0, 0, None, None)


def test_percentages_that_no_speed_gives_are_named():
    right = made()
    shares = {"memory": 70, "compute": right.shares.compute / 2, "bandwidth": right.shares.bandwidth / 2}
    stated = {name: Decimal(f"{value:.2f}") for name, value in shares.items()}
    assert made(utilization_percent=stated).contradictions == ()
    wrong = made(utilization_percent={**stated, "compute": Decimal("25.0")}).contradictions
    assert [text for text in wrong if "at any speed" in text]


def test_a_mean_of_different_things_is_named():
    stated = {"memory": 90, "compute": 30, "bandwidth": 60}
    texts = made(utilization_percent=stated, overall_percent=Decimal("60.0")).contradictions
    assert any("is the mean of memory, compute and bandwidth" in text for text in texts)
    texts = made(utilization_percent=stated, overall_percent=Decimal("55.0")).contradictions
    assert not any("is the mean of" in text for text in texts)


def test_a_context_beyond_the_positions_is_named():
    assert any("the model has 40960 positions" in text for text in made(context_tokens=65536).contradictions)


def test_a_row_of_another_kind_is_refused():
    with pytest.raises(Misuse, match="no serving configuration"):
        optimization(Row(document="d", table="t", name="other", fields={"row": "other"}))
