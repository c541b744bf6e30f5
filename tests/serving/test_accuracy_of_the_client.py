"""What our client says is what the server really did, by the log of the server; nothing here is timed."""

from statistics import median

import pytest

from pytest_qwen.engines.base import LoadSpec, Request
from pytest_qwen.engines.endpoint import EndpointEngine
from pytest_qwen.streams import Load
from pytest_qwen.testing import MockServer

MODELS = {
    "plain": {},
    "odd": {"empty_first_ms": 2.0, "tokens_per_chunk": 4, "stall_at": 9, "stall_s": 0.1, "stall_share": 0.1},
}
# Far less than the 30 ms that are measured, and far more than a busy machine adds; the benchmark has figures.
NEAR_MS = 10.0


@pytest.fixture(scope="module")
def server():
    with MockServer(models=MODELS, ttft_ms=30.0, gap_ms=3.0) as running:
        yield running


def pairs_of(server, model, concurrency):
    """Each stream that the client tells of, beside what the server wrote down of the same answer."""
    engine = EndpointEngine()
    engine.load(LoadSpec(engine="endpoint", model=model, options=(("url", server.url),)))
    try:
        load = Load(concurrency=concurrency, slice_requests=20)
        trace = engine.run(Request(prompt_tokens=24, output_tokens=16, ignore_eos=True, load=load))
        engine.rest()
    finally:
        engine.close()
    served = {one.digest: one for one in server.log()}
    assert len(trace.streams) >= 20
    return [(stream, served[stream.digest]) for stream in trace.streams]


@pytest.mark.parametrize(("model", "concurrency"), [("plain", 1), ("plain", 8), ("odd", 8)])
def test_times_and_counts_are_those_of_the_server(server, model, concurrency):
    pairs = pairs_of(server, model, concurrency)
    for stream, served in pairs:
        assert stream.state == "ok"
        assert stream.output_tokens == served.output_tokens == 16
        assert stream.prompt_tokens == served.prompt_tokens
        # a chunk may share a packet with another, but text never gets lost or comes early
        assert len(stream.chunk_ms) == len(served.chunk_ns)
        assert stream.ttft_ms >= served.ttft_ms
        assert stream.e2e_ms >= stream.last_ms
    # the client's clock starts before the server's and stops after it: what is left is the way there and back
    assert median(stream.ttft_ms - served.ttft_ms for stream, served in pairs) < NEAR_MS
    differences = [
        abs((stream.last_ms - stream.ttft_ms) - (served.chunk_ns[-1] - served.chunk_ns[0]) / 1e6)
        for stream, served in pairs
    ]
    assert median(differences) < NEAR_MS


def test_the_longest_gap_is_that_of_the_server(server):
    pairs = pairs_of(server, "odd", 8)
    stalled = [stream.longest_gap_ms for stream, served in pairs if max(served.gaps_ms) > 100]
    calm = [stream.longest_gap_ms for stream, served in pairs if max(served.gaps_ms) <= 100]
    assert stalled
    assert min(stalled) > 95
    assert median(calm) < 95
