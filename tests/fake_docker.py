"""Container engines that are of no use: too old, without the image, broken, or no engine at all."""

from __future__ import annotations

import json
import re
import socketserver
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

# What a socket answers, by the start of a request's path: a status and a body; every other path is not found.
Answers = dict[str, tuple[int, object]]

VERSION = {"ApiVersion": "1.41", "MinAPIVersion": "1.12", "Version": "20.10.24", "Components": []}
WITHOUT_IMAGE: Answers = {"/_ping": (200, "OK"), "/version": (200, VERSION)}
TOO_OLD: Answers = {"/_ping": (200, "OK"), "/version": (200, {**VERSION, "ApiVersion": "1.24"})}
BROKEN_STORE: Answers = {**WITHOUT_IMAGE, "/images": (500, {"message": "layer store is corrupt"})}
WEB_SERVER: Answers = {"/": (200, "<html>Welcome to nginx!</html>")}
FAILING: Answers = {"/": (500, "\x1b[31m::error::the daemon panicked\x00")}
LYING: Answers = {"/_ping": (200, "OK"), "/version": (200, ["1.41"])}


class _Api(BaseHTTPRequestHandler):
    """Answers as the server's table says; the version that the SDK puts before a path does not count."""

    def do_GET(self) -> None:
        path = re.sub(r"^/v[\d.]+/", "/", self.path)
        table: Answers = self.server.answers  # type: ignore[attr-defined]
        found = next((answer for start, answer in table.items() if path.startswith(start)), None)
        status, said = found or (404, {"message": "No such image"})
        body = said if isinstance(said, str) else json.dumps(said)
        self.send_response(status)
        self.send_header("Content-Type", "text/plain" if isinstance(said, str) else "application/json")
        self.send_header("Content-Length", str(len(body.encode())))
        self.end_headers()
        self.wfile.write(body.encode())

    do_POST = do_DELETE = do_GET  # noqa: N815 - the base class looks for these names

    def log_message(self, *arguments: object) -> None:
        """Says nothing."""


class _Garbage(socketserver.BaseRequestHandler):
    """Speaks no HTTP."""

    def handle(self) -> None:
        self.request.recv(65536)
        self.request.sendall(b"\x00\xff\x1b[31m SSH-2.0-OpenSSH_9.2\r\n" * 20)


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    answers: Answers


@contextmanager
def pretended_engine(answers: Answers | None) -> Iterator[str]:
    """The address of a socket that answers so; None for one that speaks no HTTP."""
    with tempfile.TemporaryDirectory(prefix="engine") as folder:  # a socket's path has to be short
        path = Path(folder) / "docker.sock"
        with _Server(str(path), _Garbage if answers is None else _Api) as server:
            server.answers = answers or {}
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
            thread.start()
            try:
                yield f"unix://{path}"
            finally:
                server.shutdown()
                thread.join()
