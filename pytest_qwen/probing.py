"""The host's side of the probe: batches of calls out, exchanges back, every reply checked."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from pytest_qwen.escaping import escaped
from pytest_qwen.exchanges import Call, Exchange
from pytest_qwen.sandbox.base import MIB, Container, Conversation, Job, Limits, Sandbox, SandboxFault
from pytest_qwen.sandbox.tools import script

Headers = tuple[tuple[str, str], ...]
Body = tuple[bytes | int, ...]

FAILURES = (
    "deadline", "refused", "reset", "closed", "protocol", "headers too large", "body too large",
)  # fmt: skip
MOST_AT_ONCE = 64
# Beyond what the calls themselves may take: starting the interpreter, encoding and carrying the reply.
_SLACK_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """Whether an HTTP status line came, and after how many seconds of asking."""

    ready: bool
    seconds: float


def probe_job(nonce: str, *, seed: int = 0, lifetime_s: float = 900.0) -> Job:
    """The job that runs the probe. `seed` orders its request headers; `nonce` is in each of its replies."""
    return Job(
        argv=("python3", "-I", "probe.py", nonce, str(seed)),
        files={"probe.py": script("probe.py")},
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"},
        limits=Limits(memory_bytes=256 * MIB, pids=64, lifetime_s=lifetime_s),
        role="probe",
    )


def open_probe(sandbox: Sandbox, beside: Container, *, port: int = 8000, seed: int = 0) -> Probe:
    """A probe in the network of a running container, and in nothing else of it."""
    nonce = secrets.token_hex(16)
    return Probe(sandbox.talk(probe_job(nonce, seed=seed), beside=beside), nonce=nonce, port=port)


class Probe:
    """Sends calls to the server on `port` of the guest's loopback.

    Every method raises SandboxFault when the probe itself is broken. What the server does, however bad, is
    an Exchange.
    """

    def __init__(self, conversation: Conversation, *, nonce: str, port: int = 8000) -> None:
        self.port = port
        self._conversation = conversation
        self._nonce = nonce
        self._number = 0
        self._begun: tuple[tuple[Call, ...], float] | None = None

    def ready(self, budget_s: float, *, path: str = "/openapi.json") -> Readiness:
        """Ask again and again, until the server answers with any HTTP status or the time is over."""
        operation = {"op": "ready", "port": self.port, "path": path, "budget_s": budget_s}
        reply = self._ask(operation, budget_s)
        ready, seconds = reply.get("ready"), reply.get("seconds", "")
        if not isinstance(ready, bool) or not _is_number(seconds):
            raise _broken("its reply on readiness has not the agreed form")
        return Readiness(ready=ready, seconds=seconds)

    def batch(
        self, calls: Sequence[Call], *, at_once: int | None = None, keep_bytes: int | None = None
    ) -> dict[str, Exchange]:
        """Send calls, at most `at_once` (64) at a time, and wait; their exchanges by name.

        `keep_bytes` of each body are kept (256 KiB), of all together 16 MiB.
        """
        self.begin(calls, at_once=at_once, keep_bytes=keep_bytes)
        return self.finish()

    def begin(
        self, calls: Sequence[Call], *, at_once: int | None = None, keep_bytes: int | None = None
    ) -> None:
        """Have calls sent and return at once; nothing else can be asked before `finish`."""
        if len({call.name for call in calls}) != len(calls):
            raise ValueError("the calls of a batch need names of their own")
        most = min(at_once or MOST_AT_ONCE, MOST_AT_ONCE)
        self._tell(
            {
                "op": "batch",
                "port": self.port,
                "at_once": most,
                "calls": [{**_sent(call), "keep_bytes": keep_bytes} for call in calls],
            }
        )
        deadlines = [call.deadline_s for call in calls] or [0.0]
        delay_s = max((call.delay_s for call in calls), default=0.0)
        self._begun = tuple(calls), delay_s + sum(deadlines) / most + max(deadlines)

    def finish(self) -> dict[str, Exchange]:
        """Wait for what was begun; its exchanges by name."""
        if self._begun is None:
            raise RuntimeError("no batch was begun")
        (calls, longest_s), self._begun = self._begun, None
        found = self._hear(longest_s).get("exchanges")
        if not isinstance(found, list) or len(found) != len(calls):
            raise _broken(f"{len(calls)} calls were sent, and its reply is about other ones")
        return {call.name: _exchange(call, raw) for call, raw in zip(calls, found, strict=True)}

    def listeners(self) -> tuple[int, ...]:
        """The TCP ports that something listens on in the guest's network, lowest first."""
        ports = self._ask({"op": "listeners"}, 5.0).get("ports")
        if not isinstance(ports, list) or not all(isinstance(port, int) for port in ports):
            raise _broken("its list of listening ports has not the agreed form")
        return tuple(ports)

    def alive(self) -> bool:
        """Whether its container runs, which only the engine or we could have ended."""
        return self._conversation.container.state().running

    def close(self) -> None:
        """End the probe; safe to call twice."""
        self._conversation.close()

    def _ask(self, operation: Mapping[str, Any], longest_s: float) -> Mapping[str, Any]:
        self._tell(operation)
        return self._hear(longest_s)

    def _tell(self, operation: Mapping[str, Any]) -> None:
        if self._begun is not None:
            raise RuntimeError("a batch is under way; finish it first")
        self._number += 1
        self._conversation.send(json.dumps({**operation, "id": self._number}).encode())

    def _hear(self, longest_s: float) -> Mapping[str, Any]:
        """The reply to what was told last, known to be the probe's own."""
        line = self._conversation.receive(longest_s + _SLACK_S)
        try:
            reply = json.loads(line)
        except (ValueError, RecursionError):
            raise _broken(f"it said {escaped(line.decode(errors='replace'), 80)!r}") from None
        asked = (self._nonce, self._number)
        if not isinstance(reply, dict) or (reply.get("nonce"), reply.get("id")) != asked:
            raise _broken("a line of its output is no reply to what was asked")
        if "error" in reply:
            raise _broken(escaped(str(reply["error"])))
        return reply


def multipart(
    field: str | None,
    filename: str | None,
    content_type: str | None,
    data: bytes | int | Body,
    *,
    fields: Mapping[str, str] | None = None,
    empty: bool = False,
) -> tuple[Headers, Body]:
    """The headers and body of a form with a file in it, as a browser sends it.

    For bad requests: `field` None leaves the file's part out, `filename` None and `content_type` None leave
    out what they name, `empty` sends no body at all. `fields` are text fields beside it. A whole number in
    `data` stands for so many zero bytes.
    """
    pieces = data if isinstance(data, tuple) else (data,)
    digest = hashlib.sha256(repr((field, filename, content_type)).encode("utf-8", "backslashreplace"))
    for piece in pieces:
        digest.update(piece if isinstance(piece, bytes) else str(piece).encode())
    boundary = f"----WebKitFormBoundary{digest.hexdigest()[:16]}"
    headers = (("Content-Type", f"multipart/form-data; boundary={boundary}"),)
    if empty:
        return headers, ()
    start = "".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{_quoted(name)}"\r\n\r\n{value}\r\n'
        for name, value in (fields or {}).items()
    )
    body: list[bytes | int] = []
    if field is not None:
        start += f'--{boundary}\r\nContent-Disposition: form-data; name="{_quoted(field)}"'
        start += "" if filename is None else f'; filename="{_quoted(filename)}"'
        start += "\r\n" if content_type is None else f"\r\nContent-Type: {content_type}\r\n"
        body = [*pieces, b"\r\n"]
        start += "\r\n"
    return headers, (start.encode("utf-8", "backslashreplace"), *body, f"--{boundary}--\r\n".encode())


def _quoted(name: str) -> str:
    """A name inside quotes of a form's part, as the HTML standard escapes it."""
    return name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")


def _sent(call: Call) -> dict[str, Any]:
    """A call as JSON; characters that no request line may hold are percent-encoded."""
    return {
        "name": call.name,
        "method": call.method,
        "path": quote(call.path, safe="".join(map(chr, range(0x21, 0x7F))), errors="replace"),
        "headers": call.headers,
        "body": [
            piece if isinstance(piece, int) else base64.b64encode(piece).decode() for piece in call.body
        ],
        "delay_s": call.delay_s,
        "deadline_s": call.deadline_s,
    }


def _exchange(call: Call, raw: Any) -> Exchange:
    """An exchange from the probe's reply, every field of the agreed type."""
    try:
        status, failure, headers = raw["status"], raw["failure"], raw["headers"]
        fine = (
            raw["name"] == call.name
            and (status is None or (_is_number(status) and 100 <= status <= 999))
            and (failure is None or failure.split(":")[0] in FAILURES)
            and (status is not None or failure is not None)
            and all(isinstance(text, str) for pair in headers for text in pair)
            and all(_is_number(raw[key]) for key in ("body_bytes", "started_ms", "elapsed_ms"))
        )
        if not fine:
            raise _broken(f"its report on {escaped(call.name, 60)} has not the agreed form")
        return Exchange(
            name=call.name,
            method=call.method,
            path=call.path,
            status=status,
            headers=tuple((name, value) for name, value in headers),
            body=base64.b64decode(raw["body"], validate=True).decode("utf-8", "backslashreplace"),
            body_bytes=raw["body_bytes"],
            failure=failure and escaped(failure),
            started_ms=float(raw["started_ms"]),
            elapsed_ms=float(raw["elapsed_ms"]),
        )
    except (TypeError, KeyError, ValueError, AttributeError, binascii.Error):
        raise _broken(f"its report on {escaped(call.name, 60)} has not the agreed form") from None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _broken(what: str) -> SandboxFault:
    return SandboxFault(f"the probe beside the server is broken: {what}")
