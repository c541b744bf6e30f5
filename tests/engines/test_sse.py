"""Server-sent events: the same in any cut and with any line ending, and strict."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_qwen.engines.sse import LINE_LIMIT, EventParser, NotEvents

EVENTS = [(b"", b'{"a": 1}'), (b"error", b"first\nsecond"), (b"", b"[DONE]")]
TEXT = b': ping\n\nid: 7\nretry: 10\ndata: {"a": 1}\n\nevent: error\ndata:first\ndata: second\n\ndata: [DONE]\n\n'


def fed(*pieces: bytes) -> list[tuple[bytes, bytes]]:
    parser = EventParser()
    return [event for piece in pieces for event in parser.feed(piece)]


@given(st.sampled_from([b"\n", b"\r\n", b"\r"]), st.lists(st.integers(0, 200), max_size=20))
def test_events_are_the_same_in_any_cut(ending: bytes, cuts: list[int]) -> None:
    text = TEXT.replace(b"\n", ending) + b": end"  # a CR at the very end could still get its LF
    at = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    assert fed(*(text[a:b] for a, b in itertools.pairwise(at))) == EVENTS


def test_one_whole_event_a_piece_is_the_quick_way_and_the_same() -> None:
    assert fed(b"data: a\n\n", b"data: b\n\n", b"event: x\n", b"data: c\n\n") == [
        (b"", b"a"),
        (b"", b"b"),
        (b"x", b"c"),
    ]


def test_a_byte_order_mark_is_no_field() -> None:
    assert fed(b"\xef\xbb\xbfdata: a\n\n") == [(b"", b"a")]


def test_an_event_without_its_empty_line_is_there_at_the_end() -> None:
    parser = EventParser()
    assert parser.feed(b"data: [DONE]\n") == []
    assert parser.finish() == [(b"", b"[DONE]")]
    assert parser.finish() == []


@pytest.mark.parametrize("line", [b"<html>", b'{"error": 1}', b"HTTP/1.1 200 OK", b"Data: x"])
def test_a_line_that_is_no_field_is_an_error(line: bytes) -> None:
    with pytest.raises(NotEvents):
        fed(line + b"\n")


def test_a_line_without_end_is_an_error() -> None:
    with pytest.raises(NotEvents, match="longer than"):
        fed(b"data: ", b"x" * LINE_LIMIT)
