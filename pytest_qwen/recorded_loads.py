"""A load that another tool made, as rounds of ours: its steady part cut into slices, to be judged alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from pytest_qwen.engines.base import Request
from pytest_qwen.engines.served_traces import trace_of
from pytest_qwen.evidence import Measurement
from pytest_qwen.generators import Recording
from pytest_qwen.measure import Observer, to_round
from pytest_qwen.slices import facts_of_load
from pytest_qwen.streaming import output_tokens
from pytest_qwen.streams import OPEN_SLICE, Client, Load, LoadSummary, Stream, count_states


def measurement_of(recording: Recording, request: Request, observer: Observer) -> Measurement:
    """What the tool measured, its ramp and its drain cut off; what its file hides stands in the hints.

    `request` is what the tool was told to ask, by the test's workload: with a concurrency in it the load was
    a closed loop of so many users. No round is there when the recording is too short for a single slice.
    """
    load = request.load or Load()
    asked = request.output_tokens if request.ignore_eos else None
    streams = sorted(
        (replace(one, asked_tokens=asked) for one in recording.streams), key=lambda one: one.end_ms
    )
    began, ended = _steady(streams, load)
    steady = [one for one in streams if began < one.end_ms <= ended]
    rounds = []
    for index, (first_ms, last_ms, part) in enumerate(_slices(steady, began, ended, load)):
        client = _client(streams, first_ms, last_ms, load)
        trace = replace(trace_of(part, [""] * len(part)), client=client)
        context = observer.context(request, trace)
        rounds.append(to_round(request, trace, None, context, index, "round"))
    whole = _summary(streams, began)
    return Measurement(
        rounds=tuple(rounds),
        observed=facts_of_load([whole]) if streams else {},
        stopped="budget",
        seconds=whole.seconds,
        hints=tuple(f"{recording.tool}'s file cannot show {words}" for words in recording.hides),
    )


def _steady(streams: Sequence[Stream], load: Load) -> tuple[float, float]:
    """From when every user has had an answer (open: two mean answers) to the last sending; milliseconds."""
    if not streams:
        return 0.0, 0.0
    if load.concurrency is not None:
        ramp = streams[min(load.concurrency, len(streams)) - 1].end_ms
    else:
        ramp = 2 * sum(one.end_ms - one.sent_ms for one in streams) / len(streams)
    return ramp, max(one.sent_ms for one in streams)


def _slices(
    steady: Sequence[Stream], began: float, ended: float, load: Load
) -> list[tuple[float, float, tuple[Stream, ...]]]:
    """(begin, end, requests) of each slice: whole turns of a closed loop's users, else equal times."""
    needed = max(1, load.slice_requests)
    if load.concurrency is not None:
        parts = [tuple(steady[at : at + needed]) for at in range(0, len(steady) - needed + 1, needed)]
        ends = [part[-1].end_ms for part in parts]
        return list(zip([began, *ends], ends, parts, strict=False))
    count = int(len(steady) / (OPEN_SLICE * needed))
    cuts = [began + (ended - began) * n / max(1, count) for n in range(count + 1)]
    return [
        (first, last, tuple(one for one in steady if first < one.end_ms <= last))
        for first, last in pairwise(cuts)
    ]


def _client(streams: Sequence[Stream], first_ms: float, last_ms: float, load: Load) -> Client:
    """How much of the load the tool held, by its own times; what it does not tell of itself is unknown."""
    inside = (
        max(0.0, min(one.end_ms, last_ms) - max(one.sent_ms, first_ms))
        for one in streams
        if one.sent_ms < last_ms
    )
    in_flight = sum(inside) / (last_ms - first_ms)
    held = None if load.concurrency is None else min(1.0, in_flight / load.concurrency)
    return Client(
        seconds=(last_ms - first_ms) / 1000,
        held_ratio=held,
        lag_p99_ms=None,
        lag_max_ms=None,
        cpu_ratio=None,
        in_flight=in_flight,
    )


def _summary(streams: Sequence[Stream], ramp_ms: float) -> LoadSummary:
    """The whole load, ramp and drain included."""
    return LoadSummary(
        seconds=max((one.end_ms for one in streams), default=0.0) / 1000,
        ramp_seconds=ramp_ms / 1000,
        requests=len(streams),
        output_tokens=output_tokens(streams) or 0,
        states=count_states(streams),
    )
