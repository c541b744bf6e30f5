"""What a card can hold of a model, how fast and cheap it can be at most, and which model to choose."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

from pytest_qwen.configurations import check_context, check_split
from pytest_qwen.cost import usd_per_mtok
from pytest_qwen.errors import Misuse
from pytest_qwen.memory import Fit
from pytest_qwen.models import DTYPE_BYTES, ModelShape, weight_bytes
from pytest_qwen.physics import Ceiling, Setup, ceiling, fit, price_of

Verdict = Literal["feasible", "tight", "too large", "impossible", "unknown"]

# Where nothing else ends a search: more than any card holds of any model.
_MOST = 1 << 26
_SHORT_NAMES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
_AMPERE = (8, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Precision:
    """Number formats of the weights: the quantisation, and what is left in which dtype (None: the card's)."""

    dtype: str | None = None
    quantization: str | None = None

    @classmethod
    def named(cls, name: str) -> Precision:
        """The precision of a name: "bf16", "float16", "int4" ... Raises Misuse for an unknown one."""
        dtype = _SHORT_NAMES.get(name, name)
        if dtype in DTYPE_BYTES:
            return cls(dtype=dtype)
        weight_bytes("bfloat16", name)
        return cls(quantization=name)


def native_dtype(capability: str | None) -> str:
    """bfloat16, or float16 on cards whose compute capability ("7.5") is from before bfloat16."""
    if capability is None:
        return "bfloat16"
    major, _, minor = capability.partition(".")
    return "float16" if (int(major), int(minor or 0)) < _AMPERE else "bfloat16"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """The most tokens a second, of one sequence and of the batch, and which of the card's limits it is."""

    tokens_per_sec: float
    system_tokens_per_sec: float
    bound_by: Literal["memory bandwidth", "compute"]


def decode_rate(setup: Setup) -> Rate | None:
    """The roofline of decoding a batch: the lower of what bandwidth and matrix units allow.

    A step reads weights and KV cache once, and takes `flops_per_token` of each sequence at the mean context
    (Williams et al. 2009, "Roofline").
    """
    top = ceiling(setup)
    if top is None:
        return None
    steps = top.tokens_per_sec
    compute = compute_steps_per_sec(setup)
    bound_by: Literal["memory bandwidth", "compute"] = "memory bandwidth"
    if compute is not None and compute < steps:
        steps, bound_by = compute, "compute"
    return Rate(tokens_per_sec=steps, system_tokens_per_sec=steps * setup.batch, bound_by=bound_by)


def compute_steps_per_sec(setup: Setup) -> float | None:
    """Decode steps a second that the matrix units allow at most; None where their rate is unknown."""
    if setup.most_flops_per_sec is None:
        return None
    context = setup.prompt_tokens + setup.output_tokens // 2
    return setup.most_flops_per_sec / (setup.batch * setup.shape.flops_per_token(context))


def largest_batch(setup: Setup) -> int | None:
    """The most sequences of this length that fit by the plan, 0 when not even one does; None if unknown."""
    if fit(setup) is None:
        return None
    return _largest(lambda batch: _fits(replace(setup, batch=batch)))


def longest_context(setup: Setup) -> int | None:
    """The most tokens that every sequence of the batch can hold by the plan; None where unknown.

    At most what the model has positions for; 0 when not even the answer fits.
    """
    if fit(setup) is None:
        return None
    answer = setup.output_tokens
    most = _MOST if setup.shape.max_positions is None else setup.shape.max_positions - answer
    prompt = _largest(lambda tokens: _fits(replace(setup, prompt_tokens=tokens)), most)
    return prompt + answer if prompt else 0


def _fits(setup: Setup) -> bool:
    found = fit(setup)
    return found is not None and found.fits


def _largest(able: Callable[[int], bool], most: int = _MOST) -> int:
    """The largest number from 1 to `most` that is able, 0 when 1 is not; ability only ends, never begins."""
    low, high = 0, 1
    while high <= most and able(high):
        low, high = high, 2 * high
    high = min(high, most + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if able(middle) else (low, middle)
    return low


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """One model in one precision on one kind of card. `price_per_hour_usd` is for all cards, None unknown."""

    setup: Setup
    price_per_hour_usd: float | None

    @cached_property
    def fit(self) -> Fit | None:
        """The memory plan at the asked batch and context."""
        return fit(self.setup)

    @cached_property
    def ceiling(self) -> Ceiling | None:
        """The bandwidth's ceiling with its arithmetic."""
        return ceiling(self.setup)

    @property
    def verdict(self) -> Verdict:
        """impossible: the weights exceed the memory; too large: the estimate does; tight: over 90 % of it."""
        if self.fit is None:
            return "unknown"
        if self.fit.hopeless:
            return "impossible"
        if not self.fit.fits:
            return "too large"
        return "tight" if self.fit.tight else "feasible"

    @cached_property
    def rate(self) -> Rate | None:
        """The most tokens a second at the asked batch."""
        return decode_rate(self.setup)

    @cached_property
    def largest_batch(self) -> int | None:
        """The most sequences of the asked context."""
        return largest_batch(self.setup)

    @cached_property
    def longest_context(self) -> int | None:
        """The longest context of the asked batch."""
        return longest_context(self.setup)

    @cached_property
    def full_rate(self) -> Rate | None:
        """The most tokens a second at the largest batch; None where none fits."""
        return decode_rate(replace(self.setup, batch=self.largest_batch)) if self.largest_batch else None

    @property
    def usd_per_mtok(self) -> float | None:
        """The least that a million output tokens can cost at the asked batch, its prompts left out."""
        return self._usd(self.rate)

    @property
    def full_usd_per_mtok(self) -> float | None:
        """The same at the largest batch."""
        return self._usd(self.full_rate)

    def _usd(self, rate: Rate | None) -> float | None:
        if rate is None or self.price_per_hour_usd is None:
            return None
        return usd_per_mtok(self.price_per_hour_usd, rate.system_tokens_per_sec)

    @property
    def precision(self) -> str:
        """The weights' number format."""
        return self.setup.quantization or self.setup.dtype

    def as_dict(self) -> Mapping[str, Any]:
        """Everything as plain values with units in their names; None is unknown."""
        setup, rate, full = self.setup, self.rate, self.full_rate
        return {
            "model": setup.shape.model_id,
            "cards": setup.cards,
            "count": setup.count,
            "precision": self.precision,
            "dtype": setup.dtype,
            "kv_cache": setup.kv_dtype or setup.dtype,
            "batch": setup.batch,
            "context_tokens": setup.context_tokens,
            "outlook": self.verdict,
            "memory_lines_bytes": dict(self.fit.lines) if self.fit else None,
            "memory_needed_bytes": self.fit.total_bytes if self.fit else None,
            "memory_available_bytes": self.fit.available_bytes if self.fit else None,
            "largest_batch": self.largest_batch,
            "longest_context_tokens": self.longest_context,
            "tokens_per_sec": rate.tokens_per_sec if rate else None,
            "system_tokens_per_sec": rate.system_tokens_per_sec if rate else None,
            "bound_by": rate.bound_by if rate else None,
            "usd_per_hour": self.price_per_hour_usd,
            "usd_per_mtok": self.usd_per_mtok,
            "system_tokens_per_sec_at_largest_batch": full.system_tokens_per_sec if full else None,
            "usd_per_mtok_at_largest_batch": self.full_usd_per_mtok,
        }


def capacity(setup: Setup, *, price_per_hour_usd: float | None = None) -> Capacity:
    """The capacity of a set-up that makes sense; the catalogue's price when none is given.

    Raises Misuse for a context beyond the model, a number of cards that cannot split its heads, and a number
    format that is not known.
    """
    check_context(setup.shape, setup.context_tokens, f"{setup.context_tokens} tokens of context")
    check_split(setup.shape, setup.count)
    setup.shape.weights_bytes(setup.dtype, setup.quantization)
    setup.shape.kv_bytes_per_token(setup.kv_dtype or setup.dtype)
    return Capacity(setup=setup, price_per_hour_usd=price_of(setup, price_per_hour_usd))


def recommend(
    shapes: Iterable[ModelShape],
    precisions: Iterable[Precision],
    on: Callable[[ModelShape, Precision], Setup],
    *,
    price_per_hour_usd: float | None = None,
) -> tuple[Capacity, ...]:
    """The models that fit a card, each in the precision of most bits that does, best first.

    Best is: more parameters, then more bits, then faster. More parameters stand for better answers, which
    holds within a family and is no measurement. `on` makes the set-up; a model that it does not suit (its
    positions, its heads) is left out.
    """
    wanted, found = list(precisions), []
    for shape in shapes:
        able = []
        for precision in wanted:
            try:
                one = capacity(on(shape, precision), price_per_hour_usd=price_per_hour_usd)
            except Misuse:
                continue
            if one.verdict in ("feasible", "tight"):
                able.append(one)
        if able:
            found.append(max(able, key=_bits))
    return tuple(sorted(found, key=_goodness, reverse=True))


def _bits(one: Capacity) -> float:
    return weight_bytes(one.setup.dtype, one.setup.quantization)


def _goodness(one: Capacity) -> tuple[int, float, float]:
    rate = one.rate.tokens_per_sec if one.rate else 0.0
    return one.setup.shape.parameters, _bits(one), rate
