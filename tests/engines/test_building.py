"""Dummy models made module by module: the same whatever is done to them, and quantised as they come."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from torch import nn  # noqa: E402
from transformers import Qwen2Config, Qwen3MoeConfig  # noqa: E402

from pytest_qwen.data import find_shape  # noqa: E402
from pytest_qwen.engines import fusion  # noqa: E402
from pytest_qwen.engines.base import LoadSpec  # noqa: E402
from pytest_qwen.engines.building import build_model, fill_dummy  # noqa: E402
from pytest_qwen.engines.quantize import is_body_linear, quantizer  # noqa: E402
from pytest_qwen.engines.sources import config_of, source_of  # noqa: E402
from pytest_qwen.engines.transformers_ import TransformersEngine  # noqa: E402
from pytest_qwen.errors import Unavailable  # noqa: E402

SIZES = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 256,
    "max_position_embeddings": 128,
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "head_dim": 16}


def made(config, **arguments):
    return build_model(config, dtype=torch.float32, device="cpu", **arguments)


@pytest.mark.parametrize("tied", [True, False])
def test_every_tensor_is_there_and_initialised(tied) -> None:
    model = made(Qwen2Config(**SIZES, tie_word_embeddings=tied))
    tensors = [*model.parameters(), *model.buffers()]
    assert not any(t.is_meta for t in tensors)
    assert all(torch.isfinite(t).all() for t in tensors)
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == tied
    assert (model.model.norm.weight == 1).all()
    assert model.lm_head.weight.std() == pytest.approx(0.02, rel=0.1)
    assert (model.model.rotary_emb.inv_freq > 0).all()


def test_experts_are_there_too() -> None:
    model = made(Qwen3MoeConfig(**SIZES, **EXPERTS))
    assert all(torch.isfinite(p).all() and not p.is_meta for p in model.parameters())
    assert fusion.has_experts(model)


def test_projections_are_fused_before_anything_is_loaded() -> None:
    model = made(Qwen2Config(**SIZES), fuse=True)
    blocks = [m for m in model.modules() if isinstance(m, fusion.FusedAttention)]
    assert len(blocks) == 2
    assert all(torch.isfinite(block.qkv_proj.weight).all() for block in blocks)
    assert model(torch.zeros(1, 3, dtype=torch.long)).logits.shape == (1, 3, 256)


def test_at_most_one_layer_is_there_in_full_precision() -> None:
    """What is quantised is replaced before the next layer is drawn."""
    with torch.device("meta"):
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_config(Qwen2Config(**SIZES))
    alive: list[int] = []

    class Half(nn.Module):
        def __init__(self, layer: nn.Linear):
            super().__init__()
            self.weight = nn.Parameter(layer.weight.half(), requires_grad=False)

    def halve(layer: nn.Linear) -> nn.Module:
        full = [m for n, m in model.named_modules() if is_body_linear(m, n) and not m.weight.is_meta]
        alive.append(len(full))
        return Half(layer)

    fill_dummy(model, "cpu", halve)
    assert alive == [1] * 14
    assert type(model.lm_head) is nn.Linear
    assert isinstance(model.model.layers[0].mlp.up_proj, Half)


def test_int8_is_near_and_a_quarter_of_32_bits() -> None:
    pytest.importorskip("torchao")
    layer = nn.Linear(256, 128, bias=False)
    seen = layer.weight.detach().clone()
    found = quantizer("int8", torch.float32)(layer.requires_grad_(False))
    x = torch.randn(3, 256, generator=torch.Generator().manual_seed(1))
    exact = x @ seen.T
    assert not torch.equal(found(x), exact)
    assert ((found(x) - exact).norm() / exact.norm()) < 0.01


def test_a_quantised_engine_says_its_bytes_and_what_it_did() -> None:
    pytest.importorskip("torchao")
    asked = LoadSpec(
        engine="transformers",
        model="embedded/qwen2-tiny",
        weights="dummy",
        dtype="float32",
        quantization="int8",
        max_model_len=32,
    )
    loaded = TransformersEngine().load(asked)
    shape = find_shape("embedded/qwen2-tiny")
    assert shape is not None
    assert loaded.weights_bytes == pytest.approx(shape.weights_bytes("float32", "int8"), rel=0.01)
    assert any("torchao" in text for text in loaded.applied)


def test_experts_are_refused_before_anything_is_drawn() -> None:
    pytest.importorskip("torchao")
    asked = LoadSpec(
        engine="transformers", model="embedded/qwen3-moe-tiny", weights="dummy", quantization="int8"
    )
    with pytest.raises(Unavailable, match="mixtures of experts"):
        TransformersEngine().load(asked)


def test_the_first_generation_stands_in_by_its_equal() -> None:
    asked = LoadSpec(engine="transformers", model="Qwen/Qwen-1_8B", weights="dummy")
    config, said = config_of(asked, source_of(asked))
    with torch.device("meta"):
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_config(config)
    shape = find_shape("Qwen/Qwen-1_8B")
    assert shape is not None
    assert sum(p.numel() for p in model.parameters()) == shape.parameters
    assert said == ["Qwen as a Qwen2 of equal shape"]
