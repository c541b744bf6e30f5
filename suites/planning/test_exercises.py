"""The published exercises 1 to 3, answered by computing: VRAM budgets, model selection, a deployment plan."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from pytest_qwen.data import find_shape
from pytest_qwen.gpus import lookup
from pytest_qwen.physics import Setup, ceiling, fit

Record = Callable[[str, object], None]


def _setup(
    model: str,
    gpu: str,
    *,
    count: int = 1,
    context: int = 8192,
    batch: int = 1,
    quantization: str | None = None,
) -> Setup:
    shape = find_shape(model)
    assert shape is not None
    return Setup(
        shape=shape,
        gpu=lookup(gpu),
        count=count,
        prompt_tokens=context,
        output_tokens=0,
        batch=batch,
        dtype="float16",
        quantization=quantization,
    )


# ---- exercise 1: which of three models fits which of three configurations, with 8,192 tokens of context

YI, CODER, LLAMA = (
    "01-ai/Yi-Coder-9B-Chat",
    "Qwen/Qwen2.5-Coder-32B-Instruct",
    "meta-llama/Llama-3.3-70B-Instruct",
)
CONFIGURATIONS = {"A: RTX 4090": ("rtx4090", 1), "B: 2 x RTX 5090": ("rtx5090", 2), "C: H100": ("h100", 1)}
# Weights and KV cache in GB as the exercise gives them; its overhead is 1.5 GB a card.
GIVEN = {YI: (None, 18.0, 0.5), CODER: ("awq", 16.0, 1.3), LLAMA: ("awq", 35.0, 2.8)}


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
@pytest.mark.parametrize("model", GIVEN)
def test_exercise_1_vram_budget(model: str, configuration: str, record_property: Record) -> None:
    """The exact budget and the exercise's rounded one must agree on whether the model fits."""
    gpu, count = CONFIGURATIONS[configuration]
    quantization, weights_gb, kv_gb = GIVEN[model]
    budget = fit(_setup(model, gpu, count=count, quantization=quantization))
    assert budget is not None
    rounded_gb = (weights_gb + kv_gb) / count + 1.5
    memory_gb = lookup(gpu).memory_gb
    assert memory_gb is not None
    assert budget.fits == (rounded_gb <= memory_gb)
    verdict = "fits, tightly" if budget.tight else "fits" if budget.fits else "does not fit"
    record_property("answer", f"{configuration}: {budget.total_bytes / 1e9:.1f} GB a card, {verdict}")


# ---- exercise 2: which model for which scenario


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A model of the exercise's list: what it is for, its context, its size; `shape` where it is known."""

    name: str
    skill: str
    context_tokens: int
    size_gb: float
    model: str | None = None


CANDIDATES = (
    Candidate(name="Qwen3-Coder-Next-AWQ", skill="agentic coding", context_tokens=262144, size_gb=48),
    Candidate(
        name="Qwen2.5-Coder-32B-AWQ", skill="code generation", context_tokens=131072, size_gb=18, model=CODER
    ),
    Candidate(
        name="DeepSeek-R1-Distill-32B-AWQ",
        skill="reasoning",
        context_tokens=32768,
        size_gb=18,
        model="deepseek-ai/DeepSeek-R1-Distill-Qwen-32B",
    ),
    Candidate(name="Llama 3.3 70B-AWQ", skill="general", context_tokens=131072, size_gb=40, model=LLAMA),
    Candidate(name="Yi-Coder-9B", skill="lightweight", context_tokens=131072, size_gb=5, model=YI),
)


def _smallest(skills: set[str], context_tokens: int, memory_gb: float) -> Candidate:
    """The smallest candidate that has a skill, the context and the room."""
    able = [
        c
        for c in CANDIDATES
        if c.skill in skills and c.context_tokens >= context_tokens and c.size_gb <= memory_gb
    ]
    return min(able, key=lambda c: c.size_gb)


def test_exercise_2a_refactoring_a_long_file(record_property: Record) -> None:
    """2,000 lines are read and written again, and edited with tools: some 12 tokens a line, twice."""
    chosen = _smallest({"agentic coding"}, 2 * 2000 * 12, memory_gb=64)
    assert chosen.name == "Qwen3-Coder-Next-AWQ"
    record_property("answer", chosen.name)


def test_exercise_2b_contradictions_in_a_contract(record_property: Record) -> None:
    """Forty pages of 400 words at 1.3 tokens a word leave a third of the context for reasoning."""
    tokens = round(40 * 400 * 1.3)
    chosen = _smallest({"reasoning"}, round(tokens * 1.5), memory_gb=24)
    assert chosen.name == "DeepSeek-R1-Distill-32B-AWQ"
    record_property("answer", f"{chosen.name}, {tokens} tokens")


def test_exercise_2c_twenty_users_of_a_bot(record_property: Record) -> None:
    """The highest rate for twenty sequences among what fits one 24 GB card with 2,048 tokens a user."""
    rates = {}
    for candidate in CANDIDATES:
        if candidate.model is None:
            continue  # its attention has no common shape; at 48 GB it does not fit the card anyway
        setup = _setup(candidate.model, "rtx4090", context=2048, batch=20, quantization="awq")
        budget, top = fit(setup), ceiling(setup)
        if budget is not None and budget.fits and top is not None:
            rates[candidate.name] = top.system_tokens_per_sec
    best = max(rates, key=lambda name: rates[name])
    assert best == "Yi-Coder-9B"
    assert "Llama 3.3 70B-AWQ" not in rates
    record_property("answer", f"{best}: at most {rates[best]:.0f} tok/s for twenty users")


# ---- exercise 3: three models a day on two cards of 32 GB

SLOTS = {
    "morning": ("Qwen/Qwen3-Coder-30B-A3B-Instruct", 32768),
    "afternoon": ("deepseek-ai/DeepSeek-R1-Distill-Qwen-32B", 32768),
    "evening": ("Qwen/Qwen3-30B-A3B", 8192),
}
CHAT_MODELS = ("Qwen/Qwen3-30B-A3B", "Qwen/Qwen3-32B", LLAMA)
# As published: GB/s of a PCIe 5.0 slot, and seconds of each kind of switch.
PCIE_GB_PER_SEC = 64.0
COLD_S, SLEEP_LEVEL_2_S, SLEEP_LEVEL_1_S = (50.0, 160.0), (4.0, 13.0), (0.6, 6.5)


def _slot(name: str) -> Setup:
    model, context = SLOTS[name]
    return _setup(model, "rtx5090", count=2, context=context, quantization="awq")


@pytest.mark.parametrize("slot", SLOTS)
def test_exercise_3_each_slot_fits_two_cards(slot: str, record_property: Record) -> None:
    budget = fit(_slot(slot))
    assert budget is not None
    assert budget.fits
    record_property("answer", budget.explain(f"{slot}: {SLOTS[slot][0]}, one of two cards"))


def test_exercise_3_the_evening_model_is_the_fastest_chat_model() -> None:
    def rate(model: str) -> float:
        top = ceiling(_setup(model, "rtx5090", count=2, quantization="awq"))
        assert top is not None
        return top.tokens_per_sec

    assert max(CHAT_MODELS, key=rate) == SLOTS["evening"][0]


def test_exercise_3_models_must_take_turns_and_sleep_in_main_memory(record_property: Record) -> None:
    """No two slots are awake together with the third; all that sleeps must fit the host's memory."""
    card_bytes = lookup("rtx5090").memory_gb
    assert card_bytes is not None
    weights = {slot: _slot(slot).weights_bytes / 1e9 for slot in SLOTS}
    assert sum(weights.values()) / 2 < card_bytes  # the weights alone would fit ...
    needs = [fit(_slot(slot)) for slot in SLOTS]
    together = sum(budget.total_bytes for budget in needs if budget is not None) / 1e9
    assert together > card_bytes  # ... but not with their caches
    asleep = sum(weights.values()) - min(weights.values())
    record_property(
        "answer", f"{together:.0f} GB a card if awake together; up to {asleep:.0f} GB of host memory"
    )


@pytest.mark.parametrize("slot", SLOTS)
def test_exercise_3_switching_times(slot: str, record_property: Record) -> None:
    """Waking from main memory cannot beat the bus; the published level 1 range leaves room for it."""
    bus_s = _slot(slot).weights_bytes / 1e9 / 2 / PCIE_GB_PER_SEC
    assert bus_s < SLEEP_LEVEL_1_S[1] < SLEEP_LEVEL_2_S[1] < COLD_S[0]
    saved_a_day = 2 * (COLD_S[0] - SLEEP_LEVEL_1_S[1])
    sequence = "POST /sleep?level=1 on the model that ends; POST /wake_up on the one that begins"
    record_property(
        "answer", f"{sequence}; at least {bus_s:.2f} s over PCIe; {saved_a_day:.0f} s saved a day"
    )


def test_exercise_3_on_one_card_of_24_gb(record_property: Record) -> None:
    """The edge case: with one 24 GB card the same models fit only with the context that is left."""
    longest = {}
    for slot in SLOTS:
        one = replace(_slot(slot), gpu=lookup("rtx4090"), count=1)
        lengths = [n for n in range(1024, 32769, 1024) if _fits(replace(one, prompt_tokens=n))]
        longest[slot] = max(lengths, default=0)
    assert all(length >= 1024 for length in longest.values())
    assert longest["afternoon"] < SLOTS["afternoon"][1]
    record_property("answer", f"longest contexts on one 24 GB card: {longest}")


def _fits(setup: Setup) -> bool:
    budget = fit(setup)
    return budget is not None and budget.fits
