"""A generated server in the sandbox with a probe beside it: started, waited for, watched, ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import TypeVar

from pytest_qwen.environments import missing_import
from pytest_qwen.errors import explain
from pytest_qwen.escaping import printable
from pytest_qwen.observations import Server
from pytest_qwen.probing import Probe, open_probe
from pytest_qwen.sandbox.base import Container, Job, Limits, Log, Sandbox, SandboxFault, State

PORT = 8000
READY_BUDGET_S = 90.0
STEADY_AFTER_S = 2.0
_SLICE_S = 1.0  # how long the probe waits before the engine is asked again whether the server still runs
_LOG_CHARACTERS = 16_000
_Part = TypeVar("_Part")


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How a program is started: its command, what it finds below /work and in its environment.

    `mode` is "module" where a trusted server program imports the app and listens on port 8000, "script" where
    the program's own file is run and its port has to be found. `seed` orders the probe's request headers.
    """

    argv: tuple[str, ...]
    files: Mapping[str, bytes]
    env: Mapping[str, str]
    mode: str = "module"
    environment: str = "tf5"
    limits: Limits = field(default_factory=Limits)
    seed: int = 0


class Serving:
    """One start of a program. Use as a context manager: leaving it removes guest and probe.

    Every method may raise SandboxFault; what the program does wrong is in `server()`.
    """

    def __init__(
        self,
        sandbox: Sandbox,
        launch: Launch,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._sandbox = sandbox
        self._launch = launch
        self._clock = clock
        self._sleep = sleep
        self._guest: Container | None = None
        self._probe: Probe | None = None
        self._first: State | None = None
        self._ready_at: float | None = None
        self._ready_s: float | None = None
        self._steady = False
        self._removed = False
        self._started = 0.0

    def __enter__(self) -> Serving:
        self._started = self._clock()
        launch = self._launch
        self._guest = self._sandbox.start(
            Job(argv=launch.argv, files=launch.files, env=launch.env, limits=launch.limits, role="guest")
        )
        try:
            self._probe = self._open_probe()
        except BaseException:
            self.remove()
            raise
        if self._removed:  # given up by another thread while it was being started
            self._removed = False
            self.remove()
        return self

    def _open_probe(self) -> Probe | None:
        """A probe beside the guest; None where the guest had ended before there was one."""
        try:
            return open_probe(self._sandbox, self.guest, port=PORT, seed=self._launch.seed)
        except SandboxFault:
            if self.guest.state().running:
                raise
            return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    @property
    def guest(self) -> Container:
        """The container of the program."""
        return _inside(self._guest)

    @property
    def probe(self) -> Probe:
        """The client beside it."""
        return _inside(self._probe)

    def ready(self, path: str = "/openapi.json", budget_s: float = READY_BUDGET_S) -> bool:
        """Wait until an HTTP status line came, the program ended or the budget is over."""
        try:
            return self._wait_until_ready(path, self._started + budget_s)
        except SandboxFault:
            if self._removed:  # another thread gave it up
                return False
            raise

    def _wait_until_ready(self, path: str, deadline: float) -> bool:
        while not self._removed and self._clock() < deadline:
            if not self._state().running:
                return False
            if self._launch.mode == "script":
                self._find_port()
            if self.probe.ready(min(_SLICE_S, deadline - self._clock()), path=path).ready:
                self._first, self._ready_at = self.guest.state(), self._clock()
                self._ready_s = self._ready_at - self._started
                return self._first.running
        return False

    def _find_port(self) -> None:
        ports = self.probe.listeners()
        if ports:
            self.probe.port = min(ports)

    def steady(self) -> bool:
        """Whether the same process still runs two seconds after it was ready; waits for the rest of them."""
        if self._ready_at is None:
            return False
        self._sleep(max(0.0, self._ready_at + STEADY_AFTER_S - self._clock()))
        self._steady = self._same()
        return self._steady

    def terminate(self, within_s: float) -> tuple[float | None, int | None]:
        """Send SIGTERM; the seconds until the program had exited and its code, (None, None) in vain."""
        sent = self._clock()
        self.guest.signal("SIGTERM")
        state = self.guest.wait(within_s)
        exit_s = self._clock() - sent
        self._blame(state)
        return (None, None) if state.running else (exit_s, state.exit_code)

    def server(self) -> Server:
        """What is known of this start now."""
        state, log = self._state(), self.guest.log()
        head, tail = _texts(log)
        ready = self._ready_s is not None
        return Server(
            ready=ready,
            steady=self._steady,
            alive_after=ready and self._same(state),
            ready_s=self._ready_s,
            exit_code=state.exit_code,
            ended=state.ended,
            missing_import=None if ready else missing_import(tail, own=_own_modules(self._launch.files)),
            mode=self._launch.mode,
            environment=self._launch.environment,
            log_head=head,
            log_tail=tail,
        )

    def remove(self) -> None:
        """Remove guest and probe; safe to call twice, and from another thread to end a wait."""
        if self._removed:
            return
        self._removed = True
        try:
            if self._probe is not None:
                self._probe.close()
        finally:
            if self._guest is not None:
                self._guest.remove()

    def _state(self) -> State:
        state = self.guest.state()
        self._blame(state)
        return state

    def _blame(self, state: State) -> None:
        """An end that the probe shares was not the program's own: the engine was restarted, or broke."""
        if state.running or self._probe is None or self._removed or self._probe.alive():
            return
        raise SandboxFault(
            explain(
                "the container engine broke down",
                asked="a server and the client beside it to run until we end them",
                found="both were ended from outside",
                slip="the engine was stopped or restarted",
                next_step="pytest-qwen sandbox check",
            )
        )

    def _same(self, state: State | None = None) -> bool:
        state = state or self._state()
        first = self._first
        return (
            first is not None
            and state.running
            and (state.pid, state.started_at) == (first.pid, first.started_at)
        )


def _own_modules(files: Iterable[str]) -> set[str]:
    """What the program may import of itself: a file or folder that is missing there is its own mistake."""
    return {name.partition("/")[0].removesuffix(".py") for name in files}


def _inside(part: _Part | None) -> _Part:
    if part is None:
        raise RuntimeError("a Serving is used inside its context only")
    return part


def _texts(log: Log) -> tuple[str, str]:
    """Start and end of a log as harmless text; the start is empty where the end holds all of it."""
    head, tail = printable(log.head), printable(log.tail or log.head)
    whole = not log.tail and len(head) <= _LOG_CHARACTERS
    return "" if whole else head[:_LOG_CHARACTERS], tail[-_LOG_CHARACTERS:]
