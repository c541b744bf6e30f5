"""The child's side of a hosted engine: a guard process that outlives nothing, and the loop that serves calls.

Run as `python -m pytest_qwen.engines.host CONNECTION_FD CONTROL_FD`. The started process becomes the guard
and forks the engine's process. The guard imports nothing heavy, so that it acts at once whatever the engine
does: when the engine ends, or the session at the other end of the control socket is gone (kill -9 included),
it kills every process that descends from the engine and says on the socket how the engine ended.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pickle
import signal
import socket
import sys
import threading
import traceback
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

from pytest_qwen.engines import load_target
from pytest_qwen.engines.base import Engine, Loaded, sleeping
from pytest_qwen.engines.faults import translate
from pytest_qwen.engines.wire import receive, send
from pytest_qwen.errors import EngineFault, QwenError, Unavailable, explain

_WITHOUT_ARGUMENT = ("rest", "wake")
# linux/prctl.h
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def main(connection_fd: int, control_fd: int) -> NoReturn:
    """Fork the engine's process and guard it; returns in neither."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)  # orphans of the engine become ours, in whatever session they hide
    guard_pid = os.getpid()
    engine_pid = os.fork()
    if engine_pid == 0:
        os.close(control_fd)
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != guard_pid:  # the guard ended before prctl took effect
            os._exit(1)
        serve(Connection(connection_fd))
    os.close(connection_fd)
    _guard(engine_pid, socket.socket(fileno=control_fd))


def _guard(engine_pid: int, control: socket.socket) -> NoReturn:
    """Wait for the engine to end, kill what it left behind, say how it ended."""

    def kill_when_session_ends() -> None:
        with contextlib.suppress(OSError):
            control.recv(1)  # nothing is ever sent: this returns when the other end closes
        with contextlib.suppress(ProcessLookupError):
            os.kill(engine_pid, signal.SIGKILL)

    threading.Thread(target=kill_when_session_ends, daemon=True).start()
    _, status = os.waitpid(engine_pid, 0)
    _kill_children()
    with contextlib.suppress(OSError):
        control.sendall(str(os.waitstatus_to_exitcode(status)).encode())
    os.killpg(0, signal.SIGKILL)
    os._exit(0)


def _kill_children() -> None:
    """Kill and reap our children until there are none: each death may hand us its orphans."""
    while children := _children(os.getpid()):
        for pid in children:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        for pid in children:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


def _children(parent: int) -> list[int]:
    """Processes whose parent is `parent`, by /proc; none where there is no /proc."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            # pid (name) state ppid ...; the name may hold spaces and parentheses
            fields = entry.read_text().rpartition(")")[2].split()
            if int(fields[1]) == parent:
                found.append(int(entry.parent.name))
    return found


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def serve(connection: Connection) -> NoReturn:
    """Answer calls until the session says None or is gone, then end at once: torch is slow to unload."""
    target, path = receive(connection)
    sys.path.extend(entry for entry in path if entry not in sys.path)
    hosted = _Hosted(target, connection)
    with contextlib.suppress(EOFError, OSError):
        while (call := receive(connection)) is not None:
            hosted.answer(*call)
    hosted.close()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


class _Hosted:
    """The engine, made at the first call so that a failed import is an answer like any other."""

    def __init__(self, target: str, connection: Connection) -> None:
        self._target = target
        self._connection = connection
        self._engine: Engine | None = None

    def answer(self, method: str, argument: Any, wants_tokens: bool) -> None:
        """Do one call and send ("ok", value) or ("error", one of our errors)."""
        try:
            send(self._connection, ("ok", self._call(method, argument, wants_tokens)))
        except BaseException as error:  # even SystemExit: whatever an engine does must be answered
            if not isinstance(error, QwenError):  # ours say all there is to say
                traceback.print_exc()
                sys.stderr.flush()
            send(self._connection, ("error", _portable(translate(error))))

    def _call(self, method: str, argument: Any, wants_tokens: bool) -> Any:
        if self._engine is None:
            self._engine = load_target(self._target)
        if method == "run":
            return self._engine.run(argument, self._send_token if wants_tokens else None)
        if method in ("sleep", "wake"):
            sleeping(self._engine)
        if not hasattr(self._engine, method):  # what a newer session may ask of an engine of another's
            raise Unavailable(explain("this engine cannot do that", asked=f"{method}()", found=self._target))
        call = getattr(self._engine, method)
        value = call() if method in _WITHOUT_ARGUMENT else call(argument)
        return replace(value, pid=os.getpid()) if isinstance(value, Loaded) else value

    def _send_token(self, text: str) -> None:
        send(self._connection, ("token", text))

    def close(self) -> None:
        """Close the engine; its errors no longer matter."""
        if self._engine is not None:
            with contextlib.suppress(Exception):
                self._engine.close()


def _portable(error: QwenError) -> QwenError:
    """The error if it survives the pipe, else its text."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    except Exception:
        return EngineFault(str(error))
    return error


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
