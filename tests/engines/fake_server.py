"""A server program that fails as it is told: `fake_server(folder, ...)` writes it; its arguments are vLLM's."""

from __future__ import annotations

import sys
from pathlib import Path

_PROGRAM = '''#!{python}
"""Started as a server is: the port stands after --port."""
import http.server, json, os, signal, socket, subprocess, sys, threading, time

port = int(sys.argv[sys.argv.index("--port") + 1])
folder = {folder!r}
with open(folder + "/starts", "a") as log:
    log.write(f"{{os.getpid()}} {{port}}\\n")
starts = len(open(folder + "/starts").readlines())


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        known = {{"/health": {{}}, "/version": {{"version": "9.9"}}, "/v1/models": {{
            "object": "list", "data": [{{"id": {model!r}, "object": "model", "owned_by": "vllm"}}]}}}}
        self.answer(json.dumps(known[self.path]) if self.path in known else None, "application/json")

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "{{}}")
        if self.path.startswith(("/sleep", "/wake_up")):
            with open(folder + "/switched", "a") as log:
                log.write(self.path + "\\n")
            return self.answer("", "text/plain")
        if body.get("max_tokens") == {dies_at!r}:
            print({says!r}, flush=True)
            os._exit(3)
        count = body.get("max_tokens") or 1
        event = lambda **fields: "data: " + json.dumps(fields) + "\\n\\n"
        said = {{"delta": {{"content": " ba"}}}} if "chat" in self.path else {{"text": " ba"}}
        chunk = lambda reason: {{"index": 0, **said, "finish_reason": reason}}
        events = [event(choices=[chunk("length" if n == count - 1 else None)]) for n in range(count)]
        usage = {{"prompt_tokens": 3, "completion_tokens": count, "total_tokens": count + 3}}
        self.answer("".join([*events, event(choices=[], usage=usage), "data: [DONE]\\n\\n"]), "text/event-stream")

    def answer(self, text, kind):
        body = (text or "").encode()
        self.send_response(200 if text is not None else 404)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def serve():
    if {stubborn!r}:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


{body}
'''


def fake_server(
    folder: Path,
    body: str = "serve()",
    *,
    model: str = "m",
    stubborn: bool = False,
    dies_at: int = -1,
    says: str = "",
) -> str:
    """The path of an executable that does `body`; `starts` in the folder has a line for each start."""
    program = folder / "vllm-fake"
    text = _PROGRAM.format(
        python=sys.executable,
        folder=str(folder),
        model=model,
        stubborn=stubborn,
        dies_at=dies_at,
        says=says,
        body=body,
    )
    program.write_text(text)
    program.chmod(0o755)
    return str(program)


def starts(folder: Path) -> list[tuple[int, int]]:
    """(pid, port) of each start."""
    lines = (folder / "starts").read_text().splitlines()
    return [(int(pid), int(port)) for pid, port in (line.split() for line in lines)]
