"""The proxy passes what it is not told to spoil, and spoils the rest where it was told."""

import http.client
from itertools import pairwise

import pytest

from pytest_qwen.errors import Misuse
from pytest_qwen.testing import MockServer, StreamProxy
from tests.serving.asking import ask, stream


@pytest.fixture(scope="module")
def server():
    with MockServer(ttft_ms=4.0, gap_ms=4.0) as running:
        yield running


def test_what_is_not_spoiled_is_the_same(server):
    with StreamProxy(server.url) as proxy:
        through = stream(proxy.url)
        assert through.words == stream(server.url).words
        assert through.done
        assert ask(proxy.url, "/models", method="GET").json["data"][0]["id"] == "mock"
        assert proxy.connections == 2


@pytest.mark.parametrize(
    ("spoil", "raised"),
    [
        ({"cut_events": 3}, http.client.IncompleteRead),
        ({"cut_bytes": 600}, http.client.IncompleteRead),
        ({"cut_events": 3, "ending": "reset"}, ConnectionResetError),
        ({"cut_events": 3, "ending": "silence"}, TimeoutError),
    ],
)
def test_a_cut_ends_the_answer_after_so_much(server, spoil, raised):
    with StreamProxy(server.url, spared=1, **spoil) as proxy:
        assert stream(proxy.url).done
        with pytest.raises(raised) as caught:
            stream(proxy.url, timeout=0.3)
        if isinstance(caught.value, http.client.IncompleteRead) and "cut_events" in spoil:
            assert caught.value.partial.count(b"data:") in (0, 3)  # http.client drops an unfinished chunk


def test_a_delay_is_the_same_for_every_byte(server):
    with StreamProxy(server.url, delay_s=0.05) as proxy:
        late = stream(proxy.url)
    served = server.log()[-1]
    assert late.ended_ns - served.chunk_ns[-1] >= 50_000_000
    # the server itself was not held up: it kept to its 4 ms between tokens
    assert [b - a for a, b in pairwise(served.due_ns)] == [4_000_000] * 5
    assert late.ended_ns - late.started_ns < 2 * 50_000_000 + 6 * 50_000_000


def test_a_throttle_lets_through_so_many_bytes_a_second(server):
    with StreamProxy(server.url, bytes_per_s=20_000) as proxy:
        slow = stream(proxy.url)
    assert (slow.ended_ns - slow.started_ns) / 1e9 >= len(slow.text) / 20_000 * 0.8
    assert slow.done


def test_one_byte_is_corrupt(server):
    whole = ask(server.url, "/models", method="GET")
    with StreamProxy(server.url, corrupt_at=0) as proxy, pytest.raises(http.client.BadStatusLine):
        ask(proxy.url, "/models", method="GET")
    with StreamProxy(server.url, corrupt_at=10**6) as proxy:
        assert ask(proxy.url, "/models", method="GET").text == whole.text


def test_a_server_that_is_not_there(server):
    with StreamProxy("http://127.0.0.1:9/v1") as proxy, pytest.raises((http.client.HTTPException, OSError)):
        stream(proxy.url)


@pytest.mark.parametrize(
    ("url", "spoil", "words"),
    [
        ("https://example.com/v1", {}, "http://"),
        ("nonsense", {}, "http://"),
        ("http://127.0.0.1:9", {"cut_bytes": 3, "cut_events": 3}, "not both"),
        ("http://127.0.0.1:9", {"bytes_per_s": 0}, "bytes_per_s=0"),
        ("http://127.0.0.1:9", {"delay_s": -1}, "delay_s=-1"),
        ("http://127.0.0.1:9", {"ending": "bang"}, "'bang'"),
    ],
)
def test_what_it_cannot_do_is_refused(url, spoil, words):
    with pytest.raises(Misuse, match=words):
        StreamProxy(url, **spoil)
