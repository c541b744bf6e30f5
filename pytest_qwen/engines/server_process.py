"""A server as a process group with a log: started, waited for until it answers, stopped with all below it."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import tempfile
import time
from typing import IO
from urllib.parse import urlsplit

from pytest_qwen.engines.launching import Launch
from pytest_qwen.errors import NotInstalled, explain

_LOG_BYTES = 64_000
_POLL_S = (0.02, 0.5)  # the first wait between two looks, and the longest
_ANSWER_S = 5.0
# a server that was asked to end gets this long; less than an engine's process has to close
_END_S = 5.0


class ServerProcess:
    """A started server. Its output goes to a file without a name, which ends with this process."""

    def __init__(self, launch: Launch) -> None:
        """Start it. Raises NotInstalled when the program cannot be executed."""
        self.launch = launch
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed in stop()
        try:
            self._process = subprocess.Popen(
                launch.command,
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                env={**os.environ, **launch.environment},
                start_new_session=True,
            )
        except OSError as error:
            self._log.close()
            raise NotInstalled(
                explain(
                    f"the {launch.server.name} server cannot be started",
                    asked=launch.shown,
                    found=str(error),
                    next_step=launch.server.install,
                )
            ) from error

    @property
    def pid(self) -> int:
        """The server's main process."""
        return self._process.pid

    @property
    def status(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        return self._process.poll()

    def ends_within(self, seconds: float) -> bool:
        """Whether it has ended, or does within that time."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        return self.status is not None

    def log(self) -> str:
        """The last that it printed."""
        if self._log.closed:
            return ""
        size = os.fstat(self._log.fileno()).st_size
        text = os.pread(self._log.fileno(), _LOG_BYTES, max(0, size - _LOG_BYTES))
        return text.decode(errors="replace")

    def await_ready(self, deadline_s: float) -> bool:
        """Wait until it answers 200 or ends or time (monotonic) is over; whether it is ready."""
        pause_s = _POLL_S[0]
        while self.status is None and time.monotonic() < deadline_s:
            if self._answers():
                return self.status is None
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(pause_s)
            pause_s = min(2 * pause_s, _POLL_S[1])
        return False

    def _answers(self) -> bool:
        address = urlsplit(self.launch.url)
        connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=_ANSWER_S)
        try:
            connection.request("GET", self.launch.server.ready)
            return connection.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def stop(self) -> None:
        """End the whole group, asked first, then by force; safe to call twice."""
        for sent, seconds in ((signal.SIGTERM, _END_S), (signal.SIGKILL, _END_S)):
            if not self._group_lives():
                break
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, sent)
            deadline_s = time.monotonic() + seconds
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(seconds)
            while self._group_lives() and time.monotonic() < deadline_s:
                time.sleep(_POLL_S[0])
        self._log.close()

    def _group_lives(self) -> bool:
        self._process.poll()  # reap it: a zombie keeps its group
        try:
            os.killpg(self._process.pid, 0)
        except ProcessLookupError:
            return False
        return True


def free_port() -> int:
    """A loopback port that nobody listens on at this moment."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
