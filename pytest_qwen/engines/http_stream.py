"""A client of HTTP/1.1 that takes the time of every packet before it looks into it. Nothing is retried."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Mapping
from time import monotonic_ns
from typing import cast

from pytest_qwen.engines.addresses import Address
from pytest_qwen.engines.connection_words import how_cut, why_unreachable
from pytest_qwen.engines.http_exchange import BODY_LIMIT, Exchange
from pytest_qwen.engines.http_framing import NotHttp
from pytest_qwen.streams import State

CONNECT_S = 10.0
# Servers close idle connections after 5 s and more (uvicorn, node, cpp-httplib); one that has been idle for
# less can be used again without meeting the server's close half way.
IDLE_NS = 2_000_000_000


class _Connection(asyncio.BufferedProtocol):
    """One connection, with one request on it at a time."""

    def __init__(self, client: HttpClient) -> None:
        self._client = client
        self._transport: asyncio.Transport | None = None
        self._lazy = False
        self.exchange: Exchange | None = None
        self.idle_since_ns = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def send(self, exchange: Exchange) -> None:
        """Send a request and take what comes next as its answer."""
        self.exchange, self._lazy = exchange, False
        exchange.sent_ns = (
            exchange.sent_ns or monotonic_ns()
        )  # connecting is part of what a request waits for
        exchange.last_ns = monotonic_ns()
        cast(asyncio.Transport, self._transport).write(exchange.request)

    def get_buffer(self, _hint: int) -> memoryview:
        return self._client.buffer

    def buffer_updated(self, size: int) -> None:
        now = monotonic_ns()  # first of all: everything after it takes time of its own
        data = bytes(self._client.buffer[:size])
        exchange = self.exchange
        if exchange is None:
            self.abort()  # nobody asked
            return
        exchange.last_ns = now
        exchange.packets.append((now, data))
        exchange.size += len(data)
        # The end of a chunked answer is an empty line, so that a packet that does not end in one (and is not
        # so short that the line may be cut in two) can wait: the less is done here, the more exact are the
        # times of all other streams.
        if self._lazy and len(data) > 3 and not data.endswith(b"\r\n\r\n") and exchange.size < BODY_LIMIT:
            return
        self._read(exchange)

    def _read(self, exchange: Exchange) -> None:
        try:
            exchange.read()
            if exchange.size > BODY_LIMIT:
                raise NotHttp(f"its answer is longer than {BODY_LIMIT} bytes")
        except NotHttp as error:
            self.fail("malformed", f"that is not HTTP/1.1: {error}")
            return
        framer = exchange.framer
        self._lazy = exchange.on_data is None and framer.chunked
        if exchange.on_data is not None and framer.head:
            exchange.on_data(exchange)
        if framer.complete and self.exchange is exchange:
            self._end(exchange, exchange.last_ns)

    def _end(self, exchange: Exchange, ns: int) -> None:
        self.exchange = None
        exchange.end_ns = ns
        if exchange.framer.keep_alive and self._client.reuses:
            self.idle_since_ns = ns
            self._client.idle.append(self)
        else:
            self.abort()
        self._client.ended(exchange)

    def connection_lost(self, exc: Exception | None) -> None:
        now = monotonic_ns()
        self._client.forget(self)
        exchange = self.exchange
        if exchange is None:
            return
        try:
            exchange.read()
        except NotHttp as error:
            self.fail("malformed", f"that is not HTTP/1.1: {error}")
            return
        if exchange.framer.end() and exc is None:
            self._end(exchange, now)
        else:
            if exchange.used_before and exchange.size == 0:
                self._client.reuses = False  # it was closed behind the answer before
            self.fail("cut", how_cut(exchange.size, exc))

    def fail(self, state: State, detail: str) -> None:
        """Give the request up, and the connection with it; what came of its answer is kept."""
        exchange, self.exchange = self.exchange, None
        self.abort()
        if exchange is None:
            return
        try:
            exchange.read()
        except NotHttp as error:
            state, detail = "malformed", f"that is not HTTP/1.1: {error}"
        self._client.fail(exchange, state, detail)

    def abort(self) -> None:
        """Close at once, without a word."""
        if self._transport is not None:
            self._transport.abort()


class HttpClient:
    """Connections to one server, used again one request after the other; opened when none is free.

    All of it runs in one event loop. `key` goes into each request as a bearer token, and into nothing else.
    A request that nothing comes for within `silence_s` seconds has failed.
    """

    def __init__(self, address: Address, *, key: str = "", silence_s: float = 60.0) -> None:
        self.address = address
        self.silence_s = silence_s
        self.idle: list[_Connection] = []
        self.reuses = True
        # What came is copied from here at once. Without it each read takes 256 KiB from the system: 10 µs.
        self.buffer = memoryview(bytearray(65_536))
        self._connections: set[_Connection] = set()
        self._active: set[Exchange] = set()
        self._opening: set[asyncio.Task[None]] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._tls = ssl.create_default_context() if address.tls else None
        self._hosts: list[str] = []
        self._head = _common_headers(address, key)

    def request(self, method: str, path: str, body: bytes = b"") -> bytes:
        """The bytes of a request; `path` counts from the server's base."""
        length = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n" if body else ""
        if method == "POST" and not body:
            length = "Content-Length: 0\r\n"
        first = f"{method} {self.address.base}{path} HTTP/1.1\r\n{self._head}{length}\r\n"
        return first.encode("latin-1") + body

    def begin(self, exchange: Exchange) -> None:
        """Send a request now; its `on_end` tells what came of it."""
        self._active.add(exchange)
        if self._sweeper is None:
            self._sweep()
        connection = self._free()
        if connection is not None:
            exchange.used_before = True
            connection.send(exchange)
            return
        exchange.sent_ns = exchange.last_ns = monotonic_ns()
        task = asyncio.get_running_loop().create_task(self._open_for(exchange))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def fetch(self, method: str, path: str, body: bytes = b"") -> Exchange:
        """One request and its whole answer, failed or not; for what is asked besides the load.

        Sent again, on a connection of its own, if the server was about to close the one it went to.
        """
        exchange = await self._fetch(method, path, body)
        cut = exchange.failure is not None and exchange.failure[0] == "cut"
        stale = cut and exchange.used_before and exchange.size == 0
        return await self._fetch(method, path, body) if stale else exchange

    async def _fetch(self, method: str, path: str, body: bytes) -> Exchange:
        done: asyncio.Future[Exchange] = asyncio.get_running_loop().create_future()
        exchange = Exchange(self.request(method, path, body), lambda ended: _settle(done, ended))
        self.begin(exchange)
        return await done

    def ended(self, exchange: Exchange) -> None:
        """An answer is whole."""
        self._active.discard(exchange)
        exchange.on_end(exchange)

    def fail(self, exchange: Exchange, state: State, detail: str) -> None:
        """An answer will not come, or not all of it."""
        if exchange in self._active:
            exchange.failure = (state, detail)
            exchange.end_ns = monotonic_ns()
            self.ended(exchange)

    def close(self) -> None:
        """Drop every connection; requests under way end without a word."""
        self._active.clear()
        for task in self._opening:
            task.cancel()
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for connection in tuple(self._connections):
            connection.exchange = None
            connection.abort()
        self._connections.clear()
        self.idle.clear()

    def _free(self) -> _Connection | None:
        """A connection that is open and has not been idle for long."""
        oldest = monotonic_ns() - IDLE_NS
        while self.idle:
            connection = self.idle.pop()  # the one used last
            if connection.idle_since_ns > oldest:
                return connection
            connection.abort()
        return None

    def forget(self, connection: _Connection) -> None:
        """A connection has ended.

        A server that ends it right after an answer may do so while the next request is on its way, whatever
        its headers say (llama.cpp's after each stream): from then on each request gets a connection of its
        own.
        """
        self._connections.discard(connection)
        if connection in self.idle:
            self.idle.remove(connection)
            if monotonic_ns() - connection.idle_since_ns < IDLE_NS:
                self.reuses = False

    async def _open_for(self, exchange: Exchange) -> None:
        """Connect and send; a request that was given up meanwhile is not sent."""
        try:
            async with asyncio.timeout(CONNECT_S):
                connection = await self._connect()
        except TimeoutError:
            self.fail(exchange, "unreachable", f"no connection within {CONNECT_S:g} s")
        except (OSError, ssl.SSLError) as error:
            self.fail(exchange, "unreachable", why_unreachable(error, self.address))
        else:
            self._connections.add(connection)
            if exchange in self._active:
                connection.send(exchange)
            else:
                connection.abort()

    async def _connect(self) -> _Connection:
        """A new connection, to the first of the host's addresses that takes one."""
        loop = asyncio.get_running_loop()
        if not self._hosts:
            found = await loop.getaddrinfo(self.address.host, self.address.port, type=socket.SOCK_STREAM)
            self._hosts = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        errors: list[OSError] = []
        for host in tuple(self._hosts):
            try:
                _, connection = await loop.create_connection(
                    lambda: _Connection(self),
                    host,
                    self.address.port,
                    ssl=self._tls,
                    server_hostname=self.address.host if self._tls else None,
                )
            except OSError as error:
                errors.append(error)
            else:
                self._hosts = [host]  # the next ones need not try the others again
                return connection
        raise errors[0]

    def _sweep(self) -> None:
        """Fail what has been silent for too long; one timer for all requests."""
        oldest = monotonic_ns() - round(self.silence_s * 1e9)
        for exchange in [one for one in self._active if one.sent_ns and one.last_ns < oldest]:
            connection = next((c for c in self._connections if c.exchange is exchange), None)
            words = f"nothing came for {self.silence_s:g} s" + (
                "" if exchange.size == 0 else f", after {exchange.size} bytes of the answer"
            )
            if connection is not None:
                connection.fail("silent", words)
            else:
                self.fail(exchange, "silent", words)
        every_s = min(1.0, self.silence_s / 4)
        self._sweeper = asyncio.get_running_loop().call_later(every_s, self._sweep) if self._active else None


def _settle(done: asyncio.Future[Exchange], exchange: Exchange) -> None:
    if not done.done():
        done.set_result(exchange)


def _common_headers(address: Address, key: str) -> str:
    headers: Mapping[str, str] = {
        "Host": address.authority,
        "User-Agent": "pytest-qwen",
        "Accept": "text/event-stream, application/json",
        "Accept-Encoding": "identity",
        **({"Authorization": f"Bearer {key}"} if key else {}),
    }
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items())
