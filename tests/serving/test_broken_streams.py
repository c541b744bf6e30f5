"""Each way in which the mock server and the proxy break an answer, and the state that our client gives it."""

import re
from pathlib import Path

import pytest

from pytest_qwen.engines.base import LoadSpec, Request
from pytest_qwen.engines.endpoint import EndpointEngine
from pytest_qwen.mock_server.script import Breakage, ServerScript, choices_of
from pytest_qwen.streams import Load, count_states
from pytest_qwen.testing import MockServer, StreamProxy

PAGE = Path(__file__).parents[2] / "docs" / "testing-servers.md"
TIMES = {"ttft_ms": 5.0, "gap_ms": 1.0}
FAULTS = [fault for fault in choices_of(Breakage) if fault]


def documented():
    """The state of each fault in the page's table."""
    rows = re.findall(r"^\| (`\w[^|]*) \| [^|]+ \| `([\w-]+)` \|$", PAGE.read_text(), re.MULTILINE)
    return {fault: state for cell, state in rows for fault in re.findall(r"`([\w-]+)`", cell)}


@pytest.fixture(scope="module")
def server():
    models = {fault: {"fault": fault, "fault_share": 0.25, "spared": 4} for fault in FAULTS}
    with MockServer(models={"whole": {}, **models}, **TIMES) as running:
        yield running


def one_slice(url, model):
    """The streams of one slice of a load of four users."""
    engine = EndpointEngine()
    engine.load(LoadSpec(engine="endpoint", model=model, options=(("url", url),)))
    try:
        load = Load(concurrency=4, slice_requests=16, silence_s=0.1)
        request = Request(prompt_tokens=8, output_tokens=8, ignore_eos=True, load=load)
        return engine.run(request).streams
    finally:
        engine.close()


def test_the_page_lists_every_fault_and_field():
    assert set(documented()) == set(FAULTS)
    page = PAGE.read_text()
    assert [name for name in ServerScript().as_dict() if f"`{name}`" not in page] == []


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_answer_has_the_state_that_the_page_says_and_the_others_are_whole(server, fault):
    streams = one_slice(server.url, fault)
    states = count_states(streams)
    assert set(states) == {"ok", documented()[fault]}, [stream.detail for stream in streams]
    for stream in streams:
        assert stream.complete or stream.detail
        # tokens are never taken from the request: an answer whose counts did not come has none
        counted = stream.complete or fault == "content-type"
        assert stream.output_tokens == (8 if counted else None)


@pytest.mark.parametrize(
    ("spoil", "state"),
    [
        ({"cut_events": 40}, "cut"),
        ({"cut_events": 40, "ending": "reset"}, "cut"),
        ({"cut_events": 40, "ending": "silence"}, "silent"),
        ({"corrupt_at": 6000}, "malformed"),
    ],
)
def test_a_connection_that_breaks_in_between(server, spoil, state):
    # four answers have more than forty events: within sixteen each of the four connections breaks
    with StreamProxy(server.url, **spoil) as proxy:
        streams = one_slice(proxy.url, "whole")
        assert proxy.connections > 2
    assert set(count_states(streams)) == {"ok", state}, [stream.detail for stream in streams]
