"""Runs in the guest's network and nothing else of it: sends HTTP requests as told, reports what came back.

Called as `probe.py NONCE [SEED]`. Reads one JSON object a line from standard input, answers with one line
each, in turn, with the nonce in it, and ends with its input. Needs the standard library and h11 alone.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import random
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

import h11

HEAD_BYTES = 64 << 10  # of everything before the final answer's body: 1xx answers count too
HEAD_KEPT_BYTES = 16 << 10
HEADERS_KEPT = 100
BODY_BYTES = 1 << 20
BODY_KEPT_BYTES = 256 << 10
BATCH_KEPT_BYTES = 16 << 20  # of all bodies of one batch: the memory that answers can take here
AT_ONCE = 64
RECEIVE_BYTES = 16 << 10
SEND_BYTES = 64 << 10
DETAIL_CHARACTERS = 160
READY_DEADLINE_S = 2.0
FIRST_PAUSE_S, LONGEST_PAUSE_S, PAUSE_GROWTH = 0.1, 1.0, 1.5
LISTEN = "0A"  # the kernel's number for a listening socket in /proc/net/tcp

OURS = {"host", "connection", "accept-encoding", "content-length", "transfer-encoding", "expect"}
AGENTS = (
    "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/126.0.0.0 Safari/537.36",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    "Version/17.5 Safari/605.1.15",
)


class Failed(Exception):
    """An exchange ended without a complete answer."""

    def __init__(self, name: str, detail: str = "") -> None:
        super().__init__(f"{name}: {detail[:DETAIL_CHARACTERS]}" if detail else name)


class Pool:
    """How many bytes of bodies may still be kept in this batch."""

    def __init__(self) -> None:
        self.left = BATCH_KEPT_BYTES

    def take(self, wanted: int) -> int:
        """How many of the wanted bytes may be kept."""
        given = min(wanted, self.left)
        self.left -= given
        return given


class Answer:
    """What has come back so far; it is still there when the deadline ends the exchange."""

    def __init__(self, keep_bytes: int, pool: Pool) -> None:
        self.status: int | None = None
        self.headers: list[tuple[str, str]] = []
        self.body = bytearray()
        self.body_bytes = 0
        self.most_bytes = max(BODY_BYTES, keep_bytes)
        self.cut_off = False  # whether the server broke the connection off while it was still sent to
        self._keep_bytes = keep_bytes
        self._pool = pool

    def take_head(self, response: h11.Response) -> None:
        """Keep the status and the first headers. Raises Failed when two of them say how long the body is."""
        self.status = response.status_code
        room = HEAD_KEPT_BYTES
        for name, value in itertools.islice(response.headers, HEADERS_KEPT):
            room -= len(name) + len(value)
            if room < 0:
                break
            self.headers.append((name.decode("latin-1"), value.decode("latin-1")))
        if {b"content-length", b"transfer-encoding"} <= {name for name, _ in response.headers}:
            raise Failed("protocol", "Content-Length beside Transfer-Encoding")

    def take_body(self, data: bytes | bytearray) -> None:
        """Count a piece of the body and keep what there is room for."""
        self.body_bytes += len(data)
        room = min(len(data), self._keep_bytes - len(self.body))
        if room > 0:
            self.body += data[: self._pool.take(room)]
        if self.body_bytes > self.most_bytes:
            raise Failed("body too large", f"more than {self.most_bytes} bytes")


def request_head(connection: h11.Connection, call: dict[str, Any], port: int, seed: str) -> bytes:
    """The request's first bytes, as a browser sends them. Raises Failed when they cannot be sent at all."""
    order = random.Random(f"{seed}/{call['name']}")  # noqa: S311 - an order, no secret
    given = [(name, value) for name, value in call["headers"] if name.lower() not in OURS]
    headers = {
        "user-agent": ("User-Agent", random.Random(seed).choice(AGENTS)),  # noqa: S311
        "accept": ("Accept", "*/*"),
        "accept-language": ("Accept-Language", "en-US,en;q=0.5"),
        "accept-encoding": ("Accept-Encoding", "identity"),
        "sec-fetch-dest": ("Sec-Fetch-Dest", "empty"),
        "sec-fetch-mode": ("Sec-Fetch-Mode", "cors"),
        "sec-fetch-site": ("Sec-Fetch-Site", "same-origin"),
    }
    taken = {name.lower() for name, _ in given}
    lines = [line for name, line in headers.items() if name not in taken] + given
    length = sum(piece if isinstance(piece, int) else len(piece) for piece in call["body"])
    if length or call["method"] in {"POST", "PUT", "PATCH"}:
        lines.append(("Content-Length", str(length)))
    order.shuffle(lines)
    lines = [("Host", f"localhost:{port}"), *lines, ("Connection", "close")]
    try:
        encoded = [(name.encode("ascii"), value.encode()) for name, value in lines]
        request = h11.Request(method=call["method"].encode(), target=call["path"].encode(), headers=encoded)
        return connection.send(request) or b""
    except (h11.LocalProtocolError, UnicodeError) as error:
        raise Failed("protocol", f"this request cannot be sent: {error}") from None


async def send(sock: socket.socket, head: bytes, pieces: list[bytes | int], answer: Answer) -> None:
    """Send the request; a server that no longer listens may still have answered, so that is no error here."""
    loop = asyncio.get_running_loop()
    zeros = memoryview(bytes(SEND_BYTES))
    try:
        await loop.sock_sendall(sock, head)
        for piece in pieces:
            if isinstance(piece, int):
                for start in range(0, piece, SEND_BYTES):
                    await loop.sock_sendall(sock, zeros[: min(SEND_BYTES, piece - start)])
            else:
                await loop.sock_sendall(sock, piece)
    except OSError:
        answer.cut_off = True


def read_events(connection: h11.Connection, answer: Answer) -> bool:
    """Take what has arrived; whether the answer is complete. What follows it is never looked at."""
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA or event is h11.PAUSED:
            return False
        if isinstance(event, h11.Response):
            answer.take_head(event)
        elif isinstance(event, h11.Data):
            answer.take_body(event.data)
        elif isinstance(event, h11.EndOfMessage):
            return True
        elif isinstance(event, h11.ConnectionClosed):
            raise Failed("closed")


async def receive(sock: socket.socket, connection: h11.Connection, answer: Answer) -> None:
    """Read until the answer is complete. Raises Failed or OSError when it never will be."""
    loop = asyncio.get_running_loop()
    received = 0
    while True:
        data = await loop.sock_recv(sock, RECEIVE_BYTES)
        received += len(data)
        try:
            connection.receive_data(data)
            if read_events(connection, answer):
                return
        except h11.RemoteProtocolError as error:
            if not data:
                name = "reset" if answer.cut_off else "closed"
                raise Failed(name, "before the answer was complete") from None
            too_long = error.error_status_hint == 431 and answer.status is None
            raise Failed("headers too large" if too_long else "protocol", str(error)) from None
        except (
            ValueError
        ) as error:  # numbers beyond what Python reads, where h11 does not look at their length
            raise Failed("protocol", str(error)) from None
        if not data:
            raise Failed("closed")
        if answer.status is None and received > HEAD_BYTES:
            raise Failed("headers too large", f"more than {HEAD_BYTES} bytes")
        if received > HEAD_BYTES + answer.most_bytes:  # the framing of chunks counts too
            raise Failed("body too large", f"more than {answer.most_bytes} bytes")


async def converse(call: dict[str, Any], port: int, seed: str, answer: Answer) -> None:
    """One request and its answer, on a connection of its own."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_BYTES)
    head = request_head(connection, call, port, seed)
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        sending = asyncio.create_task(send(sock, head, call["body"], answer))
        try:
            await receive(sock, connection, answer)
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)


async def exchange(call: dict[str, Any], port: int, seed: str, pool: Pool, batch_s: float) -> dict[str, Any]:
    """What one call gave, within its deadline whatever the server does."""
    answer = Answer(call.get("keep_bytes") or BODY_KEPT_BYTES, pool)
    failure = None
    begun_s = time.perf_counter()
    try:
        async with asyncio.timeout(call["deadline_s"]):
            await converse(call, port, seed, answer)
    except TimeoutError:
        failure = "deadline"
    except Failed as error:
        failure = str(error)
    except ConnectionRefusedError:
        failure = "refused"
    except OSError as error:
        failure = str(Failed("reset", "" if isinstance(error, ConnectionError) else str(error.strerror)))
    ended_s = time.perf_counter()
    return {
        "name": call["name"],
        "status": answer.status,
        "headers": answer.headers,
        "body": base64.b64encode(answer.body).decode(),
        "body_bytes": answer.body_bytes,
        "failure": failure,
        "started_ms": (begun_s - batch_s) * 1000,
        "elapsed_ms": (ended_s - begun_s) * 1000,
    }


async def batch(operation: dict[str, Any], seed: str) -> dict[str, Any]:
    """Every call of a batch, so many at once."""
    places = asyncio.Semaphore(min(operation.get("at_once") or AT_ONCE, AT_ONCE))
    pool = Pool()
    batch_s = time.perf_counter()

    async def one(call: dict[str, Any]) -> dict[str, Any]:
        pieces = [piece if isinstance(piece, int) else base64.b64decode(piece) for piece in call["body"]]
        await asyncio.sleep(max(0.0, batch_s + call["delay_s"] - time.perf_counter()))
        async with places:
            return await exchange({**call, "body": pieces}, operation["port"], seed, pool, batch_s)

    return {"exchanges": await asyncio.gather(*map(one, operation["calls"]))}


async def ready(operation: dict[str, Any], seed: str) -> dict[str, Any]:
    """Whether any HTTP status line comes before the budget is spent, and how long that took."""
    call = {"name": "ready", "method": "GET", "path": operation["path"], "headers": [], "body": []}
    call["deadline_s"] = READY_DEADLINE_S
    begun_s = time.perf_counter()
    pause_s = FIRST_PAUSE_S
    while True:
        seen = await exchange({**call, "keep_bytes": 1}, operation["port"], seed, Pool(), begun_s)
        spent_s = time.perf_counter() - begun_s
        left_s = operation["budget_s"] - spent_s
        if seen["status"] is not None or left_s <= 0:
            return {"ready": seen["status"] is not None, "seconds": spent_s}
        await asyncio.sleep(min(pause_s, left_s))
        pause_s = min(LONGEST_PAUSE_S, pause_s * PAUSE_GROWTH)


async def listeners(_operation: dict[str, Any], _seed: str) -> dict[str, Any]:
    """The TCP ports that something listens on in this network namespace."""
    ports = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        if Path(table).exists():
            for line in Path(table).read_text(encoding="ascii").splitlines()[1:]:
                _, local, _, state, *_ = line.split()
                if state == LISTEN:
                    ports.add(int(local.rpartition(":")[2], 16))
    return {"ports": sorted(ports)}


OPERATIONS = {"batch": batch, "ready": ready, "listeners": listeners}


async def answer_line(line: bytes, seed: str) -> dict[str, Any]:
    """The reply to one line; our own errors are part of it, never an end of the program."""
    number = None
    try:
        operation = json.loads(line)
        number = operation["id"]
        return {"id": number, **await OPERATIONS[operation["op"]](operation, seed)}
    except Exception as error:
        return {"id": number, "error": f"{type(error).__name__}: {error}"[:DETAIL_CHARACTERS]}


async def main(nonce: str, seed: str) -> None:
    """Answer lines in turn until the input ends."""
    loop = asyncio.get_running_loop()
    lines: asyncio.Queue[bytes] = asyncio.Queue()

    def listen() -> None:
        for line in sys.stdin.buffer:
            loop.call_soon_threadsafe(lines.put_nowait, line)
        os._exit(0)  # whoever asked is gone: nothing under way matters any more

    threading.Thread(target=listen, daemon=True).start()
    while True:
        reply = await answer_line(await lines.get(), seed)
        sys.stdout.buffer.write(json.dumps({"nonce": nonce, **reply}).encode() + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "0"))
