"""HTTP exchanges with a server under test: what is to be sent, and what was seen."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request to be sent on a connection of its own.

    `path` is the request target ("/predict?x=1"). `body` is sent piece by piece: bytes as they are, a whole
    number n as n zero bytes, so that a large upload need not be carried. Host, Connection: close,
    Accept-Encoding: identity and Content-Length are added. `delay_s` counts from the start of its batch,
    `deadline_s` from when it is sent to when its answer must have ended.
    """

    name: str
    method: str
    path: str
    headers: tuple[tuple[str, str], ...] = ()
    body: tuple[bytes | int, ...] = ()
    delay_s: float = 0.0
    deadline_s: float = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """What came back for one call, as the probe saw it.

    `status` is None when no answer came. `failure` is None for a complete answer, else one of "deadline",
    "refused", "reset", "closed", "protocol", "headers too large", "body too large", followed by ": " and
    detail where there is some. `body` is the start of the answer's body as text (bytes that are no UTF-8
    escaped), `body_bytes` its whole length as far as it was read. Times in milliseconds, `started_ms` from
    the start of the batch.
    """

    name: str
    method: str
    path: str
    status: int | None
    headers: tuple[tuple[str, str], ...] = ()
    body: str = ""
    body_bytes: int = 0
    failure: str | None = None
    started_ms: float = 0.0
    elapsed_ms: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether a complete answer with a 2xx status came."""
        return self.failure is None and self.status is not None and 200 <= self.status < 300

    def header(self, name: str) -> str | None:
        """The first header of that name, whatever its case."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    def __str__(self) -> str:
        """One line: "POST /predict → 200" or "POST /predict → deadline"."""
        return f"{self.method} {self.path} → {self.failure or self.status}"
