"""The mock server itself: connections, routes, the queue and the clock that its answers keep to."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import os
import select
import selectors
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, cast

from pytest_qwen.errors import Misuse
from pytest_qwen.mock_server import answers
from pytest_qwen.mock_server.playing import Answer
from pytest_qwen.mock_server.script import ServerScript

VERSION = "0.1.0+mock"
_HEAD_LIMIT = 65_536
_REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    411: "Length Required",
    429: "Too Many Requests",
    500: "Internal Server Error",
    503: "Service Unavailable",
}
# the body fields that OpenAI's two routes have, as far as anyone here sends them; `mock` changes the script
_OPENAI = frozenset(
    {"model", "prompt", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens", "mock"}
    | {
        "stop",
        "n",
        "seed",
        "temperature",
        "top_p",
        "presence_penalty",
        "frequency_penalty",
        "logprobs",
        "user",
    }
)


class FineSelector(selectors.EpollSelector):
    """epoll that waits to the microsecond: epoll itself counts in milliseconds, and rounds up."""

    def __init__(self, *, spin: bool = False) -> None:
        """With `spin` it does not wait for time to pass but asks again and again."""
        super().__init__()
        self._spin = spin
        self.woke_ns = 0  # when it last looked: whatever it found had come by then

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """As the base class does."""
        if self._spin:
            timeout = 0
        elif timeout is not None and timeout > 0:
            select.select([self.fileno()], [], [], timeout)
            timeout = 0
        found = super().select(timeout)
        self.woke_ns = time.monotonic_ns()
        return found


class Refused(Exception):
    """A request that gets an error in place of an answer."""

    def __init__(self, status: int, message: str, kind: str = "BadRequestError") -> None:
        super().__init__(message)
        self.status, self.message, self.kind = status, message, kind


class Server:
    """What all connections share: scripts by model, the queue, the prefix cache and the log."""

    def __init__(
        self,
        models: Mapping[str, ServerScript],
        write_log: Callable[[bytes], object],
        selector: FineSelector,
    ) -> None:
        """`write_log` gets a line of JSON for each request that asked for an answer, when it has ended."""
        self.selector = selector
        self.models = dict(models)
        self.first = next(iter(self.models.values()))
        self.cache = answers.PrefixCache()
        self.write_log = write_log
        self.running: set[Answer] = set()
        self.waiting: deque[Answer] = deque()
        self.requests = dict.fromkeys(self.models, 0)
        self.tokens = 0
        self.sleeping = False
        self._calls: deque[Callable[[], None]] = deque()

    def soon(self, call: Callable[[], None]) -> None:
        """Make these calls one in each turn of the event loop.

        Reading a request or sending a chunk takes longer than a packet's way here: were many done in a row,
        requests that arrive in the meantime would be noted as later than they came.
        """
        self._calls.append(call)
        if len(self._calls) == 1:
            asyncio.get_running_loop().call_soon(self._call_one)

    def _call_one(self) -> None:
        call = self._calls.popleft()
        if self._calls:
            asyncio.get_running_loop().call_soon(self._call_one)
        call()

    def admit(self, answer: Answer, begun_ns: int | None = None) -> None:
        """Begin the answer now, or when one of those before it has ended."""
        most = answer.script.max_streams
        if most is not None and len(self.running) >= most:
            self.waiting.append(answer)
            return
        self.running.add(answer)
        answer.begin(begun_ns)

    def ended(self, answer: Answer) -> None:
        """Log the answer and begin the next that waits."""
        self.running.discard(answer)
        if answer in self.waiting:
            self.waiting.remove(answer)
        self.tokens += answer.sent_tokens
        self.write_log(json.dumps(answer.logged()).encode() + b"\n")
        if self.waiting:
            self.admit(self.waiting.popleft(), time.monotonic_ns())

    def shut_down(self) -> None:
        """Log what is being answered still."""
        for answer in [*self.running, *self.waiting]:
            answer.end("shutdown")

    def metrics(self) -> str:
        """The queue and the prefix cache in Prometheus' text format, under vLLM's names."""
        label = f'{{model_name="{next(iter(self.models))}"}}'
        rows = (
            ("num_requests_running", "gauge", len(self.running)),
            ("num_requests_waiting", "gauge", len(self.waiting)),
            ("prefix_cache_queries_total", "counter", self.cache.asked),
            ("prefix_cache_hits_total", "counter", self.cache.hit),
            ("generation_tokens_total", "counter", self.tokens),
        )
        return "".join(
            f"# TYPE vllm:{name} {kind}\nvllm:{name}{label} {value}\n" for name, kind, value in rows
        )


class Connection(asyncio.Protocol):
    """One client's connection: HTTP/1.1 with keep-alive, one request after the other."""

    transport: asyncio.Transport

    def __init__(self, server: Server) -> None:
        """Made for each client that comes."""
        self._server = server
        self._buffer = bytearray()
        self._answer: Answer | None = None
        self.received_ns = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep what writes."""
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Note when it was seen, not when it was its turn to be read: an answer is due from here."""
        self.received_ns = self._server.selector.woke_ns
        self._buffer += data
        if self._answer is None:
            self._server.soon(self._next)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """The client left; what was being answered is logged as that."""
        if self._answer is not None:
            self._answer.end("client-left")

    def done(self, *, keep: bool = True) -> None:
        """The answer is out: read the next request, or close."""
        self._answer = None
        if not keep:
            self.transport.close()
        elif self._buffer and not self.transport.is_closing():
            self._server.soon(self._next)

    def reset(self) -> None:
        """Close as a crashing process does: the client gets a reset, not an end."""
        raw: socket.socket = self.transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def _next(self) -> None:
        """Take one whole request out of the buffer, if there is one and the last is answered."""
        if self._answer is not None or self.transport.is_closing():
            return None
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > _HEAD_LIMIT:
                self.transport.abort()
            return None
        lines = self._buffer[:end].decode("latin-1").split("\r\n")
        headers = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])
        }
        if "transfer-encoding" in headers:
            return self._refuse(Refused(411, "this server reads bodies with a Content-Length alone"))
        if not (said := headers.get("content-length", "0")).isdigit() or lines[0].count(" ") != 2:
            return self._refuse(Refused(400, "this is no HTTP request"))
        length = int(said)
        if headers.get("expect", "").lower() == "100-continue" and len(self._buffer) == end + 4:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if len(self._buffer) < end + 4 + length:
            return None
        body = bytes(self._buffer[end + 4 : end + 4 + length])
        del self._buffer[: end + 4 + length]
        try:
            method, path, _ = lines[0].split(" ")
            self._route(method, path, headers, body)
        except Refused as refused:
            self._refuse(refused)
        return None

    def _refuse(self, refused: Refused) -> None:
        self.send(answers.error_body(refused.message, refused.kind, refused.status), status=refused.status)

    def send(
        self, body: bytes, *, status: int = 200, kind: str = "application/json", extra: tuple[str, ...] = ()
    ) -> None:
        """A whole answer."""
        head = answers.head_of(status, _REASONS.get(status, "Error"), kind, length=len(body), extra=extra)
        self.transport.write(head + body)

    def _route(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> None:
        server, script = self._server, self._server.first
        route = (method, path.partition("?")[0].removeprefix("/v1"))
        if route == ("GET", "/health"):
            return self.send(b"")
        if script.api_key and headers.get("authorization") != f"Bearer {script.api_key}":
            raise Refused(401, "no valid API key was given", "AuthenticationError")
        if route in (("POST", "/chat/completions"), ("POST", "/completions")):
            return self._generate(_json(body), chat=route[1] == "/chat/completions")
        if route == ("GET", "/models"):
            return self.send(json.dumps(_models(server)).encode())
        if not script.plain and (made := _vllm_route(server, route, body)) is not None:
            waits, content, kind = made
            asyncio.get_running_loop().call_later(waits, lambda: self.send(content, kind=kind))
            return None
        raise Refused(404, f"there is nothing at {method} {path}", "NotFoundError")

    def _generate(self, body: dict[str, Any], *, chat: bool) -> None:
        server = self._server
        model = body.get("model")
        if model not in server.models:
            raise Refused(404, f"The model `{model}` does not exist.", "NotFoundError")
        if server.sleeping:
            raise Refused(503, "the model sleeps", "ServiceUnavailable")
        try:
            script = server.models[model].but(body.get("mock", {}))
            if script.strict and (unknown := sorted(set(body) - _OPENAI)):
                raise Refused(400, f"Unrecognized request argument supplied: {', '.join(unknown)}")
            answer = Answer(
                connection=self,
                server=server,
                script=script,
                body=body,
                chat=chat,
                number=sum(server.requests.values()),
                of_model=server.requests[model],
                received_ns=self.received_ns,
            )
        except (ValueError, Misuse) as error:
            raise Refused(400, str(error)) from error
        server.requests[model] += 1
        self._answer = answer
        answer.start()


def _json(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body or b"{}")
    except ValueError as error:
        raise Refused(400, f"the body is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise Refused(400, "the body is no JSON object")
    return found


def _models(server: Server) -> dict[str, Any]:
    owner = "mock" if server.first.plain else "vllm"
    rows = [
        {"id": name, "object": "model", "created": 0, "owned_by": owner}
        | ({} if script.plain else {"max_model_len": script.max_model_len})
        for name, script in server.models.items()
    ]
    return {"object": "list", "data": rows}


def _vllm_route(server: Server, route: tuple[str, str], body: bytes) -> tuple[float, bytes, str] | None:
    """Seconds to wait, body and content type of a route that vLLM adds; None when it has no such route."""
    kind = "application/json"
    if route == ("GET", "/version"):
        return 0.0, json.dumps({"version": VERSION}).encode(), kind
    if route == ("GET", "/metrics"):
        return 0.0, server.metrics().encode(), "text/plain; version=0.0.4; charset=utf-8"
    if route == ("POST", "/tokenize"):
        asked = _json(body)
        try:
            ids = answers.prompt_ids(asked, chat="messages" in asked)
        except ValueError as error:
            raise Refused(400, str(error)) from error
        most = server.first.max_model_len
        return 0.0, json.dumps({"tokens": ids, "count": len(ids), "max_model_len": most}).encode(), kind
    if route == ("GET", "/is_sleeping"):
        return 0.0, json.dumps({"is_sleeping": server.sleeping}).encode(), kind
    if route[0] == "POST" and route[1] in ("/sleep", "/wake_up"):
        server.sleeping = route[1] == "/sleep"
        return (server.first.sleep_s if server.sleeping else server.first.wake_s), b"", kind
    return None


async def serve(
    server: Server, host: str, port: int, started: Callable[[int], None], until: asyncio.Event
) -> None:
    """Serve until the event is set; `started` gets the port."""
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(lambda: Connection(server), host, port, backlog=1024)
    started(listening.sockets[0].getsockname()[1])
    gc.collect()
    gc.freeze()
    gc.disable()  # a collection stops every stream for milliseconds; what is made here has no cycles
    await until.wait()
    listening.close()
    server.shut_down()


def keep_time(cpu: int | None) -> None:
    """Ask the system to wake this process when it said, not within the usual 50 µs; stay on one CPU."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(29, 1, 0, 0, 0)  # PR_SET_TIMERSLACK, nanoseconds
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})
