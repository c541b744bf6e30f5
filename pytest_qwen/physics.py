"""How fast it can be at most, what that costs, and which bounds no software can meet."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from pytest_qwen.bounds import Bound
from pytest_qwen.gpus import CATALOGUE
from pytest_qwen.memory import CONTEXT_BYTES, Fit, fit
from pytest_qwen.roofline import Setup, spec_of

__all__ = [
    "Ceiling",
    "Fit",
    "Setup",
    "best_possible",
    "ceiling",
    "fit",
    "mbu",
    "mfu",
    "price_of",
    "refusal",
    "system_tokens_per_sec",
    "usd_per_mtok",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceiling:
    """The most that memory bandwidth allows: `tokens_per_sec` for one sequence, `system_tokens_per_sec` for
    the whole batch, and the arithmetic in a sentence."""

    tokens_per_sec: float
    system_tokens_per_sec: float
    bytes_per_step: float
    bandwidth_bytes_per_sec: float
    arithmetic: str


def ceiling(setup: Setup, *, least: bool = False) -> Ceiling | None:
    """The bandwidth roofline of decoding; None where the bandwidth or a number format's size is unknown.

    A step cannot end before the weights and the KV cache were read once (Pope et al. 2022, "Efficiently
    scaling transformer inference"; Williams et al. 2009, "Roofline"). Taken at the mean context of the
    output; with `least`, what holds always: the shortest context and the fewest experts.
    """
    bandwidth = setup.bytes_per_sec
    if bandwidth is None or not setup.sizes_known:
        return None
    step = setup.step_bytes(setup.prompt_tokens if least else None, least=least)
    rate = bandwidth / step
    return Ceiling(
        tokens_per_sec=rate,
        system_tokens_per_sec=rate * setup.batch,
        bytes_per_step=step,
        bandwidth_bytes_per_sec=bandwidth,
        arithmetic=_arithmetic(setup, step, bandwidth),
    )


def _arithmetic(setup: Setup, step: float, bandwidth: float) -> str:
    """Like "7.07 B weights in float16 and the KV cache are 14.1 GB a token; L4 moves 300 GB/s; ..." """
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
    """The best value of each metric that the hardware allows; a metric without a known limit is absent.

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
        best["output_tokens_per_sec"] = setup.batch * max(setup.output_tokens, 1) / (whole or step)
        if setup.users is not None:
            best["output_tokens_per_sec"] = _most_under_load(setup)
            best["goodput_per_sec"] = best["output_tokens_per_sec"] / max(setup.output_tokens, 1)
        if price_per_hour_usd is not None:
            best["usd_per_mtok"] = usd_per_mtok(price_per_hour_usd, best["output_tokens_per_sec"])
    return best


def _most_under_load(setup: Setup) -> float:
    """The most tokens a second of all users of a load together: each step gives every one of them a token.

    Prompts may be processed beside that, so that they take no time of their own. The rate only grows with the
    users, and ever more slowly: their mean number bounds the mean rate.
    """
    crowd = _crowd(setup)
    return crowd.batch / (crowd.least_step_seconds or math.inf)


def system_tokens_per_sec(setup: Setup, top: Ceiling) -> float:
    """The most tokens a second of the whole batch at `top`, or of all users of a load."""
    return top.system_tokens_per_sec if setup.users is None else _most_under_load(setup)


def overload(setup: Setup, requests_per_sec: float) -> str | None:
    """Why so many requests a second are more than the hardware can answer in the long run, None otherwise."""
    if not setup.sizes_known or setup.least_step_seconds is None:
        return None
    asked, most = requests_per_sec * setup.output_tokens, _most_under_load(setup)
    if asked <= most:
        return None
    return f"{requests_per_sec:g} req/s are {asked:,.0f} tok/s, and {setup.label} gives at most {most:,.0f}"


def _crowd(setup: Setup) -> Setup:
    """The same with the users of a load as one batch."""
    return setup if setup.users is None else replace(setup, batch=max(1, setup.users), users=None)


def least_training_seconds(setup: Setup) -> float | None:
    """The least time of an optimiser step on the prompts: forward, and backward at least as much again.

    Every method needs the gradients of the layers' inputs, which cost what the forward pass costs; those of
    trained weights and the head's work on all but the last token are left out, so that it always holds.
    """
    if setup.most_flops_per_sec is None:
        return None
    return 2 * setup.shape.prefill_flops(setup.prompt_tokens, setup.batch) / setup.most_flops_per_sec


def best_possible(bound: Bound, setup: Setup, price_per_hour_usd: float | None = None) -> float | None:
    """The best value of the bound's metric that the hardware allows, None where unknown.

    `price_per_hour_usd` is for all cards; the catalogue's price when None.
    """
    return _best_values(setup, price_of(setup, price_per_hour_usd)).get(bound.metric)


def price_of(setup: Setup, given: float | None = None) -> float | None:
    """USD an hour for all cards: the price given, else the catalogue's; None where there is neither."""
    spec = spec_of(setup.gpu)
    if given is not None or spec is None or spec.price_per_hour_usd is None:
        return given
    return spec.price_per_hour_usd * setup.count


def refusal(bound: Bound, setup: Setup, *, price_per_hour_usd: float | None = None) -> str | None:
    """Why no software can meet `bound` on these cards, with the arithmetic and what would lift it.

    None when physics allows the bound or too little is known to say. `price_per_hour_usd` is for all cards;
    the catalogue's price when None. Speculative decoding is not counted: it may give several tokens a step.
    """
    price = price_of(setup, price_per_hour_usd)
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
    top = ceiling(setup, least=True)
    return top.arithmetic if top else ""


def _why_system(setup: Setup) -> str:
    return _why_decode(_crowd(setup))


def _why_prefill(setup: Setup) -> str:
    parts = []
    if setup.most_flops_per_sec is not None:
        flops = setup.shape.prefill_flops(setup.prompt_tokens, setup.batch)
        parts.append(
            f"{flops / 1e12:.3g} TFLOP at no more than {setup.most_flops_per_sec / 1e12:,.0f} TFLOP/s"
        )
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
    "output_tokens_per_sec": _why_system,
    "usd_per_mtok": _why_system,
    "goodput_per_sec": _why_system,
    "ttft_ms": _why_prefill,
    "prefill_tokens_per_sec": _why_prefill,
    "e2e_latency_ms": lambda s: (
        f"{_why_prefill(s)}; then {s.output_tokens - 1} more tokens: {_why_decode(s)}"
    ),
}
_PER_TOKEN = {"decode_tokens_per_sec", "output_tokens_per_sec", "tpot_ms", "itl_ms", "usd_per_mtok"}
_NO_CARD_LIFTS = {"mbu_ratio", "mfu_ratio", "vram_gb", "usd_per_mtok"}


def _remedies(bound: Bound, setup: Setup, price: float | None) -> list[str]:
    """Changes that lift the bound: fewer bits, the slowest card that is fast enough, other decoding."""
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
    if setup.users is not None:
        system = {"output_tokens_per_sec", "usd_per_mtok", "goodput_per_sec"}
        found += ["more users at once"] if bound.metric in system else []
    elif setup.batch == 1 and bound.marker in {"min_tokens_per_sec", "max_usd_per_mtok"}:
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
