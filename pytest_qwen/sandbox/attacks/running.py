"""Runs hostile programs: as jobs that report in their log, or as servers with a probe beside them."""

from __future__ import annotations

import contextlib
import json
import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_qwen.escaping import escaped
from pytest_qwen.probing import Probe, probe_job
from pytest_qwen.sandbox.base import MIB, Container, Job, Limits, Sandbox, SandboxFault

# No property of these attacks depends on how large the limits are, only the time they take does.
SMALL = Limits(
    memory_bytes=256 * MIB,
    pids=48,
    nofile=256,
    file_bytes=64 * MIB,
    tmp_bytes=32 * MIB,
    work_bytes=16 * MIB,
    shm_bytes=8 * MIB,
    log_bytes=2 * MIB,
    lifetime_s=60,
)
_PORT = 8000
_FIRST_SIGN_S = 20.0
_MARK = b'{"report": '


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A hostile server, and the probe beside it."""

    guest: Container
    probe: Probe
    beside: Container


def job(number: int, *arguments: str, limits: Limits = SMALL) -> Job:
    """The job that runs attack `number`."""
    return Job(
        argv=("python3", "-I", "attack.py", *arguments),
        files={"attack.py": program(number)},
        limits=limits,
    )


def program(number: int) -> bytes:
    """The hostile program of an attack."""
    (file,) = Path(__file__).parent.glob(f"a{number:02}_*.py")
    return file.read_bytes()


@contextlib.contextmanager
def started(sandbox: Sandbox, number: int, *arguments: str, limits: Limits = SMALL) -> Iterator[Container]:
    """A hostile program, removed at the end."""
    guest = sandbox.start(job(number, *arguments, limits=limits))
    try:
        yield guest
    finally:
        guest.remove()


def reported(guest: Container) -> Any:
    """What a hostile program says of itself. Raises SandboxFault when that is nothing: it did not run."""
    deadline_s = time.monotonic() + _FIRST_SIGN_S
    while True:
        state = guest.state()
        log = guest.log()
        for line in (log.head + log.tail).splitlines():
            if line.startswith(_MARK):
                with contextlib.suppress(ValueError):  # not all of it has come yet
                    return json.loads(line)["report"]
        if not state.running or time.monotonic() > deadline_s:
            said = escaped(log.head.decode(errors="replace")[-160:])
            raise SandboxFault(f"the attack itself did not run (exit code {state.exit_code}): {said}")
        time.sleep(0.1)


def told(sandbox: Sandbox, number: int, *arguments: str) -> Any:
    """What a hostile program says of itself, and nothing else of it."""
    with started(sandbox, number, *arguments) as guest:
        return reported(guest)


@contextlib.contextmanager
def served(sandbox: Sandbox, number: int, *arguments: str) -> Iterator[Served]:
    """A hostile server that listens, and the real probe in a container beside it; both removed at the end."""
    with contextlib.ExitStack() as ends:
        guest = ends.enter_context(started(sandbox, number, *arguments))
        nonce = secrets.token_hex(16)
        conversation = sandbox.talk(probe_job(nonce, lifetime_s=SMALL.lifetime_s), beside=guest)
        ends.callback(conversation.close)
        probe = Probe(conversation, nonce=nonce, port=_PORT)
        deadline_s = time.monotonic() + _FIRST_SIGN_S
        while _PORT not in probe.listeners():
            if not guest.state().running or time.monotonic() > deadline_s:
                said = escaped(guest.log().head.decode(errors="replace")[-160:])
                raise SandboxFault(f"the hostile server did not start: {said}")
            time.sleep(0.1)
        yield Served(guest=guest, probe=probe, beside=conversation.container)


def unharmed(sandbox: Sandbox) -> str:
    """What is wrong with a harmless job; "" when nothing is."""
    command = ("python3", "-I", "-c", "print(sum(range(10)))")
    try:
        output = sandbox.run(Job(argv=command, limits=SMALL, role="tool"), timeout_s=30)
    except SandboxFault as fault:
        return f"a harmless job no longer runs: {fault}"
    return "" if (output.exit_code, output.stdout) == (0, b"45\n") else "a harmless job gives a wrong result"


def listed(things: Sequence[object]) -> str:
    """Things that got out, in one short line."""
    return escaped(", ".join(map(str, things)))
