"""KV caches of codes: how near they are, what they take, and that every profile decodes with them alike."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from transformers import Qwen2Config  # noqa: E402

from pytest_qwen.engines import decode  # noqa: E402
from pytest_qwen.engines.kv_cache import CODINGS, Store  # noqa: E402

# The largest error of a code, as a share of the vector's largest value: half a step.
STEP = {"fp8": 2**-4, "int8": 0.5 / 127, "int4": 0.5 / 7}


def states(batch: int = 2, heads: int = 3, length: int = 5, width: int = 16):
    return torch.randn(batch, heads, length, width, generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize("kind", CODINGS)
def test_codes_are_near_what_they_stand_for(kind) -> None:
    coding, values = CODINGS[kind], states()
    codes, scales = coding.encode(values)
    again = coding.decode(codes, scales, values.dtype)
    top = values.abs().amax(-1, keepdim=True)
    assert ((again - values).abs() <= STEP[kind] * 1.01 * top).all()
    assert codes.shape[-1] == coding.width(16)
    assert not torch.equal(again, values)


def test_a_vector_of_zeros_stays_zero() -> None:
    for coding in CODINGS.values():
        codes, scales = coding.encode(torch.zeros(1, 1, 1, 4))
        assert not coding.decode(codes, scales, torch.float32).any()


def test_what_eight_bit_floats_cannot_hold_is_cut_and_not_lost() -> None:
    coding = CODINGS["fp8"]
    codes, _ = coding.encode(torch.tensor([1e6, -1e6]))
    assert coding.decode(codes, None, torch.float32).tolist() == [448.0, -448.0]


@pytest.mark.parametrize("kind", CODINGS)
def test_a_store_gives_back_what_was_put_where(kind) -> None:
    values = states()
    store = Store(CODINGS[kind], values, 8)
    store.put(values, torch.arange(5))
    newest = states(length=1) + 1
    store.put(newest, torch.tensor([6]))
    held = store.get()
    assert held.shape == (2, 3, 8, 16)
    coding = CODINGS[kind]
    assert torch.equal(held[:, :, :5], coding.decode(*coding.encode(values), values.dtype))
    assert torch.equal(held[:, :, 6:7], coding.decode(*coding.encode(newest), values.dtype))
    assert not held[:, :, 5].any()


def model():
    config = Qwen2Config(
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=256,
        max_position_embeddings=128,
        initializer_range=0.2,
    )
    return decode.build_model(config, dtype=torch.float32, device="cpu")


def tokens(profile: str, kv_cache: str | None, count: int = 12):
    ids = torch.randint(0, 256, (2, 9), generator=torch.Generator().manual_seed(3))
    decoder = decode.Decoder(model(), decode.PROFILES[profile], max_batch=2, max_len=64, kv_cache=kv_cache)
    first = decoder.run(ids, count).token_ids
    assert torch.equal(decoder.run(ids, count).token_ids, first)  # a cache that is used again starts afresh
    assert any(f"cache in {kv_cache}" in text for text in decoder.applied) == (kv_cache is not None)
    return first


@pytest.mark.parametrize("kind", CODINGS)
def test_a_growing_and_a_fixed_cache_hold_the_same(kind) -> None:
    assert torch.equal(tokens("eager", kind), tokens("static", kind))


@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_a_prompt_that_is_not_coded_begins_with_the_same_token(kind) -> None:
    """The profile with its own attention reads the prompt's keys before they are codes."""
    assert torch.equal(tokens("max", kind, count=1), tokens("max", None, count=1))
    assert tokens("max", kind).shape == (2, 12)
