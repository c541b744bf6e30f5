"""Fit, ceilings and refusals: the arithmetic, and that nothing is refused that hardware could do."""

from dataclasses import replace

import pytest

from pytest_qwen.bounds import BOUND_KINDS, Bound
from pytest_qwen.data import find_shape
from pytest_qwen.gpus import CPU, Device, lookup
from pytest_qwen.physics import Setup, best_possible, ceiling, fit, mbu, mfu, refusal, usd_per_mtok
from pytest_qwen.roofline import peak_flops_per_sec

CODER_7B = find_shape("Qwen/Qwen2.5-Coder-7B-Instruct")
CODER_32B = find_shape("Qwen/Qwen2.5-Coder-32B-Instruct")
MOE = find_shape("Qwen/Qwen3-30B-A3B")


def setup(shape=CODER_7B, gpu="l4", **more):
    return Setup(shape=shape, gpu=lookup(gpu), **{"dtype": "float16", **more})


def bound(marker, limit, metric=None):
    kind = BOUND_KINDS[marker]
    return Bound(
        marker=marker,
        metric=metric or kind.metric,
        direction=kind.direction,
        limit=limit,
        unit=kind.unit,
        judged=kind.judged,
    )


def test_the_ceiling_of_a_7b_on_an_l4_is_its_bandwidth_over_its_bytes():
    top = ceiling(setup(prompt_tokens=0, output_tokens=0))
    assert top.tokens_per_sec == pytest.approx(21.2, rel=0.002)
    assert top.bytes_per_step == pytest.approx(14.14e9, rel=0.001)
    assert "7.07 B weights in float16" in top.arithmetic
    assert "L4 moves 300 GB/s; at most 21.2 tok/s" in top.arithmetic


def test_context_lowers_the_ceiling_and_batching_raises_that_of_the_system():
    short, long = ceiling(setup()), ceiling(setup(prompt_tokens=32_000))
    assert long.tokens_per_sec < short.tokens_per_sec
    batched = ceiling(setup(batch=16))
    assert batched.system_tokens_per_sec == pytest.approx(16 * batched.tokens_per_sec)
    assert batched.system_tokens_per_sec > 15 * short.tokens_per_sec
    assert "a step of 16 sequences" in batched.arithmetic


def test_cards_share_the_reading():
    assert ceiling(setup(count=2)).tokens_per_sec == pytest.approx(2 * ceiling(setup()).tokens_per_sec)


def test_a_mixture_of_experts_reads_the_chosen_ones():
    top = ceiling(setup(MOE, "h200", dtype="bfloat16", prompt_tokens=0, output_tokens=0))
    assert top.tokens_per_sec == pytest.approx(4.8e12 / 6.084e9, rel=0.001)
    assert "3.04 B active weights" in top.arithmetic


def test_a_batch_of_experts_never_refuses_what_routing_could_allow():
    many = setup(MOE, "h200", dtype="bfloat16", batch=64)
    assert ceiling(many, least=True).tokens_per_sec > 5 * ceiling(many).tokens_per_sec


@pytest.mark.parametrize(
    "gpu", [CPU, Device(index=0, uuid="u", name="New Card", spec=None, memory_bytes=2**34)]
)
def test_an_unknown_card_gives_no_ceiling_and_no_refusal(gpu):
    unknown = replace(setup(), gpu=gpu)
    assert ceiling(unknown) is None
    assert refusal(bound("min_tokens_per_sec", 1e9), unknown) is None


def test_an_unknown_number_format_gives_no_answer_instead_of_a_guess():
    unknown = setup(quantization="q4_k_m")
    assert ceiling(unknown) is None
    assert fit(unknown) is None
    assert refusal(bound("min_tokens_per_sec", 1e9), unknown) is None
    assert refusal(bound("max_vram", 0.1), unknown) is None


def test_a_plan_has_a_line_for_each_need_and_its_sum():
    plan = fit(setup(CODER_32B, "h100-nvl", dtype="bfloat16", prompt_tokens=32_768, output_tokens=0))
    size = dict(plan.lines)
    assert size["KV cache (1 x 32768 tokens, 8 KV heads)"] == pytest.approx(8.59e9, rel=0.001)
    assert size["weights (bfloat16)"] == pytest.approx(65.53e9, rel=0.001)
    assert plan.total_bytes == sum(size.values())
    assert plan.fits
    assert not plan.tight
    assert "8.59 GB: KV cache" in plan.explain("32B on one card")


def test_a_model_that_is_too_large_is_hopeless_and_two_cards_help():
    one = fit(setup(CODER_32B, "a100-40"))
    two = fit(setup(CODER_32B, "a100-40", count=2, prompt_tokens=32_000))
    assert one.hopeless
    assert not one.fits
    assert not two.hopeless
    assert two.fits
    assert two.tight


def test_a_device_is_planned_with_its_real_memory():
    device = Device(index=0, uuid="u", name="NVIDIA L4", spec=lookup("l4"), memory_bytes=23034 * 2**20)
    assert fit(replace(setup(), gpu=device)).available_bytes == 23034 * 2**20
    assert ceiling(replace(setup(), gpu=device)).tokens_per_sec == ceiling(setup()).tokens_per_sec


def test_thirty_tokens_of_a_7b_on_an_l4_are_refused_with_what_lifts_it():
    text = refusal(bound("min_tokens_per_sec", 30), setup())
    assert "at most 21.2 tok/s" in text
    assert "int8 weights, 8.7 GB (at most 39" in text
    assert "int4 weights" in text
    assert "A10G" in text
    assert "batching" in text
    assert "speculative decoding" in text


# The best possible value of each metric for the 7B in fp16 on an L4, worked by hand.
BEST = {
    "min_tokens_per_sec": 21.2,
    "max_tpot": 47.15,
    "max_itl": 47.15,
    "max_ttft": 47.1,
    "min_prefill_tokens_per_sec": 1358,
    "max_e2e_latency": 47.1 + 127 * 47.15,
    "max_vram": 15.23,
    "min_mbu": 1.0,
    "min_mfu": 1.0,
    "max_usd_per_mtok": 0.75 / (128 / 6.035) / 3600 * 1e6,
}


@pytest.mark.parametrize("marker", BEST)
def test_every_bound_is_refused_beyond_its_limit_and_only_beyond(marker):
    best = best_possible(bound(marker, 1), setup())
    assert best == pytest.approx(BEST[marker], rel=0.002)
    beyond, within = (0.98, 1.02) if marker.startswith("max") else (1.02, 0.98)
    refused = refusal(bound(marker, best * beyond), setup())
    assert refused is not None
    assert marker in refused.splitlines()[0]
    assert refusal(bound(marker, best * within), setup()) is None


@pytest.mark.parametrize("marker", ["max_load_time", "max_joules_per_token", "max_slowdown"])
def test_bounds_without_a_known_limit_are_never_refused(marker):
    assert refusal(bound(marker, 1e-9), setup()) is None


def test_the_rate_of_the_system_is_refused_by_the_batch():
    system = bound("min_tokens_per_sec", 200, metric="output_tokens_per_sec")
    assert refusal(system, setup()) is not None
    assert refusal(system, setup(batch=16)) is None


def test_a_given_price_replaces_that_of_the_catalogue():
    cheap = bound("max_usd_per_mtok", 5)
    assert "at 0.75 USD an hour" in refusal(cheap, setup())
    assert refusal(cheap, setup(), price_per_hour_usd=0.1) is None
    assert refusal(cheap, setup(gpu="a10g")) is None  # no price is known


def test_a_long_prompt_is_refused_by_arithmetic_rate():
    text = refusal(bound("max_ttft", 500), setup(prompt_tokens=16_384))
    assert "TFLOP/s" in text
    assert refusal(bound("max_ttft", 500), setup(gpu="h100", prompt_tokens=16_384)) is None


def test_compute_rates_are_those_of_the_number_format():
    assert peak_flops_per_sec(lookup("h100"), "bfloat16") == 989e12
    assert peak_flops_per_sec(lookup("h100"), "bfloat16", "fp8") == 1979e12
    assert peak_flops_per_sec(lookup("h100"), "bfloat16", "int4") == 989e12
    assert peak_flops_per_sec(lookup("h100"), "bfloat16", "int8") is None
    assert peak_flops_per_sec(lookup("t4"), "bfloat16") is None


def test_an_allowed_vram_below_the_weights_is_refused_in_bits():
    text = refusal(bound("max_vram", 10), setup())
    assert "7.62 B weights of 16.0 bits" in text
    assert "int8 weights" in text
    assert refusal(bound("max_vram", 10), setup(count=2)) is None


def test_utilisation_and_cost_are_plain_ratios():
    assert mbu(14.14e9, 100.0, 300e9) == pytest.approx(0.471, rel=0.001)
    assert mfu(1e12, 0.5, 4e12) == 0.5
    assert usd_per_mtok(0.75, 30.2) == pytest.approx(6.90, rel=0.001)
