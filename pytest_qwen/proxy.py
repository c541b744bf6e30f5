"""A TCP proxy before a real server that spoils what comes back from it: late, slow, cut, corrupt."""

from __future__ import annotations

import asyncio
import re
import socket
import struct
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, cast
from urllib.parse import urlsplit, urlunsplit

from pytest_qwen.errors import Misuse, Unavailable, explain

_PIECE = 65_536
_START = b"\ndata:"
_EVENT = re.compile(_START)
_START_S = 10.0
Ending = Literal["close", "reset", "silence"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spoil:
    """What happens to the bytes of one connection that come back from the server.

    `delay_s` holds every byte back that long. `bytes_per_s` is the most that passes. After `cut_bytes` bytes,
    or in place of the first event after `cut_events` (a line that starts with "data:"), the connection
    ends as `ending` says: closed, reset, or open and silent. The byte at `corrupt_at`, from 0, is inverted.
    The first `spared` connections are left alone.
    """

    delay_s: float = 0.0
    bytes_per_s: float | None = None
    cut_bytes: int | None = None
    cut_events: int | None = None
    ending: Ending = "close"
    corrupt_at: int | None = None
    spared: int = 0

    def __post_init__(self) -> None:
        """Raise Misuse for what cannot be done."""
        if self.cut_bytes is not None and self.cut_events is not None:
            raise Misuse("a connection is cut once: give cut_bytes or cut_events, not both")
        for name in ("delay_s", "bytes_per_s", "cut_bytes", "cut_events", "corrupt_at", "spared"):
            value = getattr(self, name)
            if value is not None and (value < 0 or (name == "bytes_per_s" and value == 0)):
                raise Misuse(
                    explain(f"a proxy cannot have {name}={value!r}", next_step="give a number above 0")
                )
        if self.ending not in ("close", "reset", "silence"):
            raise Misuse(explain(f"no ending {self.ending!r}", choices=("close", "reset", "silence")))


class StreamProxy:
    """A proxy while a `with` block lasts: `with StreamProxy(server.url, cut_events=5) as proxy: proxy.url`.

    Keywords are the fields of `Spoil`. It runs in a thread and counts `connections`. Only for http:// URLs:
    what is encrypted can be cut but not counted in events. Raises Misuse for another URL, Unavailable when
    it cannot listen.
    """

    def __init__(
        self,
        url: str,
        *,
        delay_s: float = 0.0,
        bytes_per_s: float | None = None,
        cut_bytes: int | None = None,
        cut_events: int | None = None,
        ending: Ending = "close",
        corrupt_at: int | None = None,
        spared: int = 0,
    ) -> None:
        """Listen on a free port of this machine."""
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise Misuse(explain("a proxy stands before an http:// address", found=url))
        self._server = (parts.hostname, parts.port or 80)
        self._spoil = Spoil(
            delay_s=delay_s,
            bytes_per_s=bytes_per_s,
            cut_bytes=cut_bytes,
            cut_events=cut_events,
            ending=ending,
            corrupt_at=corrupt_at,
            spared=spared,
        )
        self.connections = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._closing = asyncio.Event()
        self._listening = threading.Event()
        self._port = 0
        self._thread = threading.Thread(target=self._serve, name="stream-proxy", daemon=True)
        self._thread.start()
        if not self._listening.wait(_START_S) or not self._port:
            raise Unavailable("the proxy cannot listen on this machine's loopback address")
        self.url = urlunsplit(parts._replace(netloc=f"127.0.0.1:{self._port}"))

    def close(self) -> None:
        """End every connection and stop listening; safe to call twice."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._closing.set)
            self._thread.join()

    def __enter__(self) -> StreamProxy:
        """The listening proxy."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it."""
        self.close()

    def _serve(self) -> None:
        try:
            self._loop.run_until_complete(self._until_closed())
        finally:
            self._listening.set()
            self._loop.close()

    async def _until_closed(self) -> None:
        listening = await asyncio.start_server(self._accept, "127.0.0.1", 0, backlog=1024)
        self._port = listening.sockets[0].getsockname()[1]
        self._listening.set()
        await self._closing.wait()
        listening.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client; a task of ours, so that closing can end it."""
        task = cast("asyncio.Task[None]", asyncio.current_task())
        self._tasks.add(task)
        number, self.connections = self.connections, self.connections + 1
        spoil = self._spoil if number >= self._spoil.spared else Spoil()
        try:
            await _relay(self._server, reader, writer, spoil)
        except (OSError, asyncio.CancelledError):
            pass  # either side left, or we close: both sides see it
        finally:
            writer.close()
            await asyncio.gather(writer.wait_closed(), return_exceptions=True)
            self._tasks.discard(task)


async def _relay(
    server: tuple[str, int], reader: asyncio.StreamReader, writer: asyncio.StreamWriter, spoil: Spoil
) -> None:
    """Pass bytes both ways until one side ends; what comes from the server is spoiled."""
    back, forth = await asyncio.open_connection(*server)
    sending = asyncio.ensure_future(_copy(reader, forth))
    try:
        whole = await _spoiled(back, writer, spoil)
        if not whole and spoil.ending == "silence":
            await sending  # until the client gives up
        elif not whole and spoil.ending == "reset":
            raw: socket.socket = writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
    finally:
        forth.close()
        sending.cancel()
        await asyncio.gather(sending, forth.wait_closed(), return_exceptions=True)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_PIECE):
        writer.write(data)
        await writer.drain()


async def _spoiled(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, spoil: Spoil) -> bool:
    """Pass the server's bytes on; False when they were cut before their end.

    Reading goes on while earlier bytes wait, so that a delay is the same for each and does not add up.
    """
    loop, cutter = asyncio.get_running_loop(), _Cutter(spoil)
    pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def read() -> None:
        while data := await reader.read(_PIECE):
            pieces.put_nowait((loop.time() + spoil.delay_s, data))
        pieces.put_nowait((loop.time() + spoil.delay_s, b""))

    reading = asyncio.ensure_future(read())
    try:
        while not cutter.done:
            due, data = await pieces.get()
            await asyncio.sleep(due - loop.time())
            if not data:
                return True
            passed = cutter.passed_of(data)
            writer.write(passed)
            await writer.drain()
            if spoil.bytes_per_s:
                await asyncio.sleep(len(passed) / spoil.bytes_per_s)
        return False
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


class _Cutter:
    """Takes a connection's bytes one piece after the other, and says what of each may pass."""

    def __init__(self, spoil: Spoil) -> None:
        self._spoil = spoil
        self._passed = self._events = 0
        self._tail = b""
        self.done = False

    def passed_of(self, data: bytes) -> bytes:
        """What of the next piece passes; `done` when nothing will after it."""
        spoil = self._spoil
        keep = len(data)
        if spoil.cut_bytes is not None:
            keep = min(keep, spoil.cut_bytes - self._passed)
            self.done = self._passed + keep >= spoil.cut_bytes
        elif spoil.cut_events is not None:
            keep = self._before_event(data, spoil.cut_events)
        passed = bytearray(data[:keep])
        at = -1 if spoil.corrupt_at is None else spoil.corrupt_at - self._passed
        if 0 <= at < len(passed):
            passed[at] ^= 0xFF
        self._passed += keep
        return bytes(passed)

    def _before_event(self, data: bytes, most: int) -> int:
        """How many bytes of the piece lie before the event after the last that may pass."""
        seen, before = self._tail + data, len(self._tail)
        for found in _EVENT.finditer(seen):
            self._events += 1
            if self._events > most:
                self.done = True
                # the start of the event's line may have passed with the piece before
                return max(found.start() + 1 - before, 0)
        self._tail = seen[-(len(_START) - 1) :]
        return len(data)
