"""Any engine in a process of its own: its death, hang or device fault costs one test, and no memory."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Pipe, wait
from pathlib import Path
from typing import IO, Any, NoReturn, cast

from pytest_qwen.engines import HOSTED, LOAD_TIMEOUT, target_of
from pytest_qwen.engines.base import Likelihood, Loaded, LoadSpec, Pair, Request, Trace
from pytest_qwen.engines.faults import again, exit_in_words
from pytest_qwen.engines.wire import receive, send
from pytest_qwen.errors import DoesNotFit, EngineFault, QwenError, Unavailable, explain
from pytest_qwen.streams import LoadSummary

_PACKAGE_PARENT = Path(__file__).parents[2]
_TAIL_BYTES = 4000
_TAIL_LINES = 20
_GUARD_TIMEOUT_S = 10.0
# an engine that is dying by itself gets this long until its guard has said how
_LAST_WORDS_S = 1.0


class ChildEngine:
    """The Engine protocol over a pipe, around the registered engine `name`.

    `env` is set before the child imports anything (allocator settings are read when torch is imported).
    `visible_device` is what CUDA shall see: an NVML index or UUID, several joined by commas; None leaves the
    environment as it is. A call that takes longer than its timeout (seconds) is a hang.

    An EngineFault or DoesNotFit ends the child, and so does any failure to load; from then on every call
    raises the same error. An exception of `on_token` is raised when the run is over.
    """

    def __init__(
        self,
        name: str,
        *,
        env: Mapping[str, str] | None = None,
        visible_device: str | None = None,
        load_timeout_s: float = 900.0,
        run_timeout_s: float = 600.0,
        close_timeout_s: float = 10.0,
    ) -> None:
        """Nothing is started before `load`. Raises Misuse for an unknown engine."""
        self._name = name
        self._target = target_of(name)
        self._env = _environment({LOAD_TIMEOUT: f"{load_timeout_s:g}", **(env or {})}, visible_device)
        self._load_timeout_s = load_timeout_s
        self._run_timeout_s = run_timeout_s
        self._close_timeout_s = close_timeout_s
        self._process: _Process | None = None
        self._ended: QwenError | None = None

    def load(self, spec: LoadSpec) -> Loaded:
        """Start the child and load in it. Raises whatever the engine raises, and EngineFault."""
        if self._process is None and self._ended is None:
            self._process = _Process(self._env, self._target)
        try:
            return cast(Loaded, self._call("load", spec, self._load_timeout_s))
        except QwenError as error:
            self._end(error)
            raise

    def run(self, request: Request, on_token: Callable[[str], None] | None = None) -> Trace:
        """Do one request in the child. Raises whatever the engine raises, and EngineFault."""
        return cast(Trace, self._call("run", request, self._run_timeout_s, on_token))

    def count_tokens(self, text: str) -> int:
        """Tokens of `text`, counted in the child."""
        return cast(int, self._call("count_tokens", text, self._run_timeout_s))

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of `text`, made in the child."""
        return cast("tuple[int, ...]", self._call("encode", text, self._run_timeout_s))

    def score(self, pairs: Sequence[Pair]) -> tuple[Likelihood, ...]:
        """How likely each continuation is, computed in the child. Raises whatever the engine raises."""
        return cast("tuple[Likelihood, ...]", self._call("score", pairs, self._run_timeout_s))

    def rest(self) -> LoadSummary | None:
        """End a load that the child keeps up. Raises whatever the engine raises, and EngineFault."""
        return cast("LoadSummary | None", self._call("rest", None, self._run_timeout_s))

    def sleep(self, level: int = 1) -> float:
        """Have the engine give its memory back for a while; seconds. Raises Unavailable where it cannot."""
        return cast(float, self._call("sleep", level, self._run_timeout_s))

    def wake(self) -> float:
        """Have a sleeping engine take its memory again; seconds until it can answer."""
        return cast(float, self._call("wake", None, self._run_timeout_s))

    def close(self) -> None:
        """Ask the child to end, then make it; safe to call twice and after a fault."""
        if self._process is not None and self._ended is None:
            with contextlib.suppress(OSError):
                send(self._process.connection, None)
                wait([self._process.control], self._close_timeout_s)
        self._end(EngineFault(f"engine {self._name!r} was closed"))

    def _call(
        self, method: str, argument: Any, timeout_s: float, on_token: Callable[[str], None] | None = None
    ) -> Any:
        """One call and its answer; a child that does not answer as it should is ended."""
        if self._ended is not None:
            raise again(self._ended)
        process = self._process
        if process is None:
            raise EngineFault(f"engine {self._name!r} is not loaded")
        tokens = _Tokens(on_token)
        try:
            kind, value = self._exchange(process, (method, argument, on_token is not None), timeout_s, tokens)
        except TimeoutError:
            self._fail(process, f"the engine hung: no answer to {method!r} within {timeout_s:g} s", "hang")
        except (OSError, EOFError):
            self._fail(process, f"the engine's process died during {method!r}: {process.stop()}", "died")
        except Exception as error:
            self._fail(
                process, f"the engine and the session do not understand each other: {error!r}", "error"
            )
        except BaseException:  # Ctrl-C: the answer that is still to come would be taken for the next one's
            self._end(EngineFault(f"engine {self._name!r} was interrupted during {method!r}"))
            raise
        if kind == "error":
            self._raise(process, value)
        tokens.raise_error()
        return value

    def _exchange(
        self, process: _Process, call: tuple[str, Any, bool], timeout_s: float, tokens: _Tokens
    ) -> tuple[str, Any]:
        """Send a call, pass on tokens, give the answer; TimeoutError, OSError, EOFError if none comes."""
        deadline = time.monotonic() + timeout_s
        send(process.connection, call)
        while True:
            ready = wait([process.connection, process.control], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise TimeoutError
            if process.connection not in ready:
                raise EOFError
            kind, value = receive(process.connection)
            if kind != "token":
                return kind, value
            tokens.take(value)

    def _raise(self, process: _Process, error: QwenError) -> NoReturn:
        """Raise the child's error; after a fault or lack of memory the child is not used again."""
        if isinstance(error, EngineFault) and not process.log_tail():
            self._end(error)
        elif isinstance(error, EngineFault):
            self._fail(process, error.message, error.kind)
        if isinstance(error, DoesNotFit):
            self._end(error)
        raise error

    def _fail(self, process: _Process, what: str, kind: str) -> NoReturn:
        """End the child and raise what happened, with the last that the child printed."""
        tail = process.log_tail()
        fault = EngineFault(
            explain(what, found=f"its last output was\n{tail}" if tail else "no output"), kind
        )
        self._end(fault)
        raise fault

    def _end(self, why: QwenError) -> None:
        """Stop the process; the first reason stays."""
        self._ended = self._ended or why
        if self._process is not None:
            self._process.close()


class _Tokens:
    """Passes pieces of text on; keeps the first error of the callback so that the pipe stays in step."""

    def __init__(self, on_token: Callable[[str], None] | None) -> None:
        self._on_token = on_token
        self._error: Exception | None = None

    def take(self, text: str) -> None:
        if self._on_token is None or self._error is not None:
            return
        try:
            self._on_token(text)
        except Exception as error:
            self._error = error

    def raise_error(self) -> None:
        if self._error is not None:
            raise self._error


class _Process:
    """The guard and the engine's process (see `host`), the pipe to the engine, the socket to the guard.

    Raises Unavailable when the machine cannot start another process.
    """

    def __init__(self, env: Mapping[str, str], target: str) -> None:
        self.connection, theirs = Pipe()
        self.control, their_control = socket.socketpair()
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        try:
            self._guard = self._start(env, theirs.fileno(), their_control.fileno())
        except OSError as error:
            for mine in (self.connection, self.control, self._log):
                mine.close()
            raise Unavailable(explain("the engine's process cannot be started", found=str(error))) from error
        finally:
            theirs.close()
            their_control.close()
        with contextlib.suppress(OSError):  # dead already: the first call will say so
            send(self.connection, (target, tuple(sys.path)))

    def _start(self, env: Mapping[str, str], *fds: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "pytest_qwen.engines.host", *map(str, fds)],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            env=dict(env),
            pass_fds=fds,
            start_new_session=True,  # the terminal's Ctrl-C is for the session, which then ends us
        )

    def log_tail(self) -> str:
        """The last lines of what the child printed."""
        # pread: the child writes through the same file offset
        size = os.fstat(self._log.fileno()).st_size
        start = max(0, size - _TAIL_BYTES)
        text = os.pread(self._log.fileno(), _TAIL_BYTES, start).decode(errors="replace")
        return "\n".join(f"    | {line}" for line in text.splitlines()[-_TAIL_LINES:])

    def stop(self) -> str:
        """Have the guard kill everything; says how the engine's process ended."""
        if self._guard.returncode is not None:
            return "ended before"
        status = b""
        with contextlib.suppress(OSError):
            if not wait([self.control], _LAST_WORDS_S):
                self.control.shutdown(socket.SHUT_WR)
            self.control.settimeout(_GUARD_TIMEOUT_S)
            status = self.control.recv(16)
        try:
            self._guard.wait(_GUARD_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._kill_group()
        return exit_in_words(int(status)) if status else "no word from its guard process"

    def _kill_group(self) -> None:
        """The last resort, for a guard that does not end: something hangs in the kernel."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._guard.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._guard.wait(_GUARD_TIMEOUT_S)

    def close(self) -> None:
        """Stop everything and give the descriptors back; safe to call twice."""
        if self._log.closed:
            return
        with contextlib.suppress(OSError):
            self.control.shutdown(socket.SHUT_WR)
        self.stop()
        self.connection.close()
        self.control.close()
        self._log.close()


def _environment(extra: Mapping[str, str], visible_device: str | None) -> dict[str, str]:
    """The child's environment: ours, with the package importable and the asked additions."""
    env = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1", HOSTED: "1"}
    # of an installed package it is there anyway, and must not go before the standard library
    if _PACKAGE_PARENT.name not in ("site-packages", "dist-packages"):
        env["PYTHONPATH"] = os.pathsep.join(filter(None, (str(_PACKAGE_PARENT), env.get("PYTHONPATH"))))
    if visible_device is not None:
        # NVML counts by PCI bus; CUDA's own default order is by speed
        env |= {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": visible_device}
    return env | dict(extra)
