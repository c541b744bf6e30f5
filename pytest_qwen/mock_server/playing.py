"""One answer of the mock server as its script has it, and what really happened and when."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from pytest_qwen.mock_server import answers
from pytest_qwen.mock_server.script import MIDWAY, ServerScript, struck

if TYPE_CHECKING:
    from pytest_qwen.mock_server.serving import Connection, Server

_PAGE = b"<!doctype html><title>Welcome</title><h1>It works!</h1>"


class Answer:
    """A request for an answer, from its arrival to its end."""

    def __init__(
        self,
        *,
        connection: Connection,
        server: Server,
        script: ServerScript,
        body: Mapping[str, Any],
        chat: bool,
        number: int,
        of_model: int,
        received_ns: int,
    ) -> None:
        """Read the request. Raises ValueError in words for what this server cannot do."""
        self._connection, self._server, self.script = connection, server, script
        self._number, self._received_ns = number, received_ns
        self._ids = answers.prompt_ids(body, chat=chat)
        self._words, self._reason = _content(script, body, self._ids, chat=chat)
        self._shape = answers.Shape(number=number, model=str(body["model"]), chat=chat)
        self._stream = body.get("stream") is True
        asked = (body.get("stream_options") or {}).get("include_usage") is True
        self._counts = script.usage in ("always", "each") or (
            script.usage == "asked" and (asked or not self._stream)
        )
        self._fault = script.fault if struck(of_model, script.fault_share, script.spared) else ""
        at = len(self._words) // 2 if script.fault_at is None else script.fault_at
        self._fault_at = at if self._fault in MIDWAY else None
        stalls = script.stall_at is not None and struck(of_model, script.stall_share, script.spared)
        self._stall_at = script.stall_at if stalls else None
        self._random = random.Random(f"{script.seed} {number}") if script.jitter else None  # noqa: S311 - noise
        self._cached: int | None = None
        self._due_ns = 0
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._state = ""
        self.sent_tokens = 0
        self._chunks: list[tuple[int, int, int]] = []  # when due, when sent, how many tokens
        self._empty_ns: int | None = None
        self._status = 200
        self._blocked = 0

    def start(self) -> None:
        """Refuse the request, or have it queued."""
        if self._fault == "status":
            wait = self.script.retry_after_s
            self._status = self.script.status
            kind = "RateLimitError" if self._status == 429 else "InternalServerError"
            self._connection.send(
                answers.error_body("this request is meant to fail", kind, self._status),
                status=self._status,
                extra=(f"Retry-After: {wait:g}",) if wait is not None else (),
            )
            self.end("refused")
            self._connection.done()
        elif self._fault == "html":
            self._connection.send(_PAGE, kind="text/html; charset=utf-8")
            self.end("html")
            self._connection.done()
        else:
            self._server.admit(self)

    def begin(self, begun_ns: int | None = None) -> None:
        """A place is free, since the request's arrival if not told otherwise; the answer's clock starts."""
        begun = self._received_ns if begun_ns is None else begun_ns
        if self.script.prefix_cache:
            self._cached = self._server.cache.cached(self._ids)
        prefill = self.script.prefill_ms * (len(self._ids) - (self._cached or 0))
        first = self._spread(self.script.ttft_ms + prefill) + self._stalled(0, self._size(0))
        self._due_ns = begun + first
        if not self._stream:
            rest = sum(self._gap_ns(at) for at in self._starts()[1:])
            self._due_ns += rest
            return self._at(self._due_ns, self._send_whole)
        kind = "application/json" if self._fault == "content-type" else answers.STREAM_TYPE
        self._write(answers.head_of(200, "OK", kind, length=None, extra=("Cache-Control: no-cache",)))
        empty = self.script.empty_first_ms
        if empty is not None and (when := begun + round(empty * 1e6)) < self._due_ns:
            self._at(when, self._send_empty)
        return self._at(self._due_ns, self._send_chunk)

    def end(self, state: str) -> None:
        """Nothing more is sent; log it once."""
        if self._state:
            return
        self._state = state
        for timer in self._timers.values():
            timer.cancel()
        self._server.ended(self)

    def logged(self) -> dict[str, Any]:
        """What happened, as plain data; times by the monotonic clock that all processes share."""
        return {
            "number": self._number,
            "model": self._shape.model,
            "stream": self._stream,
            "status": self._status,
            "ended": self._state,
            "received_ns": self._received_ns,
            "ended_ns": time.monotonic_ns(),
            "empty_ns": self._empty_ns,
            "due_ns": [due for due, _, _ in self._chunks],
            "chunk_ns": [sent for _, sent, _ in self._chunks],
            "chunk_tokens": [tokens for _, _, tokens in self._chunks],
            "prompt_tokens": len(self._ids),
            "cached_tokens": self._cached,
            "output_tokens": self.sent_tokens,
            "finish_reason": self._reason if self._state == "complete" else "",
            "blocked": self._blocked,
            "digest": answers.digest_of("".join(self._words[: self.sent_tokens])),
        }

    def _starts(self) -> range:
        return range(0, len(self._words), self.script.tokens_per_chunk)

    def _size(self, at: int) -> int:
        return min(self.script.tokens_per_chunk, len(self._words) - at)

    def _at(self, when_ns: int, call: Callable[[], None]) -> None:
        timer = asyncio.get_running_loop().call_at(when_ns / 1e9, self._server.soon, partial(self._do, call))
        self._timers[call.__name__] = timer

    def _do(self, call: Callable[[], None]) -> None:
        if not self._state:  # the client may have left since it was due
            call()

    def _spread(self, milliseconds: float) -> int:
        share = self.script.jitter
        factor = 1 + self._random.uniform(-share, share) if self._random else 1.0
        return round(milliseconds * factor * 1e6)

    def _stalled(self, at: int, size: int) -> int:
        inside = self._stall_at is not None and at <= self._stall_at < at + size
        return round(self.script.stall_s * 1e9) if inside else 0

    def _gap_ns(self, at: int) -> int:
        """From the chunk before to the one that starts with token `at`."""
        size = self._size(at)
        crowd = 1 + self.script.slowdown * (len(self._server.running) - 1)
        return self._spread(self.script.gap_ms * size * crowd) + self._stalled(at, size)

    def _usage(self, output: int) -> dict[str, Any]:
        return answers.usage_block(len(self._ids), output, self._cached)

    def _write(self, data: bytes) -> None:
        transport = self._connection.transport
        transport.write(data)
        self._blocked += transport.get_write_buffer_size() > 0

    def _send_empty(self) -> None:
        self._empty_ns = time.monotonic_ns()
        self._write(answers.http_chunk(self._shape.empty()))

    def _send_chunk(self) -> None:
        """The next tokens; the last ones take the finish reason, the counts and the end along."""
        at = self.sent_tokens
        size = self._size(at)
        if self._fault_at is not None and at <= self._fault_at < at + size:
            return self._break()
        text = "".join(self._words[at : at + size])
        each = self._usage(at + size) if self.script.usage == "each" else None
        data = answers.http_chunk(self._shape.text(text, each))
        self.sent_tokens = at + size
        last = self.sent_tokens >= len(self._words)
        if last:
            data += self._closing()
        self._chunks.append((self._due_ns, time.monotonic_ns(), size))
        self._write(data)
        if last:
            self.end("complete" if self._fault != "no-finish" else "no-finish")
            return self._connection.done()
        self._due_ns += self._gap_ns(self.sent_tokens)
        return self._at(self._due_ns, self._send_chunk)

    def _closing(self) -> bytes:
        """What follows the last token."""
        if self._fault == "no-finish":
            return answers.http_chunk(b"")
        events = [self._shape.finish(self._reason)]
        if self._counts and self.script.usage != "each":
            events.append(self._shape.usage(self._usage(self.sent_tokens)))
        events.append(answers.DONE)
        return b"".join(map(answers.http_chunk, events)) + answers.http_chunk(b"")

    def _send_whole(self) -> None:
        """An answer that is not streamed; one that breaks does so half way through its bytes."""
        self.sent_tokens = len(self._words)
        usage = self._usage(self.sent_tokens) if self._counts else None
        reason = "" if self._fault == "no-finish" else self._reason
        body = self._shape.whole("".join(self._words), reason, usage)
        head = answers.head_of(200, "OK", "application/json", length=len(body))
        if self._fault_at is not None:
            self.sent_tokens = 0
            self._write(head + body[: len(body) // 2])
            return self._break()
        self._chunks.append((self._due_ns, time.monotonic_ns(), self.sent_tokens))
        self._write(head + body)
        self.end("complete")
        return self._connection.done()

    def _break(self) -> None:
        """Do the damage that the script asks for."""
        if self._fault == "silence":
            return None  # the client has to give up; then it is logged
        if self._stream and self._fault in ("end", "malformed", "error-event"):
            event = {
                "end": b"",
                "malformed": answers.http_chunk(b'data: {"id": "mock", "choi\n\n'),
                "error-event": answers.http_chunk(
                    b"data: "
                    + answers.error_body("this answer is meant to fail", "InternalServerError", 500)
                    + b"\n\n"
                ),
            }[self._fault]
            self._write(event + answers.http_chunk(b""))
            self.end(self._fault)
            return self._connection.done()
        self.end(self._fault)
        if self._fault == "reset":
            return self._connection.reset()
        return self._connection.done(keep=False)


def _content(
    script: ServerScript, body: Mapping[str, Any], ids: list[int], *, chat: bool
) -> tuple[list[str], str]:
    """The answer's tokens, and why it ends."""
    if body.get("n", 1) != 1:
        raise ValueError("this server gives one answer a request: n must be 1")
    most = _most_tokens(script, body, len(ids), chat=chat)
    natural = script.answer_tokens or (len(answers.words_of(script.text)) or None)
    if not script.plain:  # what vLLM adds to OpenAI's API
        natural = None if body.get("ignore_eos") is True else natural
        natural = max(natural, int(body.get("min_tokens") or 0)) if natural else None
    count = min(most, natural) if natural else most
    words = answers.answer_words(ids, count, script.text)
    stop = body.get("stop") or ()
    cut = answers.cut_at_stop(words, [stop] if isinstance(stop, str) else stop)
    if cut is not None:
        return cut or [" "], "stop"
    return words, "length" if count == most else "stop"


def _most_tokens(script: ServerScript, body: Mapping[str, Any], prompt: int, *, chat: bool) -> int:
    asked = body.get("max_completion_tokens") or body.get("max_tokens")
    if asked is not None and (type(asked) is not int or asked < 1):
        raise ValueError("max_tokens must be a whole number from 1")
    room = script.max_model_len - prompt
    if room < (asked or 1):
        raise ValueError(
            f"This model's maximum context length is {script.max_model_len} tokens. However, you requested "
            f"{asked or 1} output tokens and your prompt contains {prompt} input tokens."
        )
    return int(asked) if asked else min(128 if chat else 16, room)
