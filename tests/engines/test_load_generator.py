"""Loads against the mock server: closed and open loops, slices, ramp, turns, failures, and what the client knows."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import pytest

from pytest_qwen.engines.base import LoadSpec, Request, Trace
from pytest_qwen.engines.client_health import Health
from pytest_qwen.engines.endpoint import EndpointEngine
from pytest_qwen.engines.load_generator import SHORTEST_SLICE_S
from pytest_qwen.engines.loops import LoopThread
from pytest_qwen.errors import EngineFault
from pytest_qwen.streams import Client, Load, Stream
from pytest_qwen.testing import MockServer

TENTH = {"fault": "status", "status": 503, "fault_share": 0.1, "spared": 1}
HALF = {"fault": "end", "fault_share": 0.5, "spared": 1}
SILENT = {"fault": "silence", "fault_share": 0.5, "spared": 1}
BROKEN = {"fault": "status", "status": 500, "spared": 1}


@pytest.fixture(scope="module")
def good() -> Iterator[str]:
    with MockServer(ttft_ms=20, gap_ms=2, prefix_cache=True) as server:
        yield server.url


@pytest.fixture
def engine(good: str) -> Iterator[EndpointEngine]:
    with connected(good) as made:
        yield made


@pytest.fixture
def troubled(request: pytest.FixtureRequest) -> Iterator[EndpointEngine]:
    """On a server that answers the first request, and others as the parameter says."""
    with MockServer(ttft_ms=20, gap_ms=2, **request.param) as server, connected(server.url) as made:
        yield made


@contextmanager
def connected(url: str) -> Iterator[EndpointEngine]:
    made = EndpointEngine()
    made.load(LoadSpec(engine="endpoint", model="mock", options=(("url", url),)))
    try:
        yield made
    finally:
        made.close()


def asked(seed: int = 0, *, output: int = 10, **load: object) -> Request:
    return Request(
        prompt_tokens=32,
        output_tokens=output,
        ignore_eos=True,
        seed=seed,
        load=Load(**{"concurrency": 4, **load}),
    )


def client(trace: Trace) -> Client:
    assert trace.client is not None
    return trace.client


def test_a_closed_loop_is_held_and_goes_on_from_slice_to_slice(engine: EndpointEngine) -> None:
    first, second = (engine.run(asked(seed, slice_requests=20)) for seed in (0, 1))
    for trace in (first, second):
        assert len(trace.streams) >= 20
        assert {one.state for one in trace.streams} == {"ok"}
        assert len(trace.texts) == len(trace.streams)
        assert (trace.prompt_tokens, trace.output_tokens, trace.token_ns) == (32, 10, ())
        assert client(trace).seconds >= SHORTEST_SLICE_S
        assert 3.5 < client(trace).in_flight <= 4
        assert client(trace).held_ratio == pytest.approx(client(trace).in_flight / 4)
        assert client(trace).lag_p99_ms <= client(trace).lag_max_ms
        assert 0 < client(trace).cpu_ratio < 1.5
    sent = [one.sent_ms for trace in (first, second) for one in trace.streams]
    assert len(set(sent)) == len(sent)
    assert max(one.sent_ms for one in second.streams) > max(one.sent_ms for one in first.streams)
    assert len({one.digest for one in first.streams}) > 0.8 * len(first.streams)  # every prompt was another
    summary = engine.rest()
    assert summary is not None
    assert summary.requests >= len(first.streams) + len(second.streams) + 4
    assert summary.output_tokens == 10 * summary.requests
    assert 0 < summary.ramp_seconds < summary.seconds
    assert summary.states == {"ok": summary.requests}
    assert 0 < summary.server["running_max"] <= 4
    assert engine.rest() is None


def test_another_request_is_another_load_and_a_single_one_ends_it(engine: EndpointEngine) -> None:
    engine.run(asked())
    other = engine.run(asked(output=5))
    assert {one.output_tokens for one in other.streams} == {5}
    assert min(one.sent_ms for one in other.streams) >= 0
    single = engine.run(Request(prompt_tokens=8, output_tokens=3, ignore_eos=True))
    assert (single.client, len(single.streams)) == (None, 1)
    assert engine.rest() is not None


def test_the_interpreter_is_as_before_when_the_load_is_over(engine: EndpointEngine) -> None:
    before = sys.getswitchinterval(), gc.isenabled()
    engine.run(asked())
    assert not gc.isenabled()
    engine.rest()
    assert (sys.getswitchinterval(), gc.isenabled()) == before


def test_an_open_loop_counts_from_when_a_request_was_due(engine: EndpointEngine) -> None:
    trace = engine.run(asked(concurrency=None, request_rate=100.0, arrival="constant", slice_requests=40))
    due = sorted(one.scheduled_ms for one in trace.streams)
    assert [b - a for a, b in pairwise(due)] == pytest.approx([10.0] * (len(due) - 1), rel=0.001)
    for one in trace.streams:
        assert one.sent_ms >= one.scheduled_ms
        assert one.ttft_ms is not None
        assert (
            one.ttft_ms >= one.sent_ms - one.scheduled_ms + 20
        )  # the server's time comes on top of the wait
    assert client(trace).held_ratio > 0.5
    assert client(trace).late_p99_ms >= 0


def test_a_slice_of_an_open_loop_ends_by_the_clock_and_not_with_its_last_request(
    engine: EndpointEngine,
) -> None:
    load = {"concurrency": None, "request_rate": 40.0, "arrival": "constant", "slice_requests": 20}
    trace = engine.run(asked(**load))
    # the twentieth request has ended after half a second
    assert client(trace).seconds >= 0.75
    assert len(trace.streams) > 20


def test_poisson_arrivals_follow_the_seed(engine: EndpointEngine) -> None:
    load = {"concurrency": None, "request_rate": 200.0, "slice_requests": 60}

    def gaps(seed: int) -> list[float]:
        engine.rest()
        due = sorted(one.scheduled_ms for one in engine.run(asked(seed, **load)).streams)
        return [round(b - a, 3) for a, b in pairwise(due)]

    first, other = gaps(1), gaps(2)
    assert len(set(first)) > 0.9 * len(first)
    assert not set(first) & set(other[:5])


def test_lengths_spread_around_what_was_asked(engine: EndpointEngine) -> None:
    trace = engine.run(asked(prompt_spread=0.5, output_spread=0.5, slice_requests=60))
    for lengths, middle in (
        ([one.prompt_tokens for one in trace.streams], 32),
        ([one.output_tokens for one in trace.streams], 10),
    ):
        assert min(lengths) >= middle / 2
        assert max(lengths) <= middle * 1.5
        assert len(set(lengths)) > 4
    assert all(one.asked_tokens == one.output_tokens for one in trace.streams)


def test_a_shared_prefix_hits_the_cache_and_fresh_prompts_do_not(engine: EndpointEngine) -> None:
    fresh = engine.run(asked(slice_requests=20)).streams
    shared = engine.run(asked(slice_requests=20, shared_prefix_tokens=16)).streams
    assert sum(one.cached_tokens or 0 for one in fresh) == 0
    assert sum(one.cached_tokens or 0 for one in shared) >= 16 * len(shared)


def test_turns_go_on_with_what_was_said(engine: EndpointEngine) -> None:
    streams = engine.run(asked(turns=3, slice_requests=30)).streams
    by_turn = {turn: [one.prompt_tokens for one in streams if one.turn == turn] for turn in (0, 1, 2)}
    assert all(by_turn.values())
    assert max(by_turn[0]) < min(by_turn[1])
    assert max(by_turn[1]) < min(by_turn[2])


@pytest.mark.parametrize("troubled", [TENTH], indirect=True)
def test_a_tenth_of_errors_is_a_tenth_of_the_streams(troubled: EndpointEngine) -> None:
    streams = troubled.run(asked(slice_requests=60)).streams
    failed = [one for one in streams if one.state == "http-error"]
    assert 0.05 < len(failed) / len(streams) < 0.2
    assert "HTTP 503" in failed[0].detail
    assert (failed[0].ttft_ms, failed[0].e2e_ms is None) == (None, False)


@pytest.mark.parametrize("troubled", [HALF], indirect=True)
def test_an_answer_that_ends_half_way_is_no_success(troubled: EndpointEngine) -> None:
    streams = troubled.run(asked(slice_requests=30)).streams
    cut = [one for one in streams if one.state == "cut"]
    assert 0.3 < len(cut) / len(streams) < 0.7
    assert {len(one.chunk_ms) for one in cut} == {5}
    assert {one.output_tokens for one in cut} == {None}


@pytest.mark.parametrize("troubled", [SILENT], indirect=True)
def test_silence_ends_a_stream_and_keeps_what_came(troubled: EndpointEngine) -> None:
    streams = troubled.run(asked(slice_requests=12, silence_s=0.2)).streams
    silent = [one for one in streams if one.state == "silent"]
    assert silent
    assert {len(one.chunk_ms) for one in silent} == {5}
    assert all(one.ttft_ms is not None and one.e2e_ms is None for one in silent)


@pytest.mark.parametrize("troubled", [BROKEN], indirect=True)
def test_a_server_that_answers_nothing_is_a_fault_in_words(troubled: EndpointEngine) -> None:
    with pytest.raises(
        EngineFault, match=r"all of the first 2\d requests failed \(2\d http-error\)"
    ) as caught:
        troubled.run(asked())
    assert "HTTP 500" in str(caught.value)
    summary = troubled.rest()
    assert summary is not None
    assert summary.requests == summary.states["http-error"]


@pytest.mark.parametrize("troubled", [{"fault": "silence", "fault_at": 0, "spared": 1}], indirect=True)
def test_a_server_that_is_silent_is_not_waited_for_twenty_times(troubled: EndpointEngine) -> None:
    with pytest.raises(EngineFault, match=r"all of the first \d requests failed \(\d silent\)"):
        troubled.run(asked(concurrency=1, silence_s=0.15))


def test_a_generator_that_fails_itself_says_so(
    engine: EndpointEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_arguments: object, **_named: object) -> None:
        raise KeyError("a defect")

    monkeypatch.setattr("pytest_qwen.engines.load_generator.stream_of", broken)
    with pytest.raises(EngineFault, match="the load generator failed: KeyError"):
        engine.run(asked())
    monkeypatch.undo()


class _Loop:
    """Keeps what is to be called, and calls nothing."""

    def call_later(self, _seconds: float, _call: object) -> None:
        return None


def test_what_a_client_knows_of_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1_000_000_000]
    monkeypatch.setattr("pytest_qwen.engines.client_health.monotonic_ns", lambda: now[0])
    health = Health(concurrency=2)
    health.start(_Loop())
    health.begin_slice()
    health.sent(None)
    now[0] += 10_000_000  # one of two for 10 ms
    health.sent(None)
    now[0] += 30_000_000  # both for 30 ms
    health.left()
    health._tick()  # the ticks of 5, 10, … 40 ms, all of them at 40
    found = health.of_slice()
    assert found.in_flight == pytest.approx((10 + 2 * 30) / 40)
    assert found.held_ratio == pytest.approx(found.in_flight / 2)
    assert (found.lag_max_ms, found.lag_p99_ms) == (35, 35)
    assert found.seconds == pytest.approx(0.04)


def test_an_open_loop_held_what_it_sent_of_what_was_due(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0]
    monkeypatch.setattr("pytest_qwen.engines.client_health.monotonic_ns", lambda: now[0])
    health = Health(concurrency=None)
    health.begin_slice()
    health.due += 4
    now[0] = 3_000_000
    for due_ns in (0, 1_000_000, 2_000_000):
        health.sent(due_ns)
    assert (health.of_slice().held_ratio, health.of_slice().late_p99_ms) == (0.75, 3)
    health.begin_slice()
    assert health.due == 1  # what was due and not sent still is


def test_a_loop_thread_gives_values_and_errors_and_ends() -> None:
    thread = LoopThread()

    async def fail() -> None:
        raise KeyError("mine")

    assert thread.call(asyncio.sleep(0, "value")) == "value"
    with pytest.raises(KeyError, match="mine"):
        thread.call(fail())
    thread.close()
    thread.close()


def test_a_stream_says_what_it_was() -> None:
    one = Stream(scheduled_ms=0, sent_ms=0, state="ok", chunk_ms=(1.0, 2.0, 5.0), output_tokens=3)
    assert (one.longest_gap_ms, one.one_token_a_chunk) == (3.0, True)
