"""Says what holds on this machine: the sandbox does what it promises, and every attack is tried on it."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from pytest_qwen.errors import QwenError, explain
from pytest_qwen.escaping import escaped
from pytest_qwen.sandbox import engines, image
from pytest_qwen.sandbox.attacks import ATTACKS, Canary, NotChecked
from pytest_qwen.sandbox.attacks.running import SMALL
from pytest_qwen.sandbox.base import Job, Sandbox, SandboxFault
from pytest_qwen.sandbox.container import ContainerSandbox

if TYPE_CHECKING:
    from docker import DockerClient

_ENDS_WITHIN_S = 20.0
_SHOWN_CHARACTERS = 600
# A harness of its own: starts a job, says which container it is in, and waits to be killed.
_HARNESS = """
import sys, time
from pytest_qwen.sandbox import engines
from pytest_qwen.sandbox.base import Job
from pytest_qwen.sandbox.container import ContainerSandbox
sandbox = ContainerSandbox(engines.connect(sys.argv[1]), sys.argv[2], session="check-killed")
guest = sandbox.start(Job(argv=("python3", "-I", "-c", "import time; time.sleep(600)")))
print(guest.id, flush=True)
time.sleep(600)
"""


class SandboxBroken(QwenError):
    """A promise of the sandbox does not hold here, or an attack got out of it."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Here:
    """What is checked: a sandbox, the engine below it, and how another process finds them."""

    sandbox: Sandbox
    canary: Canary
    engine: str
    image: str


@dataclasses.dataclass(frozen=True, slots=True)
class _Result:
    """Of one promise or attack: the word that begins its line, and what else there is to say."""

    word: str
    name: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.word:<8} {self.name}{self.detail and ': '}{escaped(self.detail, _SHOWN_CHARACTERS)}"


def report(engine: str, *, say: Callable[[str], None]) -> str:
    """Check everything, a line each, and sum it up.

    Raises Unavailable without engine or image, and SandboxBroken when something got out or does not hold.
    """
    client = engines.connect(engine)
    used = image.present(client, "guest") or image.find(client, "guest-slim")
    sandbox = ContainerSandbox(client, used, session=f"check-{secrets.token_hex(8)}")
    results = []
    try:
        for line in _about(client, sandbox):
            say(line)
        with Canary(client) as canary:
            here = _Here(sandbox=sandbox, canary=canary, engine=engine, image=used)
            for result in _results(here):
                say(str(result))
                results.append(result)
    finally:
        sandbox.close()
        client.close()
    return _sum(results, used)


def _about(client: DockerClient, sandbox: Sandbox) -> Iterator[str]:
    facts = dict(sandbox.facts())
    warning = facts.pop("warning", None)
    yield ", ".join(f"{name} {value}" for name, value in facts.items())
    if warning:
        yield f"warning: {warning}"
    try:
        told = client.info().get("Warnings") or ()
    except Exception as error:  # any engine's own trouble; it is only asked for advice here
        told = (f"the engine does not describe itself ({type(error).__name__})",)
    yield from (f"warning: {escaped(str(text).removeprefix('WARNING: '))}" for text in told)


def _results(here: _Here) -> Iterator[_Result]:
    for name, promise in _PROMISES:
        yield _result(f"    {name}", "BROKEN", lambda promise=promise: promise(here))  # type: ignore[misc]
    for attack in ATTACKS:
        name = f"{attack.number:3} {attack.name} ({attack.containment})"
        run = attack.run
        yield _result(name, "ESCAPED", lambda run=run: run(here.sandbox, here.canary))  # type: ignore[misc]


def _result(name: str, bad: str, run: Callable[[], str | None]) -> _Result:
    try:
        what = run()
    except NotChecked as reason:
        return _Result("not seen", name, str(reason))
    except SandboxFault as fault:
        return _Result("FAULT", name, str(fault))
    return _Result("held", name) if what is None else _Result(bad, name, what)


def _sum(results: list[_Result], used: str) -> str:
    def those(*words: str) -> list[_Result]:
        return [result for result in results if result.word in words]

    bad = those("ESCAPED", "BROKEN", "FAULT")
    if bad:
        raise SandboxBroken(
            explain(
                f"{len(bad)} of {len(results)} checks failed: do not run generated programs here",
                asked=f"a sandbox of {used}",
                found="; ".join(f"{result.name.strip()} ({result.word})" for result in bad),
                slip="an engine that ignores some limit, or a kernel without what it needs for it",
                next_step="update the engine and its runtime, or use another engine with --engine",
            )
        )
    unseen = those("not seen")
    rest = f", {len(unseen)} could not be seen from here" if unseen else ""
    return f"{len(those('held'))} of {len(results)} checks held{rest}"


def _program(text: str, **more: object) -> Job:
    return dataclasses.replace(Job(argv=("python3", "-I", "-c", text), limits=SMALL), **more)  # type: ignore[arg-type]


def _files(here: _Here) -> str | None:
    files = {"main.py": b"print('arrived')", "deep/er/data.bin": bytes(range(256)) * 4096}
    text = "import os, hashlib; print(hashlib.sha256(open('deep/er/data.bin', 'rb').read()).hexdigest())"
    text += "; print(sorted(os.listdir('/work')), os.getcwd(), os.getuid(), end='')"
    output = here.sandbox.run(_program(text, files=files), timeout_s=_ENDS_WITHIN_S)
    expected = f"{hashlib.sha256(files['deep/er/data.bin']).hexdigest()}\n['deep', 'main.py'] /work 65534"
    return None if output.stdout.decode() == expected else f"{output.stdout!r} {output.stderr!r}"


def _ends(here: _Here) -> str | None:
    codes = {}
    for code, text in (
        (0, "pass"),
        (3, "import sys; sys.exit(3)"),
        (137, "import os; os.kill(os.getpid(), 9)"),
    ):
        codes[code] = here.sandbox.run(_program(text), timeout_s=_ENDS_WITHIN_S).exit_code
    return None if all(code == told for code, told in codes.items()) else f"exit codes as told: {codes}"


def _streams(here: _Here) -> str | None:
    text = "import sys; print('out'); print('err', file=sys.stderr)"
    output = here.sandbox.run(_program(text), timeout_s=_ENDS_WITHIN_S)
    return None if (output.stdout, output.stderr) == (b"out\n", b"err\n") else repr(output)


def _conversation(here: _Here) -> str | None:
    text = "import sys\nfor line in sys.stdin: print(line.strip()[::-1], flush=True)"
    conversation = here.sandbox.talk(_program(text))
    try:
        heard = []
        for line in (b"one", b"x" * 200_000 + b"y"):
            conversation.send(line)
            heard.append(conversation.receive(_ENDS_WITHIN_S))
    finally:
        conversation.close()
    return None if heard == [b"eno", b"y" + b"x" * 200_000] else f"{[line[:40] for line in heard]}"


def _limits(here: _Here) -> str | None:
    guest = here.sandbox.start(_program("import time; time.sleep(60)"))
    try:
        told = here.canary.inspect(guest)["HostConfig"]
    finally:
        guest.remove()
    asked = {
        "Memory": SMALL.memory_bytes,
        "MemorySwap": SMALL.memory_bytes,
        "PidsLimit": SMALL.pids,
        "ReadonlyRootfs": True,
        "Privileged": False,
    }
    wrong = {name: told.get(name) for name, value in asked.items() if told.get(name) != value}
    return f"the engine took over {wrong}" if wrong else None


def _lifetime(here: _Here) -> str | None:
    job = _program("import time; time.sleep(60)", limits=dataclasses.replace(SMALL, lifetime_s=1))
    guest = here.sandbox.start(job)
    try:
        state = guest.wait(_ENDS_WITHIN_S)
    finally:
        guest.remove()
    return None if state.ended == "killed" else f"a second after its time was over: {state}"


def _killed_harness(here: _Here) -> str | None:
    """The guest of a harness that is killed ends by itself, and a sweep removes what is left of it."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    arguments = [sys.executable, "-c", _HARNESS, here.engine, here.image]
    with subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, text=True) as harness:
        try:
            guest = _Named((harness.stdout.readline() if harness.stdout else "").strip())
        finally:
            harness.send_signal(signal.SIGKILL)
    if not guest.id:
        return "the other harness did not start"
    deadline_s = time.monotonic() + _ENDS_WITHIN_S
    while here.canary.inspect(guest)["State"]["Running"] and time.monotonic() < deadline_s:
        time.sleep(0.1)
    running = here.canary.inspect(guest)["State"]["Running"]
    here.sandbox.sweep()
    left = here.canary.left(guest)
    if running:
        return f"its guest still ran after {_ENDS_WITHIN_S:g} s"
    return f"a sweep left {', '.join(left)}" if left else None


@dataclasses.dataclass(frozen=True, slots=True)
class _Named:
    """A container of another process, by its id."""

    id: str


def _spared(here: _Here) -> str | None:
    guest = here.sandbox.start(_program("import time; time.sleep(60)"))
    try:
        here.sandbox.sweep()
        return None if guest.state().running else "a sweep removed a container that is in use"
    finally:
        guest.remove()


def _closed(here: _Here) -> str | None:
    guest = here.sandbox.start(_program("import time; time.sleep(60)"))
    guest.remove()
    guest.remove()
    left = here.canary.left(guest)
    return f"after its removal there is {', '.join(left)}" if left else None


_PROMISES: tuple[tuple[str, Callable[[_Here], str | None]], ...] = (
    ("files arrive whole, and an unprivileged user finds nothing else", _files),
    ("a program's end is told as it was", _ends),
    ("output and errors come apart", _streams),
    ("lines are passed on both ways", _conversation),
    ("the engine takes over every limit", _limits),
    ("a program ends when its time is over", _lifetime),
    ("what is removed is gone", _closed),
    ("a sweep spares what is in use", _spared),
    ("a killed harness takes its guests with it", _killed_harness),
)
