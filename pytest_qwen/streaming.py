"""What the streams of one round say: every metric of a served request or a slice of load, in one place."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median

from pytest_qwen.bounds import Slo
from pytest_qwen.physics import usd_per_mtok
from pytest_qwen.statistics import percentile
from pytest_qwen.streams import Client, Stream


def tpot_ms(stream: Stream) -> float | None:
    """Time per output token of one complete answer: (last text - first text) / tokens after the first chunk.

    With one token a chunk those are all tokens but one, as everywhere (MLPerf Inference, vLLM's and NVIDIA's
    benchmarks). A server that sends several tokens a chunk has sent several with the first one too, and to
    count them as decoded afterwards makes it look faster than it is: the first chunk is taken to hold its
    share of the tokens, rounded up, because it is a full one and the last may not be.

    None for a failed or a one-chunk answer and where the server does not say how many tokens it sent.
    """
    if not stream.complete or stream.output_tokens is None or len(stream.chunk_ms) < 2:
        return None
    if stream.ttft_ms is None or stream.last_ms is None:
        return None
    after = stream.output_tokens - math.ceil(stream.output_tokens / len(stream.chunk_ms))
    return (stream.last_ms - stream.ttft_ms) / after if after > 0 else None


def _rate(stream: Stream) -> float | None:
    tpot = tpot_ms(stream)
    return 1000 / tpot if tpot else None


# What one stream gives for each metric that every request has for itself.
_OF_STREAM: dict[str, Callable[[Stream], float | None]] = {
    "ttft_ms": lambda stream: stream.ttft_ms,
    "tpot_ms": tpot_ms,
    "decode_tokens_per_sec": _rate,
    "e2e_latency_ms": lambda stream: stream.e2e_ms,
}
PER_REQUEST = frozenset(_OF_STREAM)


def longest_gap_ms(streams: Iterable[Stream]) -> float | None:
    """The longest time without text in any of the streams after their first; None where no two chunks came.

    Failed streams count too, and in one that fell silent the wait until it was given up.
    """
    gaps = [gap for stream in streams for gap in _waits_ms(stream)]
    return max(gaps, default=None)


def _waits_ms(stream: Stream) -> tuple[float, ...]:
    if stream.state == "silent" and stream.e2e_ms is not None and stream.chunk_ms:
        return (*stream.gaps_ms, stream.e2e_ms - stream.chunk_ms[-1])
    return stream.gaps_ms


def itl_gaps_ms(streams: Sequence[Stream]) -> tuple[float, ...] | None:
    """Every inter-token latency of the complete streams; None unless each of their chunks is one token."""
    done = [stream for stream in streams if stream.complete]
    if not all(stream.one_token_a_chunk for stream in done):
        return None
    return tuple(gap for stream in done for gap in stream.gaps_ms)


def request_values(metric: str, streams: Iterable[Stream]) -> tuple[float, ...] | None:
    """A metric of every complete request; None where one of them does not have it, so that none is left out.

    An answer of a single chunk has no time per output token and is no obstacle.
    """
    found: list[float] = []
    for stream in streams:
        if not stream.complete:
            continue
        value = _OF_STREAM[metric](stream)
        if value is not None:
            found.append(value)
        elif metric in ("tpot_ms", "decode_tokens_per_sec") and stream.output_tokens is None:
            return None
    return tuple(found)


def middle_quantile(values: Sequence[float], fraction: float) -> float:
    """A quantile of few values that is too high as often as too low, whatever their distribution.

    Type 8 of Hyndman and Fan (1996), "Sample quantiles in statistical packages", the one they recommend. The
    usual type 7 is too low most of the time: of 20 requests its p95 is below the true one in two slices of
    three, and a verdict on the median of the slices would inherit that.
    """
    ordered = sorted(values)
    place = (len(ordered) + 1 / 3) * fraction + 1 / 3 - 1
    place = min(max(place, 0.0), len(ordered) - 1.0)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def wall_seconds(streams: Sequence[Stream], client: Client | None) -> float:
    """How long a round took: the slice's seconds, else from the first request sent to the last one's end."""
    if client is not None:
        return client.seconds
    if not streams:
        return 0.0
    return (max(stream.end_ms for stream in streams) - min(stream.sent_ms for stream in streams)) / 1000


def of_streams(
    streams: Sequence[Stream],
    *,
    client: Client | None = None,
    price_per_hour_usd: float | None = None,
    energy_j: float | None = None,
) -> dict[str, float]:
    """Every metric that the streams of one round can give; what cannot be computed is absent.

    Of requests, the median over the complete ones: ttft_ms, tpot_ms, decode_tokens_per_sec (1000 / TPOT),
    e2e_latency_ms, and over all their gaps itl_ms (only where every chunk is one token) and chunk_gap_ms. Of
    the whole: longest_gap_ms, error_ratio (failed / ended requests), requests_per_sec (complete requests /
    seconds), output_tokens_per_sec (their tokens / seconds), usd_per_mtok and joules_per_token on those
    tokens. Where a complete request has no token count of the server, nothing is said of tokens.
    """
    found: dict[str, float] = {}
    for metric in _OF_STREAM:
        values = request_values(metric, streams)
        if values:
            found[metric] = median(values)
    found |= _gaps(streams)
    done = [stream for stream in streams if stream.complete]
    seconds = wall_seconds(streams, client)
    if streams:
        found["error_ratio"] = 1 - len(done) / len(streams)
    if seconds > 0:
        found["requests_per_sec"] = len(done) / seconds
        found |= _of_tokens(done, seconds, price_per_hour_usd, energy_j)
    return found


def _gaps(streams: Sequence[Stream]) -> dict[str, float]:
    found: dict[str, float] = {}
    chunk_gaps = [gap for stream in streams if stream.complete for gap in stream.gaps_ms]
    if chunk_gaps:
        found["chunk_gap_ms"] = percentile(chunk_gaps, 0.5)
    token_gaps = itl_gaps_ms(streams)
    if token_gaps:
        found["itl_ms"] = percentile(token_gaps, 0.5)
    longest = longest_gap_ms(streams)
    if longest is not None:
        found["longest_gap_ms"] = longest
    return found


def _of_tokens(
    done: Sequence[Stream], seconds: float, price_per_hour_usd: float | None, energy_j: float | None
) -> dict[str, float]:
    tokens = output_tokens(done)
    if not tokens:
        return {}
    found = {"output_tokens_per_sec": tokens / seconds}
    if price_per_hour_usd is not None:
        found["usd_per_mtok"] = usd_per_mtok(price_per_hour_usd, tokens / seconds)
    if energy_j is not None:
        found["joules_per_token"] = energy_j / tokens
    return found


def output_tokens(streams: Iterable[Stream]) -> int | None:
    """Tokens of the complete streams by the server's own count; None when it did not count one of them."""
    counts = [stream.output_tokens for stream in streams if stream.complete]
    return None if None in counts else sum(count for count in counts if count is not None)


def goodput_per_sec(streams: Sequence[Stream], seconds: float, slos: Sequence[Slo]) -> float | None:
    """Complete requests a second that meet every one of the limits; a failed one is never good.

    The term and its use with TTFT and TPOT: Zhong et al. 2024, "DistServe: Disaggregating Prefill and
    Decoding for Goodput-optimized Large Language Model Serving" (OSDI). None where a complete request does
    not show whether it met a limit.
    """
    good = 0
    for stream in streams:
        met = [_meets(stream, slo) for slo in slos] if stream.complete else [False]
        if None in met and False not in met:
            return None
        good += all(met)
    return good / seconds if seconds > 0 else None


def _meets(stream: Stream, slo: Slo) -> bool | None:
    if slo.metric == "itl_ms":
        if not stream.one_token_a_chunk:
            return None
        return not stream.gaps_ms or percentile(stream.gaps_ms, slo.fraction) <= slo.limit
    value = _OF_STREAM[slo.metric](stream)
    if value is None:  # one token has no time per output token, and so none that is too long
        return True if slo.metric == "tpot_ms" and stream.output_tokens is not None else None
    return value <= slo.limit


def cached_ratio(streams: Iterable[Stream]) -> float | None:
    """The share of prompt tokens that the server took from its prefix cache; None where it does not say."""
    known = [(s.cached_tokens, s.prompt_tokens) for s in streams if s.cached_tokens is not None]
    prompts = sum(prompt or 0 for _, prompt in known)
    return sum(cached or 0 for cached, _ in known) / prompts if prompts else None


def answered_ratio(streams: Iterable[Stream]) -> float | None:
    """Tokens that came over tokens that were asked for, of the complete streams that say both."""
    known = [
        (stream.output_tokens, stream.asked_tokens)
        for stream in streams
        if stream.complete and stream.output_tokens is not None and stream.asked_tokens
    ]
    asked = sum(wanted for _, wanted in known)
    return sum(came for came, _ in known) / asked if asked else None


def lacks_usage(streams: Iterable[Stream]) -> bool:
    """Whether the server left a complete answer uncounted."""
    return any(stream.state == "no-usage" for stream in streams)


# How much of an answer had come is another number each time.
_SO_FAR = re.compile(r",? after \d+ bytes( of the answer)?")


def failures_in_words(streams: Iterable[Stream], most: int = 3) -> str:
    """How failed requests ended, the commonest first: "3 http-error (status 500), 1 cut"; "" for none."""
    counts: dict[tuple[str, str], int] = {}
    for stream in streams:
        if not stream.complete:
            key = (stream.state, _SO_FAR.sub("", stream.detail.partition("\n")[0]))
            counts[key] = counts.get(key, 0) + 1
    ordered = sorted(counts.items(), key=lambda one: -one[1])
    words = [f"{n} {state}" + (f" ({detail})" if detail else "") for (state, detail), n in ordered[:most]]
    rest = sum(n for _, n in ordered[most:])
    return ", ".join([*words, *([f"{rest} others"] if rest else [])])


def totals(states: Mapping[str, int]) -> str:
    """Counts of states in words: "120 ok, 3 cut"."""
    return ", ".join(f"{count} {state}" for state, count in states.items())
