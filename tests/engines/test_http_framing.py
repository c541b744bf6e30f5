"""HTTP/1.1 answers in any cut: framing, limits, and what is no HTTP."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_qwen.engines.http_framing import HEAD_LIMIT, LINE_LIMIT, Framer, NotHttp

CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: text/plain\r\n\r\n"
    b"5;name=value\r\nhello\r\nA\r\n, wide wor\r\n2\r\nld\r\n0\r\nTrailer: x\r\n\r\n"
)


def read(*pieces: bytes) -> Framer:
    framer = Framer()
    for ns, piece in enumerate(pieces):
        framer.feed(ns, piece)
    return framer


def body(framer: Framer) -> bytes:
    return b"".join(piece for _, piece in framer.body)


@given(st.lists(st.integers(0, len(CHUNKED)), max_size=30))
def test_a_chunked_answer_reads_the_same_in_any_cut(cuts: list[int]) -> None:
    at = [0, *sorted(cuts), len(CHUNKED)]
    framer = read(*(CHUNKED[a:b] for a, b in itertools.pairwise(at)))
    assert (body(framer), framer.complete, framer.keep_alive) == (b"hello, wide world", True, True)
    assert framer.headers["content-type"] == "text/plain"


def test_a_piece_has_the_time_of_its_packet() -> None:
    head = CHUNKED[: CHUNKED.index(b"5;")]
    assert read(head, b"2\r\nab\r\n", b"2\r\ncd", b"\r\n").body == [(1, b"ab"), (2, b"cd")]


def test_a_counted_body_ends_with_its_count() -> None:
    framer = read(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab", b"c")
    assert not framer.complete
    assert not framer.end()
    framer.feed(2, b"d")
    assert (framer.complete, body(framer)) == (True, b"abcd")


def test_a_body_without_length_ends_with_the_connection() -> None:
    framer = read(b"HTTP/1.1 200 OK\r\n\r\nab", b"cd")
    assert not framer.complete
    assert framer.end()
    assert (body(framer), framer.keep_alive) == (b"abcd", False)


def test_an_interim_answer_is_passed_over() -> None:
    framer = read(b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 204 No Content\r\n\r\n")
    assert (framer.status, framer.complete) == (204, True)


@pytest.mark.parametrize(
    ("start", "keeps"),
    [
        (b"HTTP/1.1 200 OK\r\n", True),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n", False),
        (b"HTTP/1.0 200 OK\r\n", False),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n", True),
    ],
)
def test_whether_the_connection_goes_on(start: bytes, keeps: bool) -> None:
    assert read(start + b"Content-Length: 0\r\n\r\n").keep_alive is keeps


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (b"SSH-2.0-OpenSSH_9\r\n", "SSH-2.0"),
        (b"HTTP/1.1 abc\r\n\r\n", "status line"),
        (b"HTTP/2 200 OK\r\n\r\n", "HTTP/2"),
        (b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "no colon"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "content length"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab", "more than the length"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", "gzip"),
        (CHUNKED[: CHUNKED.index(b"5;")] + b"zz\r\n", "a chunk's size"),
        (CHUNKED[: CHUNKED.index(b"5;")] + b"-2\r\n", "a chunk's size"),
        (CHUNKED[: CHUNKED.index(b"5;")] + b"2\r\nabc\r\n", "longer than the size"),
        (CHUNKED + b"HTTP/1.1", "follows its last chunk"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: " + b"x" * HEAD_LIMIT, "longer than 65536 bytes"),
        (CHUNKED[: CHUNKED.index(b"5;")] + b"5;" + b"x" * LINE_LIMIT, "longer than 8192 bytes"),
    ],
)
def test_what_is_no_answer_is_named(sent: bytes, words: str) -> None:
    with pytest.raises(NotHttp, match=words):
        read(sent)
