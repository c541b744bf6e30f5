"""Slices of load: why one does not count, and what the whole load was beside its steady state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pytest_qwen.engines.base import Request, Trace
from pytest_qwen.evidence import Round
from pytest_qwen.outcomes import NoVerdict
from pytest_qwen.streaming import answered_ratio, cached_ratio, output_tokens
from pytest_qwen.streams import COMPLETE, Client, Load, LoadSummary

# A client must hold the load that it was asked for, and read its clock when a token comes, not later.
_LEAST_HELD = 0.98  # what is missing of the load, the server did not have to bear: 2 % is within most bounds
_MOST_LAG_MS = 5.0  # as late may every time be that it took: a quarter of a gap at 50 tokens a second
# Of unique prompts a server has nothing in its cache but the first tokens that all prompts share.
_MOST_CACHED = 0.05
# Servers differ by a token or two in whether they count the one that ends an answer.
_LEAST_ANSWERED = 0.98


def violations_of(request: Request, trace: Trace) -> tuple[NoVerdict, ...]:
    """Why a round of a server does not count: short answers, cached prompts, a client that was too slow."""
    found = client_limits(trace.client, request.load) if trace.client else []
    answered = answered_ratio(trace.streams)
    if request.ignore_eos and answered is not None and answered < _LEAST_ANSWERED:
        found.append(NoVerdict.SHORT_OUTPUT)
    load = request.load or Load()
    unique = request.prompt_tokens is not None and not load.shared_prefix_tokens and load.turns == 1
    cached = cached_ratio(trace.streams)
    if unique and cached is not None and cached > _MOST_CACHED:
        found.append(NoVerdict.CACHE_HITS)
    return tuple(found)


def client_limits(client: Client, load: Load | None) -> list[NoVerdict]:
    """Whether the client, not the server, set what was measured in a slice.

    The lateness of an open loop's requests is held to the limit of the event loop's lag.
    """
    found = []
    open_loop = load is not None and load.request_rate is not None
    lag_ms = client.lag_p99_ms or 0.0
    if lag_ms > _MOST_LAG_MS or (open_loop and client.late_p99_ms > _MOST_LAG_MS):
        found.append(NoVerdict.CLIENT_LAG)
    if client.held_ratio is not None and client.held_ratio < _LEAST_HELD:
        found.append(NoVerdict.CLIENT_BEHIND)
    return found


def facts_of_load(summaries: Sequence[LoadSummary]) -> dict[str, float]:
    """What whole loads were, ramp and drain included; what the server told is of the last one."""
    if not summaries:
        return {}
    seconds = sum(summary.seconds for summary in summaries)
    facts = {
        "full_seconds": seconds,
        "full_requests": float(sum(summary.requests for summary in summaries)),
        "ramp_seconds": sum(summary.ramp_seconds for summary in summaries),
        "full_failed": float(sum(count_failed(summary.states) for summary in summaries)),
    }
    tokens = sum(summary.output_tokens for summary in summaries)
    if seconds > 0 and tokens:
        facts["full_output_tokens_per_sec"] = tokens / seconds
    return facts | {f"server_{name}": value for name, value in summaries[-1].server.items()}


def count_failed(states: Mapping[str, int]) -> int:
    """Requests that did not end well."""
    return sum(count for state, count in states.items() if state not in COMPLETE)


def steady_beside_full(rounds: Sequence[Round], facts: Mapping[str, float]) -> tuple[str, ...]:
    """The steady state that is judged, beside the whole load that a wall clock would have shown."""
    steady = [seen for seen in rounds if seen.kind == "round" and seen.client is not None]
    if not steady or "full_seconds" not in facts:
        return ()
    seconds = sum(seen.seconds for seen in steady)
    ended = [stream for seen in steady for stream in seen.streams]
    tokens, full = output_tokens(ended), facts.get("full_output_tokens_per_sec")
    what, whole = f"{len(ended)} requests", f"{facts['full_requests']:.0f} requests"
    if tokens and full is not None and seconds > 0:
        what, whole = f"{tokens / seconds:.4g} tok/s", f"{full:.4g} tok/s"
    return (
        f"steady state: {what} in {seconds:.3g} s, beside {whole} in the full {facts['full_seconds']:.3g} s "
        f"(ramp {facts['ramp_seconds']:.3g} s, warm-up and drain with it)",
    )
