"""The training engine on the CPU: what it trains, what it holds at most, and what it refuses."""

from __future__ import annotations

import dataclasses
import json

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")

from pytest_qwen.configurations import shape_from_config  # noqa: E402
from pytest_qwen.engines import training_methods  # noqa: E402
from pytest_qwen.engines.base import LoadSpec, Request  # noqa: E402
from pytest_qwen.engines.training import TrainingEngine  # noqa: E402
from pytest_qwen.errors import Misuse, NotInstalled, Unavailable  # noqa: E402
from pytest_qwen.training_memory import TARGETS, Step  # noqa: E402

# the libraries' own deprecations are no concern of an engine's process
pytestmark = pytest.mark.filterwarnings("ignore")

RANK = 8
# a vocabulary that makes the loss the largest term, and one that makes a layer's work it
SHAPES = {"wordy": {"vocab_size": 4000}, "deep": {"vocab_size": 64}, "tied": {"tie_word_embeddings": True}}
CONFIG = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_size": 128,
    "intermediate_size": 344,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "vocab_size": 512,
    "tie_word_embeddings": False,
}


def spec(method: str = "lora", model: str = "embedded/qwen2-tiny", dtype="float32", **changes) -> LoadSpec:
    options = {
        "method": method,
        "rank": RANK,
        "targets": ",".join(TARGETS),
        "gradient_checkpointing": True,
        "optimizer": "adamw",
        **changes,
    }
    return LoadSpec(
        engine="transformers-training",
        model=model,
        dtype=dtype,
        weights="dummy",
        quantization="nf4" if method == "qlora" else None,
        options=tuple(sorted(options.items())),
    )


def loaded(asked: LoadSpec):
    engine = TrainingEngine()
    return engine, engine.load(asked)


def predicted(asked: LoadSpec, config, tokens: int, batch: int) -> Step:
    options = dict(asked.options)
    return Step(
        shape=shape_from_config(config, asked.model),
        method=options["method"],
        tokens=tokens,
        batch=batch,
        rank=RANK,
        targets=tuple(options["targets"].split(",")),
        checkpointing=options["gradient_checkpointing"],
        dtype=asked.dtype,
        on_gpu=False,
    )


@pytest.mark.parametrize(
    ("shape", "dtype"), [("wordy", "float32"), ("deep", "bfloat16"), ("tied", "bfloat16")]
)
@pytest.mark.parametrize("checkpointing", [True, False], ids=["checkpointed", "kept"])
@pytest.mark.parametrize("method", ["lora", "lora-embeddings", "full"])
def test_the_peak_is_the_predicted_one(tmp_path, method, checkpointing, shape, dtype):
    """The allocator's own events against the sum of tensors, at a short and at a long sequence."""
    (tmp_path / "config.json").write_text(json.dumps(CONFIG | SHAPES[shape]))
    asked = spec(method, str(tmp_path), dtype, gradient_checkpointing=checkpointing)
    engine, done = loaded(asked)
    for tokens, batch in ((48, 1), (128, 2)):
        trace = engine.run(Request(prompt_tokens=tokens, batch_size=batch, output_tokens=1))
        plan = predicted(asked, done.config, tokens, batch).plan()
        assert trace.peak_allocated_bytes == pytest.approx(plan.total_bytes, rel=0.03), plan.explain("plan")


def test_a_quarter_of_the_adapters_is_predicted_too():
    asked = spec(targets="q_proj,v_proj")
    engine, done = loaded(asked)
    trace = engine.run(Request(prompt_tokens=64, output_tokens=1))
    step = predicted(asked, done.config, 64, 1)
    assert trace.peak_allocated_bytes == pytest.approx(step.plan().total_bytes, rel=0.03)
    assert f"{step.trainable_parameters} trainable parameters" in done.applied


def test_the_4_bit_base_holds_the_predicted_bytes(monkeypatch):
    """bitsandbytes quantises on a CPU as well, only slowly: enough to count."""
    pytest.importorskip("bitsandbytes")
    monkeypatch.setattr(training_methods, "_check_packages", lambda *_: None)
    asked = spec("qlora", dtype="bfloat16")
    engine, done = loaded(asked)
    kinds = [type(module).__name__ for module in engine._model.modules()]
    assert kinds.count("Linear4bit") == 2 * 7 * 6  # peft's layer around each of the library's
    trace = engine.run(Request(prompt_tokens=64, batch_size=2, output_tokens=1))
    plan = predicted(asked, done.config, 64, 2).plan()
    assert trace.peak_allocated_bytes == pytest.approx(plan.total_bytes, rel=0.03)
    assert "nf4" in done.applied[0]


@pytest.mark.parametrize(
    ("method", "trained"),
    [
        ("lora", {"lora_A", "lora_B"}),
        ("lora-embeddings", {"lora_A", "lora_B", "embed_tokens", "lm_head"}),
        ("full", {"q_proj", "down_proj", "embed_tokens", "lm_head", "norm"}),
    ],
)
def test_a_step_changes_what_is_trained_and_nothing_else(method, trained):
    engine, _ = loaded(spec(method))
    before = {name: p.detach().clone() for name, p in engine._model.named_parameters()}
    for seed in range(2):  # the first matrix of an adapter moves once the second is no longer zero
        engine.run(Request(prompt_tokens=16, batch_size=2, output_tokens=1, seed=seed))
    changed = {n for n, p in engine._model.named_parameters() if not torch.equal(p, before[n])}
    frozen = {n for n, p in engine._model.named_parameters() if not p.requires_grad}
    assert not changed & frozen
    assert bool(frozen) is (method != "full")
    for part in trained:
        assert any(part in name for name in changed), part
    assert all(p.grad is None for p in engine._model.parameters())


def test_equal_seeds_make_equal_steps():
    digests = []
    for _ in range(2):
        engine, _ = loaded(spec())
        digests.append(engine.run(Request(prompt_tokens=16, output_tokens=1, seed=3)).tokens_digest)
    assert digests[0] == digests[1]


def test_the_first_qwen_runs_in_an_equal_shape(tmp_path):
    said = {
        "architectures": ["QWenLMHeadModel"],
        "model_type": "qwen",
        "hidden_size": 64,
        "intermediate_size": 336,
        "kv_channels": 16,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "seq_length": 128,
        "tie_word_embeddings": False,
        "vocab_size": 96,
    }
    (tmp_path / "config.json").write_text(json.dumps(said))
    engine, done = loaded(spec("full", str(tmp_path)))
    shape = shape_from_config(said, "first")
    assert sum(p.numel() for p in engine._model.parameters()) == shape.parameters
    assert done.weights_bytes >= 4 * shape.parameters
    assert any("equal shape" in text for text in done.applied)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (spec("qlora"), "Q-LoRA needs a GPU"),
        (spec(optimizer="adamw8bit"), "optimizer 'adamw8bit' needs a GPU"),
        (dataclasses.replace(spec(), tensor_parallel=2), "one GPU"),
        (dataclasses.replace(spec(), device="cuda"), "no CUDA device"),
    ],
)
def test_what_this_machine_cannot_do_is_said_before_loading(asked, said):
    if asked.device == "cuda" and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(Unavailable, match=said):
        TrainingEngine().load(asked)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(training_methods, "find_spec", lambda _name: None)
    with pytest.raises(NotInstalled, match="needs the package peft"):
        TrainingEngine().load(spec())


def test_a_prompt_of_words_is_refused():
    engine, _ = loaded(spec())
    with pytest.raises(Misuse, match="random tokens"):
        engine.run(Request(prompt="Hello"))
    engine.close()
    engine.close()
