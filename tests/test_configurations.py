"""Configurations that are wrong: one message each, before anything is computed from them."""

import pytest

from pytest_qwen.configurations import UncommonAttention, check_context, check_split, shape_from_config
from pytest_qwen.data import find_config, find_shape
from pytest_qwen.errors import Misuse

DENSE = dict(find_config("Qwen/Qwen2.5-Coder-7B-Instruct") or {})
MOE = dict(find_config("Qwen/Qwen3-30B-A3B") or {})


def without(config, *names):
    return {name: value for name, value in config.items() if name not in names}


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (without(DENSE, "hidden_size", "vocab_size"), "does not say hidden_size, vocab_size"),
        ({}, "does not say num_hidden_layers, hidden_size"),
        ({**DENSE, "num_hidden_layers": None}, "does not say num_hidden_layers"),
        (without(MOE, "num_experts_per_tok"), "does not say num_experts_per_tok"),
        ({**DENSE, "num_key_value_heads": 5}, "28 attention heads cannot share 5 KV heads evenly"),
        ({**DENSE, "hidden_size": 3585}, "hidden_size 3585 is no multiple of 28 heads"),
        ({**MOE, "num_experts_per_tok": 129}, "each token takes 129 of 128 experts"),
        ({**DENSE, "num_hidden_layers": 0}, "num_hidden_layers = 0 is not a whole number of 1 or more"),
        ({**DENSE, "num_hidden_layers": -3}, "num_hidden_layers = -3"),
        ({**DENSE, "num_hidden_layers": True}, "num_hidden_layers = True"),
        ({**DENSE, "num_hidden_layers": "28"}, "num_hidden_layers = '28'"),
        ({**DENSE, "num_attention_heads": 28.0}, "num_attention_heads = 28.0"),
        ({**DENSE, "num_key_value_heads": 0}, "num_key_value_heads = 0"),
        ({**MOE, "head_dim": -128}, "head_dim = -128"),
        ({**MOE, "moe_intermediate_size": False}, "moe_intermediate_size = False"),
        ({**MOE, "decoder_sparse_step": 0}, "decoder_sparse_step = 0"),
        ({**DENSE, "max_position_embeddings": -1}, "max_position_embeddings = -1"),
    ],
)
def test_a_wrong_configuration_is_one_message(config, said):
    with pytest.raises(Misuse) as caught:
        shape_from_config(config, "mine")
    assert said in str(caught.value)
    assert "'mine'" in str(caught.value)


def test_what_may_be_left_out_may_be_null():
    config = {**DENSE, "num_key_value_heads": None, "head_dim": None, "max_position_embeddings": None}
    shape = shape_from_config(config, "mine")
    assert (shape.kv_heads, shape.head_dim, shape.max_positions) == (28, 128, None)


def test_a_head_dimension_of_its_own_frees_the_hidden_size():
    assert shape_from_config({**DENSE, "head_dim": 128, "hidden_size": 3600}, "mine").head_dim == 128


@pytest.mark.parametrize(
    ("scaling", "positions"),
    [
        (None, 32768),
        ({"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}, 131072),
        ({"rope_type": "llama3", "factor": 2.0, "original_max_position_embeddings": 8192}, 32768),
        ({"rope_type": "linear", "factor": 2}, 65536),
        ({"rope_type": "default"}, 32768),
        ({"type": "mrope", "mrope_section": [16, 24, 24]}, 32768),
    ],
)
def test_rope_scaling_stretches_the_positions(scaling, positions):
    assert shape_from_config({**DENSE, "rope_scaling": scaling}, "mine").max_positions == positions
    assert shape_from_config({**DENSE, "rope_parameters": scaling}, "mine").max_positions == positions


def test_a_context_ends_where_the_positions_do():
    shape = find_shape("Qwen/Qwen3-8B")
    check_context(shape, 40960, "a mark")
    with pytest.raises(
        Misuse, match=r"40961 tokens is beyond the 40960 of Qwen/Qwen3-8B(.|\n)*asked: a mark"
    ):
        check_context(shape, 40961, "a mark")


@pytest.mark.parametrize(
    ("count", "able"), [(1, True), (2, True), (4, True), (3, False), (7, False), (8, False)]
)
def test_cards_share_whole_heads(count, able):
    shape = find_shape("Qwen/Qwen2.5-Coder-7B-Instruct")  # 28 heads, 4 KV heads
    if able:
        check_split(shape, count)
        return
    with pytest.raises(Misuse, match=r"cannot share 28 heads and 4 KV heads evenly(.|\n)*valid: 1, 2, 4$"):
        check_split(shape, count)


def test_an_attention_without_known_arithmetic_is_unknown_not_wrong(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "deepseek_v3", "kv_lora_rank": 512}')
    assert find_shape(str(tmp_path)) is None
    with pytest.raises(UncommonAttention):
        shape_from_config(find_config(str(tmp_path)), "mine")
