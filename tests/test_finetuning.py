"""The `finetune` fixture's object on a run that is not there: arguments, results, and what does not fit."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from pytest_qwen.data import find_config, find_shape
from pytest_qwen.engines import TRAINING
from pytest_qwen.engines.base import Loaded, LoadSpec, Request, Trace
from pytest_qwen.errors import DoesNotFit, Misuse, Unavailable
from pytest_qwen.evidence import Measurement, Window
from pytest_qwen.finetuning import FineTune, check_base
from pytest_qwen.gpus import lookup
from pytest_qwen.measure import to_round
from pytest_qwen.metrics import RoundContext
from pytest_qwen.physics import least_training_seconds
from pytest_qwen.roofline import Setup

MODEL = "Qwen/Qwen-7B"
STEP_S = (0.5, 0.6, 0.7, 0.6, 0.5, 0.6, 0.7)


def spec_of(overrides) -> LoadSpec:
    return LoadSpec(
        engine=overrides["engine"], model=MODEL, device="cuda", quantization=overrides["quantization"]
    )


def rounds(request: Request, violations=()):
    for index, seconds in enumerate(STEP_S):
        trace = Trace(
            prompt_tokens=request.prompt_tokens,
            output_tokens=1,
            batch_size=request.batch_size,
            token_ns=(round(seconds * 1e9),),
            texts=("",) * request.batch_size,
            finish_reason="length",
            tokens_digest="",
            clock="cuda-events",
            peak_memory_bytes=21_000_000_000,
            peak_allocated_bytes=20_000_000_000,
        )
        window = Window(seconds=seconds, energy_j=100.0, violations=violations)
        yield to_round(request, trace, window, RoundContext(training=True), index, "round")


class FakeRun:
    """Gives the same rounds whatever is asked; `fails` is raised instead."""

    def __init__(self, overrides, fails=None, violations=()):
        self.spec = spec_of(overrides)
        self.loaded = Loaded(load_s=1.0, config=find_config(MODEL))
        self.fails, self.violations = fails, violations

    def measure(self, request: Request) -> Measurement:
        if self.fails:
            raise self.fails
        found = {"allocated_gb": 20.0, "vram_gb": 21.5}
        return Measurement(rounds=tuple(rounds(request, self.violations)), observed=found)


def finetune_on(*, available_bytes=141e9, **run) -> tuple[FineTune, SimpleNamespace]:
    opened = SimpleNamespace(overrides=None)

    def open_run(overrides):
        opened.overrides = overrides
        return FakeRun(overrides, **run)

    return FineTune(open_run, spec_of, available_bytes=available_bytes, alpha=0.01), opened


def test_a_result_has_the_step_its_memory_and_the_prediction():
    finetune, opened = finetune_on()
    tuned = finetune("lora-embeddings", tokens=1024, batch_size=2, rank=8)
    assert opened.overrides["engine"] == TRAINING
    assert opened.overrides["options"] == {
        "method": "lora-embeddings",
        "optimizer": "adamw",
        "rank": 8,
        "targets": "q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj",
        "gradient_checkpointing": True,
    }
    assert tuned.step_time_s == pytest.approx(0.6)
    assert tuned.low <= 0.6 <= tuned.high
    assert tuned.n == len(STEP_S)
    assert tuned.tokens_per_sec == pytest.approx(2048 / 0.6)
    assert (tuned.allocated_gb, tuned.vram_gb) == (20.0, 21.5)
    assert tuned.predicted_gb == pytest.approx(20.0 * (1 + tuned.error))
    assert tuned.trainable_parameters == tuned.step.trainable_parameters
    assert "lora-embeddings, 2 x 1024 tokens: 0.6 s a step" in str(tuned)


def test_a_round_of_training_has_its_own_metrics():
    seen = next(rounds(Request(prompt_tokens=512, batch_size=2, output_tokens=1)))
    assert seen.metrics == pytest.approx(
        {
            "e2e_latency_ms": 500.0,
            "step_time_s": 0.5,
            "trained_tokens_per_sec": 2048.0,
            "joules_per_token": 100 / 1024,
            "vram_gb": 21.0,
        }
    )


def test_no_step_is_faster_than_two_forward_passes_at_the_peak_rate():
    setup = Setup(shape=find_shape(MODEL), gpu=lookup("h200"), prompt_tokens=1024, batch=2)
    body = 2 * 2048 * 32 * (4 * 4096**2 + 3 * 4096 * 11_008)
    least = least_training_seconds(setup)
    assert least == pytest.approx(2 * body / setup.most_flops_per_sec, rel=0.05)
    assert least_training_seconds(replace(setup, quantization="int8")) is None  # a rate that is not known


def test_only_q_lora_loads_4_bits():
    finetune, opened = finetune_on()
    for method, quantization in (("qlora", "nf4"), ("lora", None)):
        finetune(method)
        assert opened.overrides["quantization"] == quantization


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"method": "qlor"}, "did you mean 'qlora'"),
        ({"optimizer": "adam8bit"}, "did you mean 'adamw8bit'"),
        ({"targets": ("q_proj", "qproj")}, "did you mean 'q_proj'"),
        ({"targets": ()}, "targets has to be 1 or more"),
        ({"targets": "q_proj"}, "one name goes into a list too"),
        ({"targets": None}, "targets is no list of names"),
        ({"rank": 5000}, "4096 wide"),
        ({"tokens": 1}, "one token has none"),
        ({"tokens": 9000}, "8192 positions"),
        ({"batch_size": 0}, "batch_size has to be 1 or more"),
        ({"rank": True}, "rank has to be 1 or more"),
        ({"rank": 2.5}, "rank has to be 1 or more"),
    ],
)
def test_misuse_is_said_before_anything_is_loaded(arguments, said):
    finetune, opened = finetune_on()
    with pytest.raises(Misuse, match=said):
        finetune(**arguments)
    assert opened.overrides is None


def test_a_mixture_of_experts_is_refused():
    def experts(overrides):
        return LoadSpec(engine=overrides["engine"], model="Qwen/Qwen3-30B-A3B")

    finetune = FineTune(lambda _: pytest.fail("loaded"), experts, available_bytes=None, alpha=0.01)
    with pytest.raises(Misuse, match="mixture of experts"):
        finetune("lora")


def test_out_of_memory_comes_with_the_plan_of_the_step():
    finetune, opened = finetune_on(fails=DoesNotFit("out of memory: tried to allocate 9 GiB"))
    with pytest.raises(DoesNotFit) as caught:
        finetune("full", tokens=8192, batch_size=32)
    text = str(caught.value)
    assert text.startswith("full of Qwen/Qwen-7B on 32 x 8192 tokens does not fit")
    for part in ("logits and loss", "optimiser states", "141.00 GB: available", "tried to allocate 9 GiB"):
        assert part in text
    assert opened.overrides is not None  # an estimate forbids nothing: it was tried


def test_weights_that_exceed_the_memory_are_not_loaded():
    finetune, opened = finetune_on(available_bytes=12e9)
    with pytest.raises(DoesNotFit, match="nothing was loaded"):
        finetune("lora")
    assert opened.overrides is None
    assert finetune("qlora", tokens=256).n == len(STEP_S)


def test_no_clean_round_is_the_machines_fault():
    finetune, _ = finetune_on(violations=("GPU clocks were throttled",))
    with pytest.raises(Unavailable, match="throttled"):
        finetune("lora")


def test_a_quantised_base_by_mark_is_not_passed_over():
    check_base(None)
    with pytest.raises(Misuse, match="from its method") as caught:
        check_base("int8")
    assert "qlora" in str(caught.value)
