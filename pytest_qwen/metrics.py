"""What a round's token times and watched window say: every metric's formula, in one place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from pytest_qwen.bounds import Bound
from pytest_qwen.evidence import Round
from pytest_qwen.physics import mbu, mfu, usd_per_mtok
from pytest_qwen.statistics import percentile

# Percentiles of the gaps within one round need enough gaps to mean anything: at least one gap beyond it.
_GAPS_NEEDED = {0.95: 20, 0.99: 100}


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundContext:
    """What is known of the model and the card apart from the round; None is unknown and gives no metric.

    `bytes_per_step` is what one decode step must read (weights and KV cache at the round's mean context).
    `prefill_flops` is the work of the whole batch's prompt. `price_per_hour_usd` is for all cards together.
    `training` says that a round is one optimiser step on the prompts, not an answer to them.
    """

    bytes_per_step: float | None = None
    prefill_flops: float | None = None
    peak_bytes_per_sec: float | None = None
    peak_flops_per_sec: float | None = None
    price_per_hour_usd: float | None = None
    training: bool = False


def gaps_ms(token_ms: Sequence[float]) -> tuple[float, ...]:
    """Inter-token latencies: the time between each token and the one before, TTFT left out."""
    return tuple(later - earlier for earlier, later in pairwise(token_ms))


def of_round(
    token_ms: Sequence[float],
    *,
    prompt_tokens: int,
    batch_size: int,
    context: RoundContext,
    energy_j: float | None = None,
    peak_memory_bytes: int | None = None,
) -> dict[str, float]:
    """Every metric that one round can give; what cannot be computed is absent.

    `token_ms` has one entry a decode step, since the request; the first is the time to first token.

    - ttft_ms: request sent to first token.
    - tpot_ms: (e2e - TTFT) / (output tokens - 1); prefill is no part of it.
    - decode_tokens_per_sec: 1000 / TPOT, for one sequence.
    - output_tokens_per_sec: all output tokens of the batch / wall time of the round.
    - prefill_tokens_per_sec: prompt tokens of the batch / TTFT.
    - mbu_ratio: bytes a step must read / TPOT / peak bandwidth.
    - mfu_ratio: prefill FLOPs / TTFT / peak FLOP/s.
    - joules_per_token: energy of the window / output tokens of the batch.
    - usd_per_mtok: price of an hour / output tokens of an hour, per million.
    """
    if context.training:
        return _of_training(token_ms[-1], prompt_tokens * batch_size, energy_j, peak_memory_bytes)
    ttft, e2e, steps = token_ms[0], token_ms[-1], len(token_ms)
    tokens = steps * batch_size
    found = {"ttft_ms": ttft, "e2e_latency_ms": e2e}
    if e2e > 0:
        rate = found["output_tokens_per_sec"] = 1000 * tokens / e2e
        if context.price_per_hour_usd is not None:
            found["usd_per_mtok"] = usd_per_mtok(context.price_per_hour_usd, rate)
    if ttft > 0:
        found["prefill_tokens_per_sec"] = 1000 * prompt_tokens * batch_size / ttft
        if context.prefill_flops is not None and context.peak_flops_per_sec:
            found["mfu_ratio"] = mfu(context.prefill_flops, ttft / 1000, context.peak_flops_per_sec)
    if steps > 1:
        found |= _of_decode(token_ms, context)
    if energy_j is not None:
        found["joules_per_token"] = energy_j / tokens
    if peak_memory_bytes is not None:
        found["vram_gb"] = peak_memory_bytes / 1e9
    return found


def _of_training(
    step_ms: float, tokens: int, energy_j: float | None, peak_memory_bytes: int | None
) -> dict[str, float]:
    """The metrics of one optimiser step on `tokens` tokens (all sequences together).

    - step_time_s: forward, backward and update.
    - trained_tokens_per_sec: tokens / step time.
    - joules_per_token: energy of the window / tokens.
    """
    found = {"e2e_latency_ms": step_ms, "step_time_s": step_ms / 1000}
    if step_ms > 0:
        found["trained_tokens_per_sec"] = 1000 * tokens / step_ms
    if energy_j is not None:
        found["joules_per_token"] = energy_j / tokens
    if peak_memory_bytes is not None:
        found["vram_gb"] = peak_memory_bytes / 1e9
    return found


def _of_decode(token_ms: Sequence[float], context: RoundContext) -> dict[str, float]:
    """The metrics that need at least two tokens."""
    gaps = gaps_ms(token_ms)
    tpot = (token_ms[-1] - token_ms[0]) / len(gaps)
    found = {"tpot_ms": tpot, "itl_ms": percentile(gaps, 0.5), "itl_max_ms": max(gaps)}
    if tpot > 0:
        found["decode_tokens_per_sec"] = 1000 / tpot
        if context.bytes_per_step is not None and context.peak_bytes_per_sec:
            found["mbu_ratio"] = mbu(context.bytes_per_step, tpot, context.peak_bytes_per_sec)
    return found


def value_of(bound: Bound, seen: Round) -> float | None:
    """What one round says about one bound, None when it says nothing.

    For `max_itl` with a percentile the percentile is taken over the gaps within the round (the round is the
    unit of evidence), provided that there are enough gaps for it.
    """
    if bound.metric == "itl_ms" and bound.stat != "median":
        gaps = gaps_ms(seen.token_ms)
        needed = _GAPS_NEEDED.get(bound.fraction, round(1 / (1 - bound.fraction)))
        return percentile(gaps, bound.fraction) if len(gaps) >= needed else None
    return seen.metrics.get(bound.metric)


def fraction_of_rounds(bound: Bound) -> float:
    """The share of rounds that must meet the bound (see `value_of` for why `max_itl` differs)."""
    return 0.5 if bound.metric == "itl_ms" else bound.fraction
