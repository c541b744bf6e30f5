"""The contract of a sandbox: what may be run in one, under which limits, and what can be seen of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from pytest_qwen.errors import QwenError

MIB = 1 << 20


class SandboxFault(QwenError):
    """The sandbox itself broke down (engine gone, disk full): never counted against the program in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one container may use. Bytes and seconds; `lifetime_s` ends it from inside, whatever happens."""

    memory_bytes: int = 2048 * MIB
    cpus: float = 1.0
    pids: int = 128
    nofile: int = 1024
    file_bytes: int = 256 * MIB
    tmp_bytes: int = 256 * MIB
    work_bytes: int = 64 * MIB
    shm_bytes: int = 16 * MIB
    log_bytes: int = 10 * MIB
    lifetime_s: float = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What runs in one container: `argv` as the unprivileged user, in /work, with no environment but `env`.

    `files` (relative path → content) are handed over through the container's input and unpacked below /work
    before `argv` starts: nothing of the host is mounted. `role` only labels it.
    """

    argv: tuple[str, ...]
    files: Mapping[str, bytes] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    limits: Limits = Limits()
    role: Literal["guest", "probe", "tool"] = "guest"


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """One look at a container from outside, by its engine. `pid` and `started_at` tell a restart."""

    running: bool
    pid: int | None = None
    started_at: str = ""
    exit_code: int | None = None

    @property
    def ended(self) -> str | None:
        """How it ended: "killed" by SIGKILL (a limit, the watchdog), else "exited"; None while running."""
        if self.running:
            return None
        return "killed" if self.exit_code == 137 else "exited"


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """What a container wrote: up to 64 KiB from either end, `dropped_bytes` between them."""

    head: bytes
    tail: bytes = b""
    dropped_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """What a job that ran to its end gave. `truncated` when it wrote more than it was allowed to."""

    exit_code: int
    stdout: bytes
    stderr: bytes
    truncated: bool = False


class Container(Protocol):
    """A started job. Every method may raise SandboxFault when the engine fails, never for what is inside."""

    id: str

    def state(self) -> State:
        """Look now."""

    def wait(self, timeout_s: float) -> State:
        """Look until it has ended or the time is over."""

    def log(self) -> Log:
        """Standard output and error so far, as one stream."""

    def resident_bytes(self) -> int | None:
        """Resident memory of all its processes now; None where the engine cannot tell."""

    def signal(self, name: str) -> None:
        """Send a signal ("SIGTERM") to its main program; nothing happens when it has ended."""

    def remove(self) -> None:
        """Kill and delete it at once; safe to call twice."""


class Conversation(Protocol):
    """A container that is talked to over its standard input and output, a line at a time."""

    container: Container

    def send(self, line: bytes) -> None:
        """Write one line (without its newline)."""

    def receive(self, timeout_s: float, *, most_bytes: int = 64 * MIB) -> bytes:
        """The next line of its output. Raises SandboxFault when none comes in time or it is too long."""

    def close(self) -> None:
        """Remove the container; safe to call twice."""


class Sandbox(Protocol):
    """Where programs that nobody trusts run.

    A container has no network but its own loopback, a read-only root, no capabilities, an unprivileged user,
    its own seccomp profile, and ends when the process that made it ends.
    """

    def facts(self) -> Mapping[str, str]:
        """Engine, runtime and their versions, for headers and records."""

    def start(self, job: Job) -> Container:
        """Start a job and return at once."""

    def talk(self, job: Job, *, beside: Container | None = None) -> Conversation:
        """Start a job to talk to; `beside` shares that container's network, and nothing else of it."""

    def run(self, job: Job, *, timeout_s: float = 60.0, most_bytes: int = 64 * MIB) -> Output:
        """Run a job to its end. Raises SandboxFault when it does not end in time."""

    def sweep(self) -> int:
        """Remove what dead or expired sessions left behind; the number of containers removed."""

    def close(self) -> None:
        """Remove everything that this sandbox started; safe to call twice."""
