"""Requests that are sent at once and all awaited, and what they did, seen as one."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from statistics import median
from typing import Literal, cast

from pytest_qwen.engines.answers import AnswerReader, stream_of
from pytest_qwen.engines.asking import Asked
from pytest_qwen.engines.base import Trace
from pytest_qwen.engines.http_exchange import Exchange
from pytest_qwen.engines.http_stream import HttpClient
from pytest_qwen.streams import Stream


async def together(
    client: HttpClient, rows: Sequence[Asked], on_token: Callable[[str], None] | None
) -> list[tuple[Exchange, Stream, str]]:
    """Send all requests at once; every answer as it was, in order."""
    loop = asyncio.get_running_loop()
    readers = [AnswerReader() for _ in rows]
    ends: list[asyncio.Future[Exchange]] = [loop.create_future() for _ in rows]
    exchanges = []
    lives = []

    def ended(exchange: Exchange) -> None:
        end = ends[cast(int, exchange.tag)]
        if not end.done():  # cancelled
            end.set_result(exchange)

    for row, asked in enumerate(rows):
        live = None if on_token is None or row else _Live(readers[row], on_token)
        lives += [live] if live is not None else []
        exchange = Exchange(
            client.request("POST", asked.path, asked.body),
            ended,
            on_data=live,
            tag=row,
        )
        exchanges.append(exchange)
    for exchange in exchanges:
        client.begin(exchange)
    await asyncio.gather(*ends)
    for live in lives:
        if live.error is not None:
            raise live.error
    start_ns = exchanges[0].sent_ns
    found = []
    for exchange, asked, reader in zip(exchanges, rows, readers, strict=True):
        stream = stream_of(exchange, reader, start_ns=start_ns, asked_tokens=asked.tokens)
        found.append((exchange, stream, reader.text))
    return found


class _Live:
    """Passes new pieces of text on as they come."""

    def __init__(self, reader: AnswerReader, on_token: Callable[[str], None]) -> None:
        self._reader, self._on_token, self._told = reader, on_token, 0
        self.error: Exception | None = None

    def __call__(self, exchange: Exchange) -> None:
        self._reader.take(exchange)
        fresh = self._reader.texts[self._told :]
        self._told += len(fresh)
        try:
            for text in fresh if self.error is None else ():
                self._on_token(text)
        except Exception as error:  # of whoever listens: the answer is to be read to its end
            self.error = error


def trace_of(streams: Sequence[Stream], texts: Sequence[str]) -> Trace:
    """What the requests did, seen as one."""
    complete = [stream for stream in streams if stream.complete]
    reasons = [stream.finish_reason for stream in complete]
    finish: Literal["stop", "length"] = (
        "length" if reasons and reasons.count("length") * 2 > len(reasons) else "stop"
    )
    digests = "".join(stream.digest for stream in streams)
    return Trace(
        prompt_tokens=_median([s.prompt_tokens for s in complete if s.prompt_tokens is not None]),
        output_tokens=_median([s.output_tokens for s in complete if s.output_tokens is not None]),
        batch_size=len(streams),
        token_ns=(),
        texts=tuple(texts),
        finish_reason=finish,
        tokens_digest=hashlib.sha256(digests.encode()).hexdigest()[:16],
        clock="host",
        streams=tuple(streams),
    )


def _median(values: Sequence[int]) -> int:
    return round(median(values)) if values else 0
