"""What fits, how fast it can be at most, what it costs, and which bounds no software can meet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from pytest_qwen.bounds import Bound
from pytest_qwen.gpus import CATALOGUE, Device, GpuSpec
from pytest_qwen.models import DTYPE_BYTES, ModelShape
from pytest_qwen.roofline import Setup, peak_bytes_per_sec, peak_flops_per_sec, spec_of

__all__ = [
    "Ceiling",
    "Fit",
    "bytes_per_step",
    "ceiling",
    "ceilings",
    "fit",
    "mbu",
    "mfu",
    "peak_bytes_per_sec",
    "peak_flops_per_sec",
    "refusal",
    "usd_per_mtok",
]

# Driver context, kernels and library workspaces of one card: the published guide's worked budgets take half
# a gigabyte.
CONTEXT_BYTES = 0.5e9
# Engines prefill long prompts in chunks; 8,192 tokens is the largest common default (vLLM's on large cards).
PREFILL_CHUNK_TOKENS = 8192
TIGHT = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """The memory plan of one card, line by line; `total_bytes` is the sum of the lines.

    `total_bytes` is None when the size of a number format is unknown, `available_bytes` when the card's
    memory is; `fits` is then None too.
    """

    lines: tuple[tuple[str, float], ...]
    total_bytes: float | None
    available_bytes: float | None

    @property
    def fits(self) -> bool | None:
        """Whether the plan is within the card's memory."""
        if self.total_bytes is None or self.available_bytes is None:
            return None
        return self.total_bytes <= self.available_bytes

    @property
    def tight(self) -> bool:
        """Whether it fits, but takes more than 90 % of the memory."""
        return bool(self.fits) and (self.total_bytes or 0) > TIGHT * (self.available_bytes or 0)

    def explain(self, title: str) -> str:
        """The plan as text, one line an item, under a title."""
        rows = [*self.lines, ("needed", self.total_bytes), ("available", self.available_bytes)]
        size = ("unknown" if amount is None else f"{amount / 1e9:.2f} GB" for _, amount in rows)
        return "\n".join(
            [title, *(f"  {text}: {label}" for text, label in zip(size, dict(rows), strict=True))]
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceiling:
    """The most that memory bandwidth allows: `tokens_per_sec` for one sequence, `system_tokens_per_sec` for
    the whole batch, and the arithmetic in a sentence."""

    tokens_per_sec: float
    system_tokens_per_sec: float
    bytes_per_step: float
    bandwidth_bytes_per_sec: float
    arithmetic: str


def fit(
    shape: ModelShape,
    gpu: GpuSpec | Device,
    *,
    dtype: str = "bfloat16",
    quantization: str | None = None,
    kv_dtype: str | None = None,
    context_tokens: int = 0,
    batch: int = 1,
    count: int = 1,
) -> Fit:
    """The memory plan of one of `count` cards, for `batch` sequences of `context_tokens` each.

    Weights and KV cache are divided evenly over the cards. Activations are what one layer holds while the
    whole context is processed as a prompt (in chunks of 8,192 tokens), and the logits in 32 bits.
    """
    setup = Setup(
        shape=shape, gpu=gpu, dtype=dtype, quantization=quantization, kv_dtype=kv_dtype,
        prompt_tokens=context_tokens, batch=batch, count=count,
    )  # fmt: skip
    if not setup.sizes_known:
        return Fit(lines=(), total_bytes=None, available_bytes=setup.memory_bytes)
    split = f" / {count} cards" if count > 1 else ""
    lines = (
        (f"weights ({quantization or dtype}{split})", setup.weights_bytes / count),
        (
            f"KV cache ({batch} x {context_tokens} tokens, {shape.kv_heads} KV heads{split})",
            setup.kv_bytes / count,
        ),
        ("activations (one layer of the prefill, logits)", _activation_bytes(setup)),
        ("context and workspaces (assumed)", CONTEXT_BYTES),
    )
    total_bytes = sum(amount for _, amount in lines)
    return Fit(lines=lines, total_bytes=total_bytes, available_bytes=setup.memory_bytes)


def _activation_bytes(setup: Setup) -> float:
    """Residual, normed input and output, projections, and gate and up of the widest MLP, for each token."""
    shape = setup.shape
    tokens = min(setup.prompt_tokens * setup.batch, PREFILL_CHUNK_TOKENS)
    routed = shape.experts_per_token * shape.moe_intermediate + shape.shared_intermediate
    mlp = max(shape.intermediate, routed) if shape.dense_layers or not shape.experts else routed
    attention = (shape.heads + 2 * shape.kv_heads) * shape.head_dim
    per_token = (3 * shape.hidden + attention + 2 * mlp) * DTYPE_BYTES[setup.dtype]
    return tokens * per_token + 4 * setup.batch * shape.vocab


def bytes_per_step(
    shape: ModelShape,
    *,
    dtype: str = "bfloat16",
    quantization: str | None = None,
    kv_dtype: str | None = None,
    context_tokens: float = 0,
    batch: int = 1,
) -> float | None:
    """Bytes that one decode step must read, at this context; None where a number format's size is unknown."""
    setup = Setup(
        shape=shape, gpu=_NO_CARD, dtype=dtype, quantization=quantization, kv_dtype=kv_dtype, batch=batch
    )
    return setup.step_bytes(context_tokens) if setup.sizes_known else None


_NO_CARD = GpuSpec(alias="", name="", family="", form_factor="", memory_gb=None, bandwidth_gb_per_sec=None)


def ceiling(
    shape: ModelShape,
    gpu: GpuSpec | Device,
    *,
    dtype: str = "bfloat16",
    quantization: str | None = None,
    kv_dtype: str | None = None,
    context_tokens: int = 0,
    batch: int = 1,
    count: int = 1,
) -> Ceiling | None:
    """The bandwidth roofline of decoding; None where the bandwidth or a number format's size is unknown.

    A step cannot end before the weights and the KV cache were read once (Pope et al. 2022, "Efficiently
    scaling transformer inference"; Williams et al. 2009, "Roofline").
    """
    setup = Setup(
        shape=shape, gpu=gpu, dtype=dtype, quantization=quantization, kv_dtype=kv_dtype,
        prompt_tokens=context_tokens, batch=batch, count=count,
    )  # fmt: skip
    return _ceiling(setup, least=False)


def _ceiling(setup: Setup, *, least: bool) -> Ceiling | None:
    bandwidth = setup.bytes_per_sec
    if bandwidth is None or not setup.sizes_known:
        return None
    step = setup.step_bytes(setup.prompt_tokens, least=least)
    rate = bandwidth / step
    return Ceiling(
        tokens_per_sec=rate,
        system_tokens_per_sec=rate * setup.batch,
        bytes_per_step=step,
        bandwidth_bytes_per_sec=bandwidth,
        arithmetic=_arithmetic(setup, step, bandwidth),
    )


def _arithmetic(setup: Setup, step: float, bandwidth: float) -> str:
    """ "7.07 B weights in float16 and the KV cache are 14.1 GB a token; L4 moves 300 GB/s; at most 21 tok/s"."""
    if setup.batch == 1:
        active = "active " if setup.shape.experts else ""
        weights = setup.shape.active_parameters
        weights -= 0 if setup.shape.tied_embeddings else setup.shape.embedding_parameters
        read = (
            f"{weights / 1e9:.2f} B {active}weights in {setup.quantization or setup.dtype} and the KV cache "
        )
        read += f"are {step / 1e9:.1f} GB a token"
    else:
        read = f"a step of {setup.batch} sequences reads {step / 1e9:.1f} GB of weights and KV cache"
    rate = f"at most {bandwidth / step:.1f} tok/s{' a sequence' if setup.batch > 1 else ''}"
    return f"{read}; {setup.cards} moves {bandwidth / 1e9:,.0f} GB/s; {rate}"


def mbu(step_bytes: float, tpot_ms: float, bandwidth_bytes_per_sec: float) -> float:
    """Model bandwidth utilisation, 0-1: bytes that a step must read / TPOT / peak bandwidth."""
    return step_bytes / (tpot_ms / 1000) / bandwidth_bytes_per_sec


def mfu(flops: float, seconds: float, flops_per_sec: float) -> float:
    """Model FLOP utilisation, 0-1: necessary FLOPs / time / peak (Chowdhery et al. 2022, "PaLM")."""
    return flops / seconds / flops_per_sec


def usd_per_mtok(price_per_hour_usd: float, tokens_per_sec: float) -> float:
    """USD for a million tokens: price of an hour / tokens of an hour x 1e6."""
    return price_per_hour_usd / (tokens_per_sec * 3600) * 1e6


def _best_values(setup: Setup, price_per_hour_usd: float | None) -> dict[str, float]:
    """The best value of each metric that hardware and formats allow; a metric without a known limit is absent.

    Every limit used holds always: peak rates, the fewest experts that routing can choose, the shortest
    context, each weight read once a step.
    """
    if not setup.sizes_known:
        return {}
    best = {"mbu_ratio": 1.0, "mfu_ratio": 1.0, "vram_gb": setup.weights_bytes / setup.count / 1e9}
    prefill, step = setup.least_prefill_seconds, setup.least_step_seconds
    if prefill is not None:
        best["ttft_ms"] = 1000 * prefill
        best["prefill_tokens_per_sec"] = setup.prompt_tokens * setup.batch / prefill
    if step is not None:
        best |= {"decode_tokens_per_sec": 1 / step, "tpot_ms": 1000 * step, "itl_ms": 1000 * step}
        whole = (prefill or 0) + max(setup.output_tokens - 1, 0) * step
        best["e2e_latency_ms"] = 1000 * whole
        best["output_tokens_per_sec"] = setup.batch / step
        if setup.output_tokens and whole:
            best["output_tokens_per_sec"] = setup.batch * setup.output_tokens / whole
        if price_per_hour_usd is not None:
            best["usd_per_mtok"] = usd_per_mtok(price_per_hour_usd, best["output_tokens_per_sec"])
    return best


def ceilings(
    shape: ModelShape,
    gpu: GpuSpec | Device,
    *,
    dtype: str = "bfloat16",
    quantization: str | None = None,
    kv_dtype: str | None = None,
    prompt_tokens: int = 0,
    output_tokens: int = 0,
    batch: int = 1,
    count: int = 1,
    price_per_hour_usd: float | None = None,
) -> dict[str, float]:
    """The best value of each metric that hardware and formats allow; a metric without a known limit is absent.

    `price_per_hour_usd` is for all cards; the catalogue's price when None.
    """
    setup = Setup(
        shape=shape, gpu=gpu, dtype=dtype, quantization=quantization, kv_dtype=kv_dtype,
        prompt_tokens=prompt_tokens, output_tokens=output_tokens, batch=batch, count=count,
    )  # fmt: skip
    return _best_values(setup, _price(setup, price_per_hour_usd))


def _price(setup: Setup, given: float | None) -> float | None:
    spec = spec_of(setup.gpu)
    if given is not None or spec is None or spec.price_per_hour_usd is None:
        return given
    return spec.price_per_hour_usd * setup.count


def refusal(
    bound: Bound,
    shape: ModelShape,
    gpu: GpuSpec | Device,
    *,
    dtype: str = "bfloat16",
    quantization: str | None = None,
    kv_dtype: str | None = None,
    prompt_tokens: int = 0,
    output_tokens: int = 0,
    batch: int = 1,
    count: int = 1,
    price_per_hour_usd: float | None = None,
) -> str | None:
    """Why no software can meet `bound` on these cards, with the arithmetic and what would lift it.

    None when physics allows the bound or too little is known to say. Speculative decoding is not counted:
    an engine that uses it may give several tokens a step.
    """
    setup = Setup(
        shape=shape, gpu=gpu, dtype=dtype, quantization=quantization, kv_dtype=kv_dtype,
        prompt_tokens=prompt_tokens, output_tokens=output_tokens, batch=batch, count=count,
    )  # fmt: skip
    price = _price(setup, price_per_hour_usd)
    best = _best_values(setup, price).get(bound.metric)
    if best is None or bound.met_by(best):
        return None
    lines = [
        f"physics forbids {bound}: {_WHY.get(bound.metric, _why_decode)(setup)}",
        f"  asked: {setup.label}",
        f"  best possible: {best:.4g} {bound.unit}{_at_price(bound, price)}",
    ]
    lifted = _remedies(bound, setup, price)
    if lifted:
        lines.append(f"  would lift it: {'; '.join(lifted)}")
    return "\n".join(lines)


def _at_price(bound: Bound, price: float | None) -> str:
    return f" at {price:g} USD an hour" if bound.metric == "usd_per_mtok" else ""


def _why_decode(setup: Setup) -> str:
    top = _ceiling(setup, least=True)
    return top.arithmetic if top else ""


def _why_prefill(setup: Setup) -> str:
    parts = []
    if setup.flops_per_sec is not None:
        flops = setup.shape.prefill_flops(setup.prompt_tokens, setup.batch)
        parts.append(f"{flops / 1e12:.3g} TFLOP at no more than {setup.flops_per_sec / 1e12:,.0f} TFLOP/s")
    if setup.bytes_per_sec is not None:
        parts.append(
            f"{setup.step_bytes(0, least=True) / 1e9:.1f} GB of weights read once at "
            f"{setup.bytes_per_sec / 1e9:,.0f} GB/s"
        )
    least_ms = 1000 * (setup.least_prefill_seconds or 0)
    return f"{setup.batch} x {setup.prompt_tokens} prompt tokens take {least_ms:.2f} ms ({'; '.join(parts)})"


def _why_vram(setup: Setup) -> str:
    bits = 8 * setup.weights_bytes / setup.shape.parameters
    each = f", {setup.weights_bytes / setup.count / 1e9:.1f} GB a card" if setup.count > 1 else ""
    total = f"{setup.weights_bytes / 1e9:.1f} GB{each}"
    return f"{setup.shape.parameters / 1e9:.2f} B weights of {bits:.1f} bits on average take {total}"


_WHY: dict[str, Callable[[Setup], str]] = {
    "mbu_ratio": lambda _: "no share of a peak exceeds 1",
    "mfu_ratio": lambda _: "no share of a peak exceeds 1",
    "vram_gb": _why_vram,
    "ttft_ms": _why_prefill,
    "prefill_tokens_per_sec": _why_prefill,
    "e2e_latency_ms": lambda s: (
        f"{_why_prefill(s)}; then {s.output_tokens - 1} more tokens: {_why_decode(s)}"
    ),
}
_PER_TOKEN = {"decode_tokens_per_sec", "output_tokens_per_sec", "tpot_ms", "itl_ms", "usd_per_mtok"}
_NO_CARD_LIFTS = {"mbu_ratio", "mfu_ratio", "vram_gb", "usd_per_mtok"}


def _remedies(bound: Bound, setup: Setup, price: float | None) -> list[str]:
    """Changes that lift the bound: fewer bits, the slowest faster card that holds the model, other decoding."""
    found = []
    for name in ("int8", "int4") if setup.quantization is None else ():
        fewer = replace(setup, quantization=name)
        if bound.met_by(_best_values(fewer, price)[bound.metric]):
            found.append(f"{name} weights, {fewer.weights_bytes / 1e9:.1f} GB{_rate_note(bound, fewer)}")
    faster = None if bound.metric in _NO_CARD_LIFTS else _faster_card(bound, setup)
    if faster is not None:
        found.append(f"a faster card, such as {faster.cards}{_rate_note(bound, faster)}")
    if setup.batch == 1 and bound.metric in _PER_TOKEN | {"e2e_latency_ms"}:
        found.append("speculative decoding (several tokens a step)")
    if setup.batch == 1 and bound.marker in {"min_tokens_per_sec", "max_usd_per_mtok"}:
        found.append("batching, for the rate and cost of the whole system (scope='system')")
    return found


def _faster_card(bound: Bound, setup: Setup) -> Setup | None:
    """The same work on the slowest catalogue card that holds the weights and can meet the bound."""
    for card in sorted(CATALOGUE.values(), key=lambda row: row.bandwidth_gb_per_sec or 0):
        other = replace(setup, gpu=card)
        best = _best_values(other, None).get(bound.metric)
        holds = other.weights_bytes / other.count + CONTEXT_BYTES <= (other.memory_bytes or 0)
        if holds and best is not None and bound.met_by(best):
            return other
    return None


def _rate_note(bound: Bound, setup: Setup) -> str:
    step = setup.least_step_seconds
    return f" (at most {1 / step:.1f} tok/s)" if step and bound.metric in _PER_TOKEN else ""
