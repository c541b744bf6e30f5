"""From a server's streamed events to what one answer was: chunks with their times, counts, how it ended."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

from pytest_qwen.engines.http_exchange import Exchange
from pytest_qwen.engines.sse import EventParser, NotEvents
from pytest_qwen.streams import State, Stream

_SHOWN = 300  # characters of a server's own words in ours


class AnswerReader:
    """Takes the pieces of one answer's body; chat and text completions alike.

    A chunk is an event with text in it, with reasoning or with a part of a tool call; an event without any
    (the first one often only names the role) is none. `fresh` holds the texts since it was last emptied.
    """

    __slots__ = (
        "_events",
        "_read",
        "cached_tokens",
        "chunk_ns",
        "done",
        "error",
        "finish_reason",
        "malformed",
        "output_tokens",
        "prompt_tokens",
        "texts",
    )

    def __init__(self) -> None:
        self._events = EventParser()
        self._read = 0
        self.chunk_ns: list[int] = []
        self.texts: list[str] = []
        self.finish_reason = ""
        self.done = False
        self.error = ""
        self.malformed = ""
        self.prompt_tokens: int | None = None
        self.output_tokens: int | None = None
        self.cached_tokens: int | None = None

    @property
    def text(self) -> str:
        """All that was said."""
        return "".join(self.texts)

    def take(self, exchange: Exchange, most: int | None = None) -> bool:
        """Read on in the body, `most` pieces at most; True when all that has come was read."""
        body = exchange.framer.body
        stop = len(body) if most is None else min(len(body), self._read + most)
        for ns, piece in body[self._read : stop]:
            self._piece(ns, piece)
        self._read = stop
        return stop == len(body)

    def finish(self, ns: int) -> None:
        """The body has ended: an event whose empty line never came still counts if it is whole."""
        if self.malformed:
            return
        try:
            rest = self._events.finish()
            for name, data in rest:
                if data == b"[DONE]" or _whole(data):
                    self._event(ns, name, data)
        except NotEvents as error:
            self.malformed = str(error)

    def _piece(self, ns: int, piece: bytes) -> None:
        if self.malformed:
            return
        try:
            for name, data in self._events.feed(piece):
                self._event(ns, name, data)
        except NotEvents as error:
            self.malformed = str(error)

    def _event(self, ns: int, name: bytes, data: bytes) -> None:
        if data == b"[DONE]":
            self.done = True
            return
        try:
            chunk = json.loads(data.decode())
        except ValueError:  # of UnicodeDecodeError too
            chunk = None
        if not isinstance(chunk, dict):
            raise NotEvents(f"an event is no JSON object: {data[:60]!r}")
        if name == b"error" or chunk.get("error"):
            self.error = self.error or error_text(chunk)
        if (usage := chunk.get("usage")) or (usage := chunk.get("timings")):
            self._count(usage)
        for choice in _objects(chunk.get("choices")):
            self._choice(ns, choice)

    def _choice(self, ns: int, choice: Mapping[str, Any]) -> None:
        text = _said(choice)
        if text:
            self.chunk_ns.append(ns)
            self.texts.append(text)
        self.finish_reason = _text(choice.get("finish_reason")) or self.finish_reason

    def _count(self, usage: Any) -> None:
        """The server's own counts: `usage` of the protocol, or llama.cpp's `timings`; the last one holds."""
        if not isinstance(usage, Mapping):
            return
        details = usage.get("prompt_tokens_details")
        cached = details.get("cached_tokens") if isinstance(details, Mapping) else usage.get("cache_n")
        prompt = usage.get("prompt_tokens")
        if prompt is None and _count(usage.get("prompt_n")) is not None:
            prompt = usage["prompt_n"] + (_count(cached) or 0)  # llama.cpp counts what it had to read
        output = usage.get("completion_tokens", usage.get("predicted_n"))
        self.prompt_tokens = _known(prompt, self.prompt_tokens)
        self.output_tokens = _known(output, self.output_tokens)
        self.cached_tokens = _known(cached, self.cached_tokens)


def stream_of(
    exchange: Exchange,
    reader: AnswerReader,
    *,
    start_ns: int,
    asked_tokens: int | None = None,
    turn: int = 0,
    hide: Callable[[str], str] = str,
) -> Stream:
    """What one ended request was; `start_ns` is when its load began, by the same clock.

    `hide` takes out of the server's words what must not be shown.
    """
    reader.take(exchange)
    reader.finish(exchange.end_ns)
    state, detail = _state(exchange, reader)
    origin = exchange.due_ns if exchange.due_ns is not None else exchange.sent_ns
    chunks = tuple((ns - origin) / 1e6 for ns in reader.chunk_ns)
    return Stream(
        scheduled_ms=(origin - start_ns) / 1e6,
        sent_ms=(exchange.sent_ns - start_ns) / 1e6,
        state=state,
        ttft_ms=chunks[0] if chunks else None,
        last_ms=chunks[-1] if chunks else None,
        e2e_ms=(exchange.end_ns - origin) / 1e6 if exchange.framer.complete else None,
        chunk_ms=chunks,
        prompt_tokens=reader.prompt_tokens,
        output_tokens=reader.output_tokens,
        cached_tokens=reader.cached_tokens,
        asked_tokens=asked_tokens,
        finish_reason=reader.finish_reason,
        digest=hashlib.sha256(reader.text.encode("utf-8", "replace")).hexdigest()[:16],
        detail=hide(detail),
        turn=turn,
    )


def _state(exchange: Exchange, reader: AnswerReader) -> tuple[State, str]:
    """How a request ended, and in words what was wrong."""
    status, kind = exchange.framer.status, exchange.framer.headers.get("content-type", "")
    if status and status != 200:
        return "http-error", status_text(exchange)
    if exchange.failure is not None:
        return exchange.failure
    if "text/event-stream" not in kind.lower():
        return _no_stream(exchange, kind)
    return _of_events(reader)


def _of_events(reader: AnswerReader) -> tuple[State, str]:
    """How a stream ended that was delivered whole."""
    if reader.error:
        return "http-error", f"an error in the stream: {reader.error}"
    if reader.malformed:
        return "malformed", f"the stream is not what the protocol says: {reader.malformed}"
    if not (reader.finish_reason or reader.done):
        return (
            "cut",
            f"the answer ended without a finish reason or [DONE], after {len(reader.chunk_ns)} chunks",
        )
    if reader.output_tokens is None:
        return "no-usage", "the server did not say how many tokens it sent"
    return "ok", ""


def _no_stream(exchange: Exchange, kind: str) -> tuple[State, str]:
    """A 200 that is no stream: an error as plain JSON, a web page, something else."""
    try:
        told = json.loads(exchange.body)
    except ValueError:
        told = None
    if isinstance(told, dict) and told.get("error"):
        return "http-error", f"an error with status 200: {error_text(told)}"
    what = "a web page" if "html" in kind.lower() else kind or "something without a content type"
    return "malformed", f"it answered with {what}, not with a stream of events"


def status_text(exchange: Exchange) -> str:
    """A status other than 200 in words, with the server's own."""
    framer = exchange.framer
    parts = [f"HTTP {framer.status}"]
    if 300 <= framer.status < 400:
        parts.append(f"redirects to {framer.headers.get('location', 'nowhere')}, which is not followed")
    elif words := _own_words(exchange):
        parts.append(words)
    if "retry-after" in framer.headers:
        parts.append(f"retry after {framer.headers['retry-after'][:20]}")
    return ": ".join(parts[:2]) + "".join(f" ({more})" for more in parts[2:])


def _own_words(exchange: Exchange) -> str:
    body = exchange.body
    try:
        told = json.loads(body)
    except ValueError:
        page = "html" in exchange.framer.headers.get("content-type", "").lower()
        return "with a web page" if page else _shortened(body[: 4 * _SHOWN].decode("utf-8", "replace"))
    return error_text(told) if isinstance(told, dict) else _shortened(str(told))


def error_text(told: Mapping[str, Any]) -> str:
    """The words of an error object, in any of the forms that servers give it."""
    for name in ("error", "message", "detail", "msg"):
        inner = told.get(name)
        if isinstance(inner, Mapping):
            return error_text(inner)
        if inner:
            return _shortened(inner if isinstance(inner, str) else json.dumps(inner))
    return _shortened(json.dumps(dict(told)))


def _shortened(text: str) -> str:
    plain = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return plain if len(plain) <= _SHOWN else plain[:_SHOWN] + "…"


def _said(choice: Mapping[str, Any]) -> str:
    """The text of one choice: content, reasoning and tool calls, whatever of them is there."""
    text = _text(choice.get("text"))
    delta = choice.get("delta")
    if not isinstance(delta, Mapping):
        return text
    text += _text(delta.get("reasoning_content") or delta.get("reasoning")) + _text(delta.get("content"))
    for call in _objects(delta.get("tool_calls")):
        function = call.get("function")
        if isinstance(function, Mapping):
            text += _text(function.get("name")) + _text(function.get("arguments"))
    return text


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _objects(value: Any) -> list[Mapping[str, Any]]:
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _known(value: Any, before: int | None) -> int | None:
    found = _count(value)
    return before if found is None else found


def _whole(data: bytes) -> bool:
    try:
        json.loads(data)
    except ValueError:
        return False
    return True
