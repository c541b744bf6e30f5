"""Model shapes: counts against the published ones and transformers, bytes against measured loads."""

from dataclasses import replace

import pytest

from pytest_qwen.configurations import shape_from_config
from pytest_qwen.data import find_config, find_shape, known_models
from pytest_qwen.errors import Misuse

CODER_7B = "Qwen/Qwen2.5-Coder-7B-Instruct"
MOE = "Qwen/Qwen3-30B-A3B"


def shape(model):
    found = find_shape(model)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        (CODER_7B, 7_615_616_512),
        ("Qwen/Qwen2.5-Coder-32B-Instruct", 32_763_876_352),
        ("Qwen/Qwen3-32B", 32_762_123_264),
        (MOE, 30_532_122_624),
        ("Qwen/Qwen3-Coder-30B-A3B-Instruct", 30_532_122_624),
        ("Qwen/Qwen3-8B", 8_190_735_360),
        ("Qwen/Qwen3-14B", 14_768_307_200),
        ("Qwen/Qwen-7B", 7_721_324_544),
        ("meta-llama/Llama-3.3-70B-Instruct", 70_553_706_496),
    ],
)
def test_parameters_are_exact(model, parameters):
    assert shape(model).parameters == parameters


def test_a_token_uses_only_the_chosen_experts():
    assert shape(MOE).active_parameters == pytest.approx(3.35e9, rel=0.002)
    assert shape(CODER_7B).active_parameters == shape(CODER_7B).parameters


@pytest.mark.slow
@pytest.mark.parametrize("model", [m for m in known_models() if not m.startswith("Qwen/Qwen-")])
def test_parameters_agree_with_transformers(model):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = dict(find_config(model) or {})
    made = transformers.AutoConfig.for_model(**config)
    with torch.device("meta"):
        built = transformers.AutoModelForCausalLM.from_config(made)
    assert sum(p.numel() for p in built.parameters()) == shape(model).parameters


@pytest.mark.parametrize(
    ("model", "kv_bytes"),
    [
        (CODER_7B, 57_344),
        ("Qwen/Qwen2.5-Coder-32B-Instruct", 262_144),
        ("Qwen/Qwen3-32B", 262_144),
        (MOE, 98_304),
    ],
)
def test_kv_cache_counts_grouped_heads(model, kv_bytes):
    assert shape(model).kv_bytes_per_token() == kv_bytes
    assert shape(model).kv_bytes_per_token("fp8") == kv_bytes / 2


# Device memory after loading the 7B shape on an H200; some 0.05 GB of each are buffers and rounding.
@pytest.mark.parametrize(
    ("quantization", "measured_gb", "tolerance"),
    [
        (None, 15.28, 0.005),
        ("int8", 8.74, 0.01),
        ("fp8", 8.74, 0.01),
        ("nf4", 5.60, 0.015),
        # the measured kernel pads each matrix to multiples of 1,024 inputs (3,584 becomes 4,096)
        ("int4", 6.04, 0.07),
    ],
)
def test_bytes_of_weights_agree_with_measured_loads(quantization, measured_gb, tolerance):
    assert shape(CODER_7B).weights_bytes("bfloat16", quantization) / 1e9 == pytest.approx(
        measured_gb, rel=tolerance
    )


def test_int4_agrees_once_the_kernels_padding_is_counted():
    base = shape(CODER_7B)
    padded_inputs = replace(base, model_id="padded", hidden=4096)
    widths = (
        base.heads + 2 * base.kv_heads
    ) * base.head_dim + 2 * base.intermediate  # read from the hidden state
    output = base.hidden * base.heads * base.head_dim * 4096 / 3584
    down = base.hidden * 19456  # 18,944 inputs become 19,456
    quantized = base.layers * (padded_inputs.hidden * widths + output + down)
    full = 2 * 2 * base.embedding_parameters
    assert (quantized * (0.5 + 4 / 128) + full) / 1e9 == pytest.approx(6.04, rel=0.005)


# Ceilings that were computed for the measured runs, at the 4.28 TB/s that the card copied at.
@pytest.mark.parametrize(
    ("model", "ceiling"), [(CODER_7B, 303), ("Qwen/Qwen2.5-Coder-32B-Instruct", 67), (MOE, 705)]
)
def test_bytes_read_a_token_give_the_known_ceilings(model, ceiling):
    assert 4.28e12 / shape(model).read_bytes_per_step() == pytest.approx(ceiling, rel=0.005)


def test_a_batch_reads_more_experts_but_dense_weights_once():
    moe, dense = shape(MOE), shape(CODER_7B)
    assert moe.expected_experts(1) == pytest.approx(8)
    assert moe.expected_experts(2) == pytest.approx(8 + 8 * (1 - 8 / 128))
    assert moe.expected_experts(10_000) == pytest.approx(128)
    assert dense.read_bytes_per_step(batch=64) == dense.read_bytes_per_step()
    assert moe.read_bytes_per_step(batch=64, distinct_experts=8) == moe.read_bytes_per_step()


def test_a_tied_head_is_held_and_read_once():
    untied = shape(CODER_7B)
    tied = replace(untied, tied_embeddings=True)
    assert untied.parameters - tied.parameters == untied.embedding_parameters
    assert tied.read_bytes_per_step() == untied.read_bytes_per_step()


def test_flops_are_two_a_weight_and_four_a_cached_value():
    dense = shape(CODER_7B)
    multiplied = dense.parameters - dense.embedding_parameters
    assert dense.flops_per_token(0) == pytest.approx(2 * multiplied, rel=1e-3)
    assert dense.flops_per_token(1000) - dense.flops_per_token(0) == 4 * 28 * 28 * 128 * 1000


def test_a_prompt_needs_the_head_once_a_sequence():
    dense = shape(CODER_7B)
    one, two = dense.prefill_flops(1), dense.prefill_flops(2)
    assert one == dense.flops_per_token(1)
    assert two - one < one
    assert dense.prefill_flops(64, batch=3) == 3 * dense.prefill_flops(64)


@pytest.mark.parametrize("ask", [{"dtype": "bfloat61"}, {"quantization": "int5"}])
def test_an_unknown_number_format_is_named(ask):
    with pytest.raises(Misuse, match="did you mean"):
        shape(CODER_7B).weights_bytes(**ask)


def test_a_missing_field_is_named():
    config = dict(find_config(CODER_7B) or {})
    del config["num_hidden_layers"]
    with pytest.raises(Misuse, match="num_hidden_layers"):
        shape_from_config(config, "mine")


def test_an_attention_that_the_formulas_do_not_cover_is_refused():
    config = {
        **(find_config("Qwen/Qwen3-8B") or {}),
        "linear_num_value_heads": 32,
        "model_type": "qwen3_next",
    }
    with pytest.raises(Misuse, match="attention"):
        shape_from_config(config, "mine")


def test_mixtral_like_configurations_are_understood():
    config = {
        "model_type": "mixtral",
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
        "vocab_size": 32000,
    }
    mixtral = shape_from_config(config, "mixtral")
    assert mixtral.parameters == 46_702_792_704
    assert mixtral.active_parameters == pytest.approx(12.9e9, rel=0.01)


def test_layers_off_the_sparse_step_are_dense():
    config = {**(find_config(MOE) or {}), "decoder_sparse_step": 2, "mlp_only_layers": [1]}
    mixed = shape_from_config(config, "mixed")
    assert mixed.dense_layers == 25  # every other layer of 48, and layer 1, which the step would make sparse
