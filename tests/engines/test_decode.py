"""The decode loop on the CPU: every profile generates what the library's own `generate` does."""

from __future__ import annotations

import dataclasses
import itertools

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from transformers import Qwen2Config, Qwen3Config, Qwen3MoeConfig  # noqa: E402

from pytest_qwen.engines import decode, fusion, sessions  # noqa: E402

SIZES = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 256,
    "max_position_embeddings": 128,
    "tie_word_embeddings": False,
    "initializer_range": 0.2,  # wide enough that no two logits tie
}
EXPERTS = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "norm_topk_prob": True}
CONFIGS = {
    "qwen2": lambda: Qwen2Config(**SIZES),
    "qwen3": lambda: Qwen3Config(**SIZES, head_dim=16),
    "qwen3_moe": lambda: Qwen3MoeConfig(**SIZES, **EXPERTS, head_dim=16),
}


def model_of(name: str, experts: str | None = None, attention: str = "sdpa"):
    return decode.build_model(
        CONFIGS[name](), dtype=torch.float32, device="cpu", experts=experts, attention=attention
    )


def prompt(batch: int = 1, length: int = 9):
    return torch.randint(0, 256, (batch, length), generator=torch.Generator().manual_seed(3))


def generated(model, ids, count: int):
    out = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=count,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    return out[:, ids.shape[1] :]


@pytest.mark.parametrize("profile", ["eager", "static", "max"])
@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("shape", [(1, 9), (3, 5), (1, 1), (6, 4)])
def test_every_profile_generates_what_the_library_does(name, profile, shape):
    model, ids = model_of(name), prompt(*shape)
    expected = generated(model, ids, 12)
    decoder = decode.Decoder(model, decode.PROFILES[profile], max_batch=shape[0], max_len=32)
    decoder.prepare()
    for _ in range(2):  # the second run must not see what the first one left in the cache
        assert decoder.run(ids, 12).token_ids.tolist() == expected.tolist()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_compiled_profile_generates_the_same_and_says_what_it_did():
    config = Qwen2Config(**{**SIZES, "num_hidden_layers": 1})
    model = decode.build_model(config, dtype=torch.float32, device="cpu")
    expected = generated(model, prompt(), 6)
    decoder = decode.Decoder(model, decode.PROFILES["compile"], max_len=32)
    assert decoder.prepare() > 0
    assert decoder.run(prompt(), 6).token_ids.tolist() == expected.tolist()
    assert "compiled" in " ".join(decoder.applied)


@pytest.mark.filterwarnings("ignore")
def test_a_step_that_cannot_be_compiled_runs_as_it_is_and_says_so(monkeypatch):
    def broken(step, **_):
        def call():
            raise torch._dynamo.exc.TorchDynamoException("No working C++ compiler found\nmore")

        return call

    monkeypatch.setattr(sessions.torch, "compile", broken)
    model = model_of("qwen3")
    expected = generated(model, prompt(), 5)
    decoder = decode.Decoder(model, decode.PROFILES["compile"], max_len=32)
    assert decoder.run(prompt(), 5).token_ids.tolist() == expected.tolist()
    assert "not compiled: No working C++ compiler found" in decoder.applied


@pytest.mark.parametrize("name", CONFIGS)
def test_fused_projections_give_equal_logits(name):
    model, ids = model_of(name), prompt(2)
    count = sum(p.numel() for p in model.parameters())
    with torch.no_grad():
        before = model(ids).logits
        assert fusion.fuse_projections(model) == 2
        torch.testing.assert_close(model(ids).logits, before, rtol=1e-4, atol=1e-4)
    assert sum(p.numel() for p in model.parameters()) == count
    assert fusion.fuse_projections(model) == 2  # all are counted, none is fused again


def test_fused_blocks_keep_the_attention_that_was_asked_for():
    model, ids = model_of("qwen2", attention="eager"), prompt(2)
    with torch.no_grad():
        before = model(ids).logits
        fusion.fuse_projections(model)
        torch.testing.assert_close(model(ids).logits, before, rtol=1e-4, atol=1e-4)
        assert model(ids, output_attentions=True).attentions is not None


@pytest.mark.parametrize("tokens", [1, 2, 4, 5])
def test_gathered_experts_equal_the_loop_over_experts(tokens):
    model = model_of("qwen3_moe", experts="eager")
    block = model.model.layers[0].mlp
    hidden = torch.randn(tokens, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        _, weights, index = block.gate(hidden)
        expected = block.experts(hidden, index, weights)
        got = fusion.gathered_gemv(block.experts, hidden, index, weights)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_sorted_routers_choose_the_same_experts():
    model = model_of("qwen3_moe")
    gate, hidden = model.model.layers[0].mlp.gate, torch.randn(7, 64)
    with torch.no_grad():
        before = gate(hidden)
        assert fusion.sort_routers(model) == 2
        after = gate(hidden)
    assert before[2].tolist() == after[2].tolist()
    torch.testing.assert_close(before[1], after[1])


@pytest.mark.parametrize("width", [100, 256, 1280])
def test_argmax_in_two_stages_is_argmax(width):
    logits = torch.randn(5, width, generator=torch.Generator().manual_seed(width))
    assert fusion.blockwise_argmax(logits).tolist() == logits.argmax(-1).tolist()


def test_profiles_never_replace_an_explicit_choice():
    model = model_of("qwen3_moe", experts="batched_mm", attention="eager")
    expected = generated(model, prompt(), 6)
    decoder = decode.Decoder(model, decode.PROFILES["max"], max_len=32, experts="batched_mm")
    assert model.config._experts_implementation == "batched_mm"
    assert model.config._attn_implementation == "eager"
    assert decoder.run(prompt(), 6).token_ids.tolist() == expected.tolist()


def test_applied_says_what_was_done_and_what_was_not():
    decoder = decode.Decoder(model_of("qwen3_moe"), decode.PROFILES["max"], max_len=32)
    decoder.prepare()
    said = " / ".join(decoder.applied)
    for words in ("static cache", "fused in 2 layers", "gathered_gemv", "single_query", "on GPUs only"):
        assert words in said


@pytest.mark.parametrize("profile", ["eager", "static", "max"])
def test_one_time_a_token_and_times_only_grow(profile):
    decoder = decode.Decoder(model_of("qwen2"), decode.PROFILES[profile], max_len=32)
    for n_out in (1, 2, 10):
        result = decoder.run(prompt(2), n_out)
        assert result.token_ids.shape == (2, n_out)
        assert len(result.token_ns) == n_out
        assert all(a < b for a, b in itertools.pairwise((0, *result.token_ns)))


def test_too_many_tokens_are_refused():
    decoder = decode.Decoder(model_of("qwen2"), decode.PROFILES["static"], max_len=16)
    assert decoder.run(prompt(), 7).token_ids.shape == (1, 7)
    for n_out in (8, 0):
        with pytest.raises(ValueError, match="tokens asked for"):
            decoder.run(prompt(), n_out)


def test_generation_ends_when_every_row_has_met_an_end():
    model, ids = model_of("qwen3"), prompt(2)
    decoder = decode.Decoder(model, decode.PROFILES["max"], max_batch=2, max_len=32)
    free = decoder.run(ids, 10).token_ids
    ends = [int(free[0, 2]), int(free[1, 4])]
    last = max(min(i for i in range(10) if int(row[i]) in ends) for row in free)
    result = decoder.run(ids, 10, eos_ids=ends)
    assert result.token_ids.tolist() == free[:, : last + 1].tolist()
    assert len(result.token_ns) == last + 1


def test_streaming_gets_the_tokens_of_the_first_row():
    decoder = decode.Decoder(model_of("qwen2"), decode.PROFILES["static"], max_batch=2, max_len=32)
    seen: list[int] = []
    result = decoder.run(prompt(2), 5, on_token=seen.append)
    assert seen == result.token_ids[0].tolist()


@pytest.mark.parametrize("profile", ["eager", "max"])
def test_sampling_follows_the_seed_and_a_tiny_nucleus_is_greedy(profile):
    decoder = decode.Decoder(model_of("qwen2"), decode.PROFILES[profile], max_len=32)
    greedy = decoder.run(prompt(), 8).token_ids.tolist()
    warm = [decoder.run(prompt(), 8, temperature=3.0, seed=s).token_ids.tolist() for s in (1, 1, 2)]
    assert warm[0] == warm[1] != warm[2]
    assert decoder.run(prompt(), 8, temperature=1.0, top_p=1e-6).token_ids.tolist() == greedy


def test_dummy_weights_follow_the_seed_and_the_usual_initialisation():
    first, again = model_of("qwen2"), model_of("qwen2")
    other = decode.build_model(CONFIGS["qwen2"](), dtype=torch.float32, device="cpu", seed=1)
    weight = "model.layers.0.self_attn.q_proj.weight"
    assert torch.equal(first.state_dict()[weight], again.state_dict()[weight])
    assert not torch.equal(first.state_dict()[weight], other.state_dict()[weight])
    assert first.model.norm.weight.eq(1).all()
    assert first.model.layers[0].self_attn.q_proj.bias.eq(0).all()


def test_weights_from_a_folder_decode_as_the_model_that_was_saved(tmp_path):
    model = model_of("qwen3")
    model.save_pretrained(tmp_path)
    expected = decode.Decoder(model, decode.PROFILES["eager"], max_len=32).run(prompt(), 6).token_ids
    loaded = decode.build_model(CONFIGS["qwen3"](), dtype=torch.float32, device="cpu", weights=str(tmp_path))
    got = decode.Decoder(loaded, decode.PROFILES["eager"], max_len=32).run(prompt(), 6).token_ids
    assert got.tolist() == expected.tolist()


def test_profiles_are_values():
    with pytest.raises(dataclasses.FrozenInstanceError):
        decode.PROFILES["max"].cache = "dynamic"  # type: ignore[misc]


def test_a_request_without_room_is_misuse_and_leaves_the_engine_usable() -> None:
    from pytest_qwen.engines.base import LoadSpec, Request
    from pytest_qwen.engines.transformers_ import TransformersEngine
    from pytest_qwen.errors import Misuse

    engine = TransformersEngine()
    engine.load(
        LoadSpec(
            engine="transformers",
            model="embedded/qwen2-tiny",
            weights="dummy",
            dtype="float32",
            max_model_len=32,
        )
    )
    with pytest.raises(Misuse, match="room for 32 tokens"):
        engine.run(Request(prompt_tokens=30, output_tokens=8, ignore_eos=True))
    assert engine.run(Request(prompt_tokens=20, output_tokens=8, ignore_eos=True)).output_tokens == 8
