"""Requests that are sent at once and all awaited."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import cast

from pytest_qwen.engines.answers import AnswerReader, stream_of
from pytest_qwen.engines.asking import Asked
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
