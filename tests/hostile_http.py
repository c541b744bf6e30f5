"""Servers that misbehave on purpose, and the probe as a plain process that talks to them."""

from __future__ import annotations

import os
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest_qwen.sandbox
from pytest_qwen.sandbox.base import MIB, SandboxFault

SCRIPT = Path(pytest_qwen.sandbox.__file__).parent / "inside" / "probe.py"
Handler = Callable[["Peer"], None]


class Peer:
    """One connection as a server sees it."""

    def __init__(self, connection: socket.socket, over: threading.Event) -> None:
        self.connection = connection
        self.over = over
        self.head = b""
        self.body = b""

    def read_head(self) -> None:
        while b"\r\n\r\n" not in self.head:
            data = self.connection.recv(65536)
            if not data:
                raise ConnectionError
            self.head += data
        self.head, _, self.body = self.head.partition(b"\r\n\r\n")

    def read_body(self) -> bytes:
        length = int(self.headers().get("content-length", "0"))
        while len(self.body) < length:
            data = self.connection.recv(65536)
            if not data:
                raise ConnectionError
            self.body += data
        return self.body

    def header_lines(self) -> list[tuple[str, str]]:
        pairs = (line.split(": ", 1) for line in self.head.decode("latin-1").split("\r\n")[1:])
        return [(name, value) for name, value in pairs]

    def headers(self) -> dict[str, str]:
        return {name.lower(): value for name, value in self.header_lines()}

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def answer(self, body: bytes = b"fine", *lines: str, status: str = "200 OK") -> None:
        head = "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *lines, "", ""])
        self.send(head.encode("latin-1") + body)

    def for_ever(self, piece: bytes, pause_s: float = 0.0) -> None:
        """Send the same until the test is over or the other side has gone."""
        while not self.over.is_set():
            self.send(piece)
            if pause_s:
                self.over.wait(pause_s)

    def wait(self) -> None:
        """Keep the connection open, and silent."""
        self.over.wait(10)

    def reset(self) -> None:
        """End the connection with a RST."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class Server:
    """Listens on a free port; every connection is handled in a thread of its own."""

    def __init__(self, handle: Handler, *, reads_head: bool = True) -> None:
        self._handle = handle
        self._reads_head = reads_head
        self._over = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self.peers: list[Peer] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            peer = Peer(connection, self._over)
            self.peers.append(peer)
            thread = threading.Thread(target=self._serve, args=(peer,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, peer: Peer) -> None:
        with peer.connection:
            try:
                if self._reads_head:
                    peer.read_head()
                self._handle(peer)
            except OSError:
                return

    def close(self) -> None:
        if not self._over.is_set():
            self._over.set()
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
            self._listener.close()
        for thread in self._threads:
            thread.join(5)


class Pipe:
    """The probe as a child process of the tests: a Conversation without a container."""

    def __init__(self, nonce: str, seed: int = 0, env: dict[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-I", str(SCRIPT), nonce, str(seed)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **(env or {})},
        )
        self._buffer = b""

    @property
    def container(self) -> object:
        raise NotImplementedError

    def send(self, line: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + b"\n")
        self.process.stdin.flush()

    def receive(self, timeout_s: float, *, most_bytes: int = 64 * MIB) -> bytes:
        assert self.process.stdout is not None
        end = time.monotonic() + timeout_s
        pieces = []
        while True:
            readable, _, _ = select.select([self.process.stdout], [], [], max(0.0, end - time.monotonic()))
            data = os.read(self.process.stdout.fileno(), 1 << 20) if readable else b""
            if not data:
                raise SandboxFault("no line came")
            pieces.append(data)
            if data.endswith(b"\n"):
                return b"".join(pieces)[:-1]

    def peak_bytes(self) -> int:
        """The most resident memory that the process ever had."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024

    def close(self) -> None:
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()
        self.process.wait(5)
