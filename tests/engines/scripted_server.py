"""A server for tests of the client: sends exactly the bytes that it is told to, in the pieces that it is told."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field


@dataclass
class Asked:
    """One request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict:
        return json.loads(self.body)


@dataclass
class Raw:
    """Pieces to be sent one by one; "hold" sends nothing more, "close" ends, "reset" does so rudely."""

    pieces: Sequence[bytes]
    then: str = "keep"


def plain(value: object, status: int = 200, *, kind: str = "application/json", more: str = "") -> Raw:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    head = f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{more}\r\n"
    return Raw([head.encode() + body])


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def event(value: object) -> bytes:
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return b"data: " + text + b"\n\n"


def text_chunk(text: str, **more: object) -> dict:
    return {"choices": [{"index": 0, "text": text, "finish_reason": None, **more}]}


def delta(**fields: object) -> dict:
    return {"choices": [{"index": 0, "delta": fields, "finish_reason": None}]}


def finish(reason: str = "length") -> dict:
    return {"choices": [{"index": 0, "text": "", "delta": {}, "finish_reason": reason}]}


def usage(prompt: int, output: int) -> dict:
    return {"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": output}}


def stream(*events: object, then: str = "keep") -> Raw:
    """A whole, orderly stream of these events and [DONE]."""
    return Raw([HEAD, *(chunk(event(one)) for one in events), chunk(event(b"[DONE]")), b"0\r\n\r\n"], then)


def answer(asked: Asked) -> Raw:
    """As long as asked, one token a chunk, counted."""
    tokens, prompt = asked.json["max_tokens"], asked.json.get("prompt")
    length = len(prompt) if isinstance(prompt, list) else len(str(prompt or asked.json["messages"]).split())
    words = [text_chunk(f"w{n} ") if prompt else delta(content=f"w{n} ") for n in range(tokens)]
    return stream(*words, finish(), usage(length, tokens))


MODELS = {"data": [{"id": "tiny", "owned_by": "vllm", "max_model_len": 4096}]}


@dataclass
class Script:
    """What each route answers; everything that came is in `asked`."""

    models: object = field(default_factory=lambda: MODELS)
    complete: Callable[[Asked], Raw] = answer
    routes: dict[str, Raw] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)

    def __call__(self, asked: Asked) -> Raw:
        self.asked.append(asked)
        if asked.path in self.routes:
            return self.routes[asked.path]
        if asked.path == "/v1/models":
            return self.models if isinstance(self.models, Raw) else plain(self.models)
        if asked.path in ("/v1/completions", "/v1/chat/completions"):
            return self.complete(asked)
        return plain({"detail": "Not Found"}, 404)


_NOT_HTTP = Raw([b"HTTP/1.1 400 Bad Request\r\n\r\n"], "close")


@contextlib.contextmanager
def serving(script: Callable[[Asked], Raw], tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """The address of a server that follows the script, a thread a connection."""
    listener = socket.create_server(("127.0.0.1", 0))
    open_ones: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            open_ones.append(connection)
            threads.append(threading.Thread(target=_talk, args=(connection, script, tls), daemon=True))
            threads[-1].start()

    acceptor = threading.Thread(target=accept, daemon=True)
    acceptor.start()
    try:
        yield f"http{'s' if tls else ''}://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        acceptor.join()
        for connection in open_ones:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()


def _talk(connection: socket.socket, script: Callable[[Asked], Raw], tls: ssl.SSLContext | None) -> None:
    with contextlib.suppress(OSError), connection:
        wire = tls.wrap_socket(connection, server_side=True) if tls else connection
        with wire, wire.makefile("rb") as file:
            while (asked := _read(file)) is not None:
                if not _send(wire, script(asked) if asked.method else _NOT_HTTP):
                    return


def _read(file) -> Asked | None:
    first = file.readline()
    if not first:
        return None
    if not first.endswith(b" HTTP/1.1\r\n"):  # a TLS handshake
        return Asked("", "", {}, b"")
    method, path, _ = first.decode().split()
    headers = {}
    while (line := file.readline().strip()) != b"":
        name, _, value = line.decode().partition(":")
        headers[name.lower()] = value.strip()
    return Asked(method, path, headers, file.read(int(headers.get("content-length", 0))))


def _send(wire: socket.socket, raw: Raw) -> bool:
    """Send the pieces; whether the connection goes on."""
    for piece in raw.pieces:
        wire.sendall(piece)
    if raw.then == "hold":
        wire.recv(1)  # until the other side, or the end of the test, closes
    if raw.then == "reset":
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    return raw.then == "keep"
