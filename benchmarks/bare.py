"""The sandbox's contract on plain processes, to measure what a container costs. It contains nothing.

Only for answers that this repository wrote itself. Each job gets a network of its own (`unshare --net`, so
root is needed), because every server listens on the same port.
"""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from pytest_qwen.sandbox.base import MIB, Container, Job, Log, Output, SandboxFault, State

_LOOPBACK_UP = (
    "import fcntl,os,socket,struct,sys;"
    "s=socket.socket();fcntl.ioctl(s,0x8914,struct.pack('16sH14x',b'lo',0x49));s.close();"
    "os.execvp(sys.argv[1],sys.argv[1:])"
)


_CGROUPS = Path("/sys/fs/cgroup")
_PERIOD_US = 100_000
# Puts itself into a control group and becomes what it was given.
_JOIN = ("sh", "-c", 'echo $$ >"$0" && exec "$@"')


class CpuShare:
    """A control group with a limit of processor time, in either version of the kernel's interface."""

    def __init__(self, name: str, cpus: float) -> None:
        old = _CGROUPS / "cpu"
        self._folder = (old if old.is_dir() else _CGROUPS) / f"pytest-qwen-{name}"
        self._folder.mkdir()
        quota_us = int(cpus * _PERIOD_US)
        if old.is_dir():
            (self._folder / "cpu.cfs_period_us").write_text(str(_PERIOD_US))
            (self._folder / "cpu.cfs_quota_us").write_text(str(quota_us))
        else:
            (self._folder / "cpu.max").write_text(f"{quota_us} {_PERIOD_US}")
        self.join = (*_JOIN, str(self._folder / "cgroup.procs"))

    def remove(self) -> None:
        for _ in range(50):  # what was killed leaves it a moment later
            try:
                self._folder.rmdir()
                return
            except FileNotFoundError:
                return
            except OSError:
                time.sleep(0.02)


def _network(process: int | str) -> str:
    try:
        return str(Path(f"/proc/{process}/ns/net").readlink())
    except OSError:  # it has just ended
        return ""


class BareContainer:
    """One process in a folder of its own."""

    def __init__(self, job: Job, packages: str, *, beside: BareContainer | None, talk: bool) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="bare-"))
        for name, content in job.files.items():
            target = self.folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        environment = {name: value.replace("/work", str(self.folder)) for name, value in job.env.items()}
        environment |= {"PATH": os.environ["PATH"], "HOME": str(self.folder), "OMP_NUM_THREADS": "1"}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (environment.get("PYTHONPATH"), packages)))
        network = ["nsenter", f"--net=/proc/{beside.process.pid}/ns/net"] if beside else ["unshare", "--net"]
        argv = [sys.executable if part in {"python", "python3"} else part for part in job.argv]
        argv = [part for part in argv if part != "-I"]
        up = [] if beside else [sys.executable, "-c", _LOOPBACK_UP]
        self.id = self.folder.name
        self._share = CpuShare(self.id, job.limits.cpus)
        self._log = (self.folder / ".log").open("wb")
        self.process: subprocess.Popen[bytes] = subprocess.Popen(
            [*self._share.join, *network, *up, *argv],
            cwd=self.folder,
            env=environment,
            stdin=subprocess.PIPE if talk else subprocess.DEVNULL,
            stdout=subprocess.PIPE if talk else self._log,
            stderr=self._log,
            start_new_session=True,
        )
        self.started = str(time.time())
        while not beside and self.process.poll() is None and _network(self.process.pid) == _network("self"):
            time.sleep(0.001)  # what is started beside it must not end up in our own network

    def state(self) -> State:
        code = self.process.poll()
        if code is None:
            return State(running=True, pid=self.process.pid, started_at=self.started)
        return State(running=False, started_at=self.started, exit_code=code if code >= 0 else 128 - code)

    def wait(self, timeout_s: float) -> State:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout_s)
        return self.state()

    def log(self) -> Log:
        return Log(head=(self.folder / ".log").read_bytes()[: 64 << 10])

    def resident_bytes(self) -> int | None:
        try:
            status = Path(f"/proc/{self.process.pid}/statm").read_text()
        except OSError:
            return None
        return int(status.split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def signal(self, name: str) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.Signals[name])

    def remove(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self._log):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        self._share.remove()
        shutil.rmtree(self.folder, ignore_errors=True)


class BareConversation:
    """A process that is talked to."""

    def __init__(self, container: BareContainer) -> None:
        self.container: Container = container
        self._process = container.process
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with contextlib.suppress(ValueError, OSError):
            for line in self._process.stdout:
                self._lines.put(line)
        self._lines.put(b"")

    def send(self, line: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + b"\n")
        self._process.stdin.flush()

    def receive(self, timeout_s: float, *, most_bytes: int = 64 * MIB) -> bytes:  # noqa: ARG002
        try:
            line = self._lines.get(timeout=timeout_s)
        except queue.Empty:
            raise SandboxFault("no line in time") from None
        if not line:
            raise SandboxFault(f"it ended: {self.container.log().head[-2000:].decode(errors='replace')}")
        return line.rstrip(b"\n")

    def close(self) -> None:
        self.container.remove()


class BareSandbox:
    """Starts jobs as plain processes with the packages of one folder."""

    def __init__(self, packages: str = "") -> None:
        self._packages = packages
        self._made: list[BareContainer] = []

    def facts(self) -> Mapping[str, str]:
        return {"engine": "none: plain processes"}

    def start(self, job: Job) -> Container:
        self._made.append(BareContainer(job, self._packages, beside=None, talk=False))
        return self._made[-1]

    def talk(self, job: Job, *, beside: Container | None = None) -> BareConversation:
        assert beside is None or isinstance(beside, BareContainer)
        self._made.append(BareContainer(job, self._packages, beside=beside, talk=True))
        return BareConversation(self._made[-1])

    def run(self, job: Job, *, timeout_s: float = 60.0, most_bytes: int = 64 * MIB) -> Output:
        container = BareContainer(job, self._packages, beside=None, talk=True)
        try:
            out, _ = container.process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            raise SandboxFault("it did not end in time") from None
        finally:
            log = container.log().head
            container.remove()
        return Output(
            exit_code=container.process.returncode,
            stdout=out[:most_bytes],
            stderr=log,
            truncated=len(out) > most_bytes,
        )

    def sweep(self) -> int:
        return 0

    def close(self) -> None:
        for container in self._made:
            container.remove()
