"""What a round's token times and watched window say: every metric's formula, in one place."""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from pytest_qwen.bounds import Bound
from pytest_qwen.evidence import Round
from pytest_qwen.physics import mbu, mfu, usd_per_mtok
from pytest_qwen.statistics import percentile
from pytest_qwen.streaming import (
    PER_REQUEST,
    goodput_per_sec,
    itl_gaps_ms,
    middle_quantile,
    of_streams,
    request_values,
    wall_seconds,
)
from pytest_qwen.streams import Client, Stream

# Percentiles within one round (of gaps, of a slice's requests) need enough of them to mean anything: at
# least one beyond it.
_GAPS_NEEDED = {0.95: 20, 0.99: 100}
# What is counted a second needs a slice of several requests: the median slice of one Poisson arrival each
# shows 1.44 times the rate, of ten 1.03 times.
_RATES = frozenset({"output_tokens_per_sec", "requests_per_sec", "goodput_per_sec", "usd_per_mtok"})
_REQUESTS_FOR_A_RATE = 10
# Failures come unevenly: slices with so many more requests hardly ever lack complete ones.
_ROOM_FOR_FAILURES = 1.25


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


def of_served(
    streams: Sequence[Stream],
    *,
    client: Client | None,
    context: RoundContext,
    energy_j: float | None = None,
    peak_memory_bytes: int | None = None,
) -> dict[str, float]:
    """Every metric that the streams of a server can give (see `streaming.of_streams`).

    Without a load also what one batch shows of prefill and of the card, as in `of_round`: under a load
    requests share steps, and whose they are is not seen from here.
    """
    price = context.price_per_hour_usd
    found = of_streams(streams, client=client, price_per_hour_usd=price, energy_j=energy_j)
    if peak_memory_bytes is not None:
        found["vram_gb"] = peak_memory_bytes / 1e9
    if client is not None:
        return found
    first_ms = max((stream.ttft_ms for stream in streams if stream.ttft_ms is not None), default=0.0)
    prompts = [stream.prompt_tokens for stream in streams]
    if first_ms > 0 and None not in prompts:
        found["prefill_tokens_per_sec"] = 1000 * sum(tokens or 0 for tokens in prompts) / first_ms
        if context.prefill_flops is not None and context.peak_flops_per_sec:
            found["mfu_ratio"] = mfu(context.prefill_flops, first_ms / 1000, context.peak_flops_per_sec)
    tpot = found.get("tpot_ms")
    if tpot and context.bytes_per_step is not None and context.peak_bytes_per_sec:
        found["mbu_ratio"] = mbu(context.bytes_per_step, tpot, context.peak_bytes_per_sec)
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


# What was computed of rounds that are still there: a measurement asks the same of each after every round.
_KNOWN: dict[int, dict[Bound, float | None]] = {}


def value_of(bound: Bound, seen: Round) -> float | None:
    """What one round says about one bound, None when it says nothing (see `_value`)."""
    if not seen.streams:
        return _value(bound, seen)
    known = _KNOWN.get(id(seen))
    if known is None:
        known = _KNOWN[id(seen)] = {}
        weakref.finalize(seen, _KNOWN.pop, id(seen), None).atexit = False
    if bound not in known:
        known[bound] = _value(bound, seen)
    return known[bound]


def _value(bound: Bound, seen: Round) -> float | None:
    """The bound's figure in one round.

    For `max_itl` with a percentile the percentile is taken over the gaps within the round (the round is the
    unit of evidence), and in a slice of load that of a request's metric over its requests, provided that
    there are enough of them for it.
    """
    if bound.metric == "goodput_per_sec":
        seconds = wall_seconds(seen.streams, seen.client)
        return goodput_per_sec(seen.streams, seconds, bound.slos) if seen.streams else None
    if bound.stat == "median":
        return seen.metrics.get(bound.metric)
    if bound.metric == "itl_ms":
        gaps = itl_gaps_ms(seen.streams) if seen.streams else gaps_ms(seen.token_ms)
        return _quantile(gaps or (), bound)
    if is_slice(seen) and bound.metric in PER_REQUEST:
        return _quantile(request_values(bound.metric, seen.streams) or (), bound)
    return seen.metrics.get(bound.metric)


def _quantile(values: Sequence[float], bound: Bound) -> float | None:
    """The quantile that has to meet the bound, None for too few values."""
    if len(values) < samples_needed(bound.fraction):
        return None
    at = bound.fraction if bound.direction == "at most" else 1 - bound.fraction
    return percentile(values, at) if bound.metric == "itl_ms" else middle_quantile(values, at)


def is_slice(seen: Round) -> bool:
    """Whether a round is a slice of load, with requests that percentiles can be taken over."""
    return seen.client is not None


def samples_needed(fraction: float) -> int:
    """The fewest gaps or requests of one round that a percentile of them can be taken of."""
    return _GAPS_NEEDED.get(fraction, round(1 / (1 - fraction)))


def count_failed(seen: Round) -> int:
    """Requests of a round that failed."""
    return round(seen.metrics.get("error_ratio", 0.0) * len(seen.streams))


def requests_needed(bound: Bound) -> int:
    """The fewest requests that a slice of load must hold for the bound."""
    if bound.metric in PER_REQUEST and bound.stat != "median":
        return samples_needed(bound.fraction)
    return _REQUESTS_FOR_A_RATE if bound.metric in _RATES else 1


def slice_needed(bounds: Sequence[Bound]) -> int:
    """The fewest requests of a slice for all bounds together: more where some of them may fail."""
    needed = max(map(requests_needed, bounds), default=1)
    failing = max((bound.limit for bound in bounds if bound.metric == "error_ratio"), default=0.0)
    return math.ceil(_ROOM_FOR_FAILURES * needed / max(1 - failing, 0.1)) if failing else needed


def within_rounds(bound: Bound, rounds: Sequence[Round]) -> bool:
    """Whether the bound's percentile is taken within each round (see `_value`)."""
    return bound.metric == "itl_ms" or (bound.metric in PER_REQUEST and any(map(is_slice, rounds)))


def fraction_of_rounds(bound: Bound, rounds: Sequence[Round]) -> float:
    """The share of rounds that must meet the bound: half of them where each has its own percentile."""
    return 0.5 if within_rounds(bound, rounds) else bound.fraction
