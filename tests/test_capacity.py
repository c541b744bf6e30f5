"""What a card holds at most, how fast that can be, and which model is recommended."""

from dataclasses import replace

import pytest

from pytest_qwen.capacity import (
    Precision,
    capacity,
    compute_steps_per_sec,
    decode_rate,
    largest_batch,
    longest_context,
    native_dtype,
    recommend,
)
from pytest_qwen.data import find_shape
from pytest_qwen.errors import Misuse
from pytest_qwen.gpus import CPU, lookup
from pytest_qwen.physics import Setup, ceiling, fit

CODER_7B = find_shape("Qwen/Qwen2.5-Coder-7B-Instruct")
CODER_32B = find_shape("Qwen/Qwen2.5-Coder-32B-Instruct")
MOE = find_shape("Qwen/Qwen3-30B-A3B")
LLAMA = find_shape("meta-llama/Llama-3.3-70B-Instruct")


def setup(gpu="l4", shape=CODER_7B, **more):
    return Setup(shape=shape, gpu=lookup(gpu), **{"prompt_tokens": 1920, "output_tokens": 128, **more})


def fits(asked):
    return fit(asked).fits


@pytest.mark.parametrize(
    "asked",
    [
        setup(),
        setup("h100", CODER_32B, quantization="int4"),
        setup("h100", MOE),
        setup("h100", LLAMA, count=2, quantization="int8"),
        setup("rtx4090", CODER_32B, quantization="int4", kv_dtype="fp8"),
    ],
    ids=lambda asked: asked.label,
)
def test_the_largest_batch_fits_and_one_more_does_not(asked):
    most = largest_batch(asked)
    assert most > 0
    assert fits(replace(asked, batch=most))
    assert not fits(replace(asked, batch=most + 1))


@pytest.mark.parametrize("asked", [setup(batch=32), setup("rtx4090", CODER_32B, quantization="int4")])
def test_the_longest_context_fits_and_one_more_token_does_not(asked):
    longest = longest_context(asked)
    assert asked.output_tokens < longest < asked.shape.max_positions
    assert fits(replace(asked, prompt_tokens=longest - asked.output_tokens))
    assert not fits(replace(asked, prompt_tokens=longest - asked.output_tokens + 1))


def test_a_context_ends_with_the_models_positions():
    assert longest_context(setup("h200")) == CODER_7B.max_positions


def test_what_does_not_fit_holds_no_sequence():
    asked = setup("l4", CODER_32B)
    assert (largest_batch(asked), longest_context(asked)) == (0, 0)
    found = capacity(asked)
    assert (found.verdict, found.full_rate, found.full_usd_per_mtok) == ("impossible", None, None)


def test_fewer_bits_in_the_cache_hold_more():
    plain, halved = setup(batch=1), setup(batch=1, kv_dtype="fp8")
    assert largest_batch(halved) > largest_batch(plain)


@pytest.mark.parametrize(
    ("asked", "verdict"),
    [
        (setup(), "feasible"),
        (setup(batch=largest_batch(setup())), "tight"),
        (setup(batch=200), "too large"),
        (setup("rtx3070"), "impossible"),
        (Setup(shape=CODER_7B, gpu=CPU), "unknown"),
    ],
)
def test_the_verdict(asked, verdict):
    found = capacity(asked)
    assert found.verdict == verdict
    assert found.as_dict()["outlook"] == verdict


def test_one_sequence_is_held_by_bandwidth_and_many_by_compute():
    one, many = setup("l4", prompt_tokens=32), setup("l4", prompt_tokens=32, batch=4096)
    assert decode_rate(one).bound_by == "memory bandwidth"
    assert decode_rate(one).tokens_per_sec == ceiling(one).tokens_per_sec
    busy = decode_rate(many)
    assert busy.bound_by == "compute"
    assert busy.tokens_per_sec == compute_steps_per_sec(many) < ceiling(many).tokens_per_sec
    # 121 TFLOP/s with a tenth of headroom, over two FLOPs a weight and the attention of the mean context
    flops = CODER_7B.flops_per_token(32 + 64)
    assert busy.system_tokens_per_sec == pytest.approx(1.1 * 121e12 / flops)


def test_the_compute_limit_is_left_out_where_it_is_not_known():
    assert decode_rate(setup("rtx3060", quantization="int4", batch=4096)).bound_by == "memory bandwidth"


def test_cost_is_price_over_the_whole_rate():
    listed, given = capacity(setup(batch=4)), capacity(setup(batch=4), price_per_hour_usd=1.5)
    assert listed.usd_per_mtok == pytest.approx(0.75 / listed.rate.system_tokens_per_sec / 3600 * 1e6)
    assert given.usd_per_mtok == pytest.approx(2 * listed.usd_per_mtok)
    assert listed.full_usd_per_mtok < listed.usd_per_mtok
    assert capacity(setup("h100")).usd_per_mtok is None


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"prompt_tokens": 40000}, "40128 tokens is beyond the 32768"),
        ({"count": 3}, "3 cards cannot share 28 heads"),
        ({"quantization": "int5"}, "quantization 'int5' is not known"),
        ({"kv_dtype": "fp7"}, "KV cache type 'fp7' is not known"),
    ],
)
def test_what_makes_no_sense_is_refused(more, said):
    with pytest.raises(Misuse, match=said):
        capacity(setup(**more))


@pytest.mark.parametrize(
    ("name", "dtype", "quantization"),
    [("bf16", "bfloat16", None), ("float16", "float16", None), ("int4", None, "int4"), ("awq", None, "awq")],
)
def test_a_precision_by_its_name(name, dtype, quantization):
    assert Precision.named(name) == Precision(dtype=dtype, quantization=quantization)


def test_an_unknown_precision_is_named():
    with pytest.raises(Misuse, match="did you mean"):
        Precision.named("int3")


@pytest.mark.parametrize(
    ("capability", "dtype"),
    [("7.5", "float16"), ("8.0", "bfloat16"), ("10.0", "bfloat16"), (None, "bfloat16")],
)
def test_the_cards_own_dtype(capability, dtype):
    assert native_dtype(capability) == dtype


def recommended(card, *, count=1, **more):
    precisions = [Precision(), Precision(quantization="int8"), Precision(quantization="int4")]
    shapes = [CODER_7B, MOE, LLAMA, CODER_32B]
    found = recommend(
        shapes,
        precisions,
        lambda shape, precision: setup(card, shape, quantization=precision.quantization, count=count, **more),
    )
    return [(one.setup.shape, one.setup.quantization) for one in found]


def test_the_largest_model_in_the_most_bits_comes_first():
    assert recommended("l4") == [(CODER_32B, "int4"), (MOE, "int4"), (CODER_7B, None)]
    assert recommended("h100") == [(LLAMA, "int8"), (CODER_32B, None), (MOE, None), (CODER_7B, None)]


def test_two_cards_hold_more_and_four_kv_heads_are_no_match_for_eight_cards():
    assert recommended("h100", count=2)[0] == (LLAMA, None)
    assert {shape for shape, _ in recommended("h100", count=8)} == {LLAMA, CODER_32B}


def test_a_long_context_leaves_out_models_without_the_positions():
    assert {shape for shape, _ in recommended("h200", prompt_tokens=60_000)} == {LLAMA}


def test_nothing_is_recommended_where_nothing_fits():
    assert recommended("rtx3070", batch=500) == []
