"""MockServer: the mock server as a process of its own, and the log of what it really sent."""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import IO, Any, cast

from pytest_qwen.errors import EngineFault, Misuse
from pytest_qwen.mock_server.script import ServerScript

_STOP_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What the server did with one request for an answer.

    Nanoseconds of time.monotonic_ns, which all processes of a machine share: `received_ns` when the request
    was there, `chunk_ns` when each chunk with text was given to the system, just before; `due_ns` when the
    script wanted it. `chunk_tokens` are its tokens. `ended` is "complete", "refused", "html", "client-left",
    "shutdown" or the fault that the script asked for. `blocked` counts chunks that the client's side
    did not take at once. `digest` stands for the text that was sent, as in the client's `Stream`.
    """

    number: int
    model: str
    stream: bool
    status: int
    ended: str
    received_ns: int
    ended_ns: int
    empty_ns: int | None
    due_ns: tuple[int, ...]
    chunk_ns: tuple[int, ...]
    chunk_tokens: tuple[int, ...]
    prompt_tokens: int
    cached_tokens: int | None
    output_tokens: int
    finish_reason: str
    blocked: int
    digest: str

    @property
    def ttft_ms(self) -> float:
        """From the request's arrival to the first chunk with text. Only when one was sent."""
        return (self.chunk_ns[0] - self.received_ns) / 1e6

    @property
    def gaps_ms(self) -> tuple[float, ...]:
        """Times between neighbouring chunks with text."""
        return tuple((later - earlier) / 1e6 for earlier, later in pairwise(self.chunk_ns))

    @property
    def late_ms(self) -> tuple[float, ...]:
        """How much later than the script wanted each chunk was sent."""
        return tuple((sent - due) / 1e6 for due, sent in zip(self.due_ns, self.chunk_ns, strict=True))


def read_log(path: Path) -> tuple[Served, ...]:
    """The requests of a log file in the order in which they came."""
    rows: list[dict[str, Any]] = [json.loads(line) for line in path.read_text().splitlines()]
    served = [Served(**{name: _frozen(value) for name, value in row.items()}) for row in rows]
    return tuple(sorted(served, key=lambda one: one.number))


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


class MockServer:
    """A mock server while a `with` block lasts: `with MockServer(ttft_ms=50) as server: ... server.url`.

    Keywords are the fields of `ServerScript`. `models` are names with the fields in which each differs. It
    ends with this process, however this one ends. Raises Misuse for a script that cannot be played.
    """

    def __init__(
        self,
        *,
        models: Mapping[str, Mapping[str, Any]] | tuple[str, ...] = ("mock",),
        port: int = 0,
        cpu: int | None = None,
        spin: bool = False,
        **script: Any,
    ) -> None:
        """Start it and wait until it listens; `port` 0 takes a free one.

        `cpu` keeps it on one CPU. With `spin` it does not sleep between two chunks, which makes it more
        punctual and takes that CPU whole.
        """
        common = ServerScript().but(script)
        changes = dict(models) if isinstance(models, Mapping) else {name: {} for name in models}
        if not changes:
            raise Misuse("a mock server needs the name of a model")
        scripts = {name: common.but(changed).as_dict() for name, changed in changes.items()}
        self._folder = tempfile.TemporaryDirectory(prefix="pytest-qwen-mock-")
        self.log_path = Path(self._folder.name) / "log.jsonl"
        self.log_path.touch()
        command = [sys.executable, "-m", "pytest_qwen.mock_server", "--until-eof", f"--port={port}"]
        command += [f"--log={self.log_path}", f"--scripts={json.dumps(scripts)}"]
        command += [f"--cpu={cpu}"] if cpu is not None else []
        command += ["--spin"] if spin else []
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.url = cast(IO[str], self._process.stdout).readline().strip()
        if not self.url:
            _, said = self._process.communicate()
            self._folder.cleanup()
            raise EngineFault(f"the mock server did not start\n{said.strip()}", "died")

    @property
    def pid(self) -> int:
        """The server's process."""
        return self._process.pid

    def log(self) -> tuple[Served, ...]:
        """The requests that have ended so far, in the order in which they came.

        The server is asked something first: it answers after it has written down what it sent before.
        """
        if self._process.returncode is None:
            with contextlib.suppress(
                OSError, http.client.HTTPException
            ):  # it was killed: the file is all there is
                connection = http.client.HTTPConnection(self.url.split("/")[2], timeout=_STOP_S)
                connection.request("GET", "/health")
                connection.getresponse().read()
                connection.close()
        return read_log(self.log_path)

    def stop(self) -> tuple[Served, ...]:
        """End the server and give its whole log: what was being answered is in it as "shutdown"."""
        if self._process.returncode is None:
            try:
                self._process.communicate(timeout=_STOP_S)  # closes its input, which ends it
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.communicate()
        return self.log()

    def close(self) -> None:
        """End the server and remove its log; safe to call twice."""
        if self._process.returncode is None:
            self.stop()
        self._folder.cleanup()

    def __enter__(self) -> MockServer:
        """The running server."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it."""
        self.close()
