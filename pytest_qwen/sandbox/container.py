"""The sandbox on a container engine: every job in a container of its own, hardened, labelled and removed."""

from __future__ import annotations

import contextlib
import io
import json
import socket
import struct
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pytest_qwen.errors import Unavailable, explain
from pytest_qwen.sandbox.base import MIB, Container, Job, Log, Output, SandboxFault, State
from pytest_qwen.sandbox.engines import close_sockets_of, old_runtime
from pytest_qwen.sandbox.owners import LABEL, labels_for, left_behind
from pytest_qwen.sandbox.seccomp import profile_text
from pytest_qwen.sandbox.tools import script

if TYPE_CHECKING:
    from docker import DockerClient

USER = "65534:65534"
_KEPT_LOG_BYTES = 64 << 10
_LAUNCH = script("launch.py").decode()
_ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": "/tmp",  # noqa: S108 - inside the container, where it is a file system of its own
    "LANG": "C.UTF-8",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONUNBUFFERED": "1",
    "OMP_NUM_THREADS": "1",
}
_HEADER = struct.Struct(">BxxxL")  # of a piece of an attached stream: 1 output, 2 errors; its length
_STDOUT = 1


@contextlib.contextmanager
def engine_faults(doing: str) -> Iterator[None]:
    """What the engine or its SDK raises as a SandboxFault that says what was being done."""
    import requests
    import urllib3
    from docker.errors import DockerException

    try:
        yield
    except (DockerException, requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
        close_sockets_of(error)
        raise SandboxFault(
            explain(
                "the container engine broke down",
                asked=doing,
                found=f"{type(error).__name__}: {error}",
                slip="it was stopped, is out of disk, or refuses an option",
                next_step="pytest-qwen sandbox check",
            )
        ) from error


class ContainerSandbox:
    """Runs jobs on a Docker-compatible engine. Safe to use from several threads."""

    def __init__(
        self,
        client: DockerClient,
        image: str,
        *,
        session: str,
        worker: str = "main",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._image = image
        self._session = session
        self._worker = worker
        self._clock = clock
        self._lock = threading.Lock()
        self._open: dict[str, _Started] = {}
        self._closed = False
        self._version: Mapping[str, Any] | None = None

    def facts(self) -> Mapping[str, str]:
        """Engine, runtime and their versions, and a warning where the runtime is old."""
        parts = {one["Name"]: one.get("Version", "?") for one in self._versions().get("Components") or ()}
        wanted = {"Engine": "docker", "Podman Engine": "podman", "runc": "runc", "crun": "crun"}
        found = {short: parts[name] for name, short in wanted.items() if name in parts}
        warning = old_runtime(found.get("runc", ""))
        told = {"api": str(self._versions().get("ApiVersion", "?")), "image": self._image}
        return {**found, **told, **({"warning": warning} if warning else {})}

    def start(self, job: Job) -> Container:
        """Start a job and return at once; it ends when the returned object's connection is closed."""
        return self._begin(job, talk=False)

    def talk(self, job: Job, *, beside: Container | None = None) -> _Conversation:
        """Start a job to talk to."""
        return _Conversation(self._begin(job, talk=True, beside=beside))

    def run(self, job: Job, *, timeout_s: float = 60.0, most_bytes: int = 64 * MIB) -> Output:
        """Run a job to its end."""
        started = self._begin(job, talk=True)
        try:
            with engine_faults("reading a job's output"):
                stdout, stderr, truncated = started.stream.read_all(timeout_s, most_bytes)
            if truncated:  # it is killed as it is removed; before, the engine still waits for its reader
                return Output(exit_code=137, stdout=stdout, stderr=stderr, truncated=True)
            state = started.wait(5.0)
            if state.running or state.exit_code is None:
                raise SandboxFault(f"{job.argv[0]} closed its output and did not end")
            return Output(exit_code=state.exit_code, stdout=stdout, stderr=stderr)
        finally:
            started.remove()

    def sweep(self) -> int:
        """Remove what dead or expired sessions left behind."""
        return sweep(self._client, self._clock())

    def close(self) -> None:
        """Remove everything that this sandbox started."""
        with self._lock:
            self._closed = True
            left = list(self._open.values())
        for started in left:
            with contextlib.suppress(SandboxFault):  # then it ends by itself, and the next sweep finds it
                started.remove()

    def _versions(self) -> Mapping[str, Any]:
        if self._version is None:
            with engine_faults("asking for its version"):
                self._version = self._client.version()
        return self._version

    def _begin(self, job: Job, *, talk: bool, beside: Container | None = None) -> _Started:
        from docker.errors import ImageNotFound

        with engine_faults(f"starting a {job.role}"):
            try:
                made = self._client.api.create_container(
                    self._image,
                    ["python3", "-I", "-S", "-c", _LAUNCH],
                    hostname=None if beside else "guest",
                    user=USER,
                    stdin_open=True,
                    environment={**_ENVIRONMENT, **job.env},
                    labels=labels_for(
                        self._session, self._worker, job.role, self._clock() + job.limits.lifetime_s
                    ),
                    working_dir="/work",
                    host_config=self._host_config(job, talk=talk, beside=beside),
                )
            except ImageNotFound as error:
                raise Unavailable(
                    explain(
                        "the guest image is not there",
                        asked=self._image,
                        next_step="pytest-qwen sandbox build",
                    )
                ) from error
            started = _Started(self._client, made["Id"], self._forget)
            with self._lock:
                self._open[started.id] = started
            try:
                if self._closed:
                    raise SandboxFault("this sandbox is closed")
                started.launch(job, talk=talk)
            except BaseException:
                started.remove()
                raise
        return started

    def _forget(self, started: _Started) -> None:
        with self._lock:
            self._open.pop(started.id, None)

    def _host_config(self, job: Job, *, talk: bool, beside: Container | None) -> Any:
        from docker.types import LogConfig, Ulimit

        limits = job.limits
        uid, gid = USER.split(":")
        podman = "podman" in self.facts()
        log = (
            LogConfig(type="none")
            if talk
            else LogConfig(
                type="k8s-file" if podman else "local",
                # Docker keeps the file before the current one too, whatever it is told.
                config={"max-size": f"{limits.log_bytes >> 10}k"}
                if podman
                else {"max-size": f"{limits.log_bytes >> 11}k", "max-file": "1", "compress": "false"},
            )
        )
        return self._client.api.create_host_config(
            network_mode=f"container:{beside.id}" if beside else "none",
            read_only=True,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges:true", f"seccomp={profile_text()}"],
            mem_limit=limits.memory_bytes,
            memswap_limit=limits.memory_bytes,
            nano_cpus=int(limits.cpus * 1e9),
            pids_limit=limits.pids,
            ulimits=[
                Ulimit(name="nofile", soft=limits.nofile, hard=limits.nofile),
                Ulimit(name="fsize", soft=limits.file_bytes, hard=limits.file_bytes),
                Ulimit(name="core", soft=0, hard=0),
            ],
            tmpfs={
                "/tmp": f"size={limits.tmp_bytes},mode=1777,nosuid,nodev",  # noqa: S108 - the container's
                "/work": f"size={limits.work_bytes},mode=0700,uid={uid},gid={gid},nosuid,nodev",
            },
            shm_size=limits.shm_bytes,
            ipc_mode="private",
            log_config=log,
            restart_policy={"Name": "no"},
        )


def sweep(client: DockerClient, now_s: float | None = None) -> int:
    """Remove containers of dead or expired sessions; the number of those removed."""
    from docker.errors import APIError

    removed = 0
    with engine_faults("looking for what dead sessions left"):
        for found in client.api.containers(all=True, filters={"label": f"{LABEL}.session"}):
            if left_behind(found["Labels"], time.time() if now_s is None else now_s):
                with contextlib.suppress(APIError):  # another sweep was quicker
                    client.api.remove_container(found["Id"], force=True, v=True)
                    removed += 1
    return removed


class _Started:
    """One container, and the connection to its standard input that keeps it alive."""

    def __init__(self, client: DockerClient, identifier: str, forget: Callable[[_Started], None]) -> None:
        self.id: str = identifier
        self._client = client
        self._forget = forget
        self._removed = False
        self.stream: _Stream

    def launch(self, job: Job, *, talk: bool) -> None:
        """Connect, start, hand over the job."""
        api = self._client.api
        wanted = {"stdin": 1, "stream": 1, **({"stdout": 1, "stderr": 1} if talk else {})}
        self.stream = _Stream(api.attach_socket(self.id, params=wanted))
        api.start(self.id)
        content = _tar(job.files)
        header = {
            "argv": list(job.argv),
            "tar_bytes": len(content),
            "lifetime_s": job.limits.lifetime_s,
            "stdin": "pass" if talk else "watch",
        }
        self.stream.write(json.dumps(header).encode() + b"\n" + content)

    def state(self) -> State:
        """Look now."""
        from docker.errors import NotFound

        with engine_faults("looking at a container"):
            try:
                found = self._client.api.inspect_container(self.id)["State"]
            except NotFound:
                return State(running=False, exit_code=137)
        running = bool(found["Running"])
        return State(
            running=running,
            pid=found.get("Pid") or None,
            started_at=found.get("StartedAt", ""),
            exit_code=None if running else int(found.get("ExitCode", 0)),
        )

    def wait(self, timeout_s: float) -> State:
        """Look until it has ended or the time is over."""
        deadline = time.monotonic() + timeout_s
        while (state := self.state()).running and time.monotonic() < deadline:
            time.sleep(0.03)
        return state

    def log(self) -> Log:
        """Standard output and error so far: both ends of it."""
        head, tail, whole = b"", b"", 0
        with engine_faults("reading a log"):
            stream = self._client.api.logs(self.id, stdout=True, stderr=True, stream=True, follow=False)
            for piece in stream:
                whole += len(piece)
                room = _KEPT_LOG_BYTES - len(head)
                head += piece[:room]
                tail = (tail + piece[max(room, 0) :])[-_KEPT_LOG_BYTES:]
        return Log(head=head, tail=tail, dropped_bytes=whole - len(head) - len(tail))

    def resident_bytes(self) -> int | None:
        """Resident memory of all its processes; None where the engine's `top` does not tell."""
        from docker.errors import APIError

        try:
            with engine_faults("asking for memory"):
                found = self._client.api.top(self.id, ps_args="-eo pid,rss")
            column = [title.upper() for title in found["Titles"]].index("RSS")
            return sum(int(row[column]) for row in found["Processes"]) << 10
        except (SandboxFault, ValueError, KeyError, TypeError, APIError):
            return None

    def signal(self, name: str) -> None:
        """Send a signal; nothing happens when it has ended."""
        from docker.errors import APIError

        with engine_faults(f"sending {name}"), contextlib.suppress(APIError):
            self._client.api.kill(self.id, signal=name)

    def remove(self) -> None:
        """Kill and delete it at once."""
        from docker.errors import APIError

        if self._removed:
            return
        self._removed = True
        if hasattr(self, "stream"):
            self.stream.close()
        try:
            with engine_faults("removing a container"), contextlib.suppress(APIError):
                self._client.api.remove_container(self.id, force=True, v=True)
        finally:
            self._forget(self)


class _Stream:
    """The connection to a container: what is written is its input, what comes is its output, in pieces."""

    def __init__(self, attached: Any) -> None:
        self._attached = attached
        self._socket: socket.socket = getattr(attached, "_sock", attached)
        self._buffer = bytearray()  # of the connection, not yet a whole piece
        self.stdout = bytearray()
        self.stderr = bytearray()
        self.ended = False

    def write(self, content: bytes) -> None:
        """Send all of it."""
        self._socket.settimeout(60.0)
        self._socket.sendall(content)

    def more(self, deadline: float) -> bool:
        """Wait for some output; False when the time is over. Sets `ended` at its end."""
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        self._socket.settimeout(left)
        try:
            part = self._socket.recv(1 << 18)
        except TimeoutError:
            return False
        self.ended = not part
        self._buffer += part
        while len(self._buffer) >= _HEADER.size:
            kind, length = _HEADER.unpack_from(self._buffer)
            if len(self._buffer) < _HEADER.size + length:
                break
            piece = self._buffer[_HEADER.size : _HEADER.size + length]
            del self._buffer[: _HEADER.size + length]
            if kind == _STDOUT:
                self.stdout += piece
            else:
                self.stderr += piece[: max(0, _KEPT_LOG_BYTES - len(self.stderr))]
        return True

    def read_all(self, timeout_s: float, most_bytes: int) -> tuple[bytes, bytes, bool]:
        """Output and errors to the end, and whether there was more output than allowed."""
        deadline = time.monotonic() + timeout_s
        while not self.ended and len(self.stdout) <= most_bytes:
            if not self.more(deadline):
                raise SandboxFault(f"a job did not end within {timeout_s:g} s")
        return bytes(self.stdout[:most_bytes]), bytes(self.stderr), len(self.stdout) > most_bytes

    def close(self) -> None:
        """Let the container's input end."""
        for part in (getattr(self._attached, "_response", None), self._attached, self._socket):
            if part is not None:
                with contextlib.suppress(OSError, ValueError):  # ValueError: closed by the part before it
                    part.close()


class _Conversation:
    """A container that is talked to, a line at a time."""

    def __init__(self, started: _Started) -> None:
        self.container: Container = started
        self._started = started
        self._stream = started.stream

    def send(self, line: bytes) -> None:
        """Write one line."""
        with engine_faults("talking to a container"):
            self._stream.write(line + b"\n")

    def receive(self, timeout_s: float, *, most_bytes: int = 64 * MIB) -> bytes:
        """The next line of its output."""
        deadline, searched = time.monotonic() + timeout_s, 0
        while (end := self._stream.stdout.find(b"\n", searched)) < 0:
            searched = len(self._stream.stdout)
            if searched > most_bytes:
                raise SandboxFault(f"a line of more than {most_bytes} bytes came")
            with engine_faults("listening to a container"):
                came = self._stream.more(deadline)
            if self._stream.ended:
                said = bytes(self._stream.stderr[-2000:]).decode(errors="replace").strip()
                raise SandboxFault(f"the job ended before it answered: {said or 'it said nothing'}")
            if not came:
                raise SandboxFault(f"no answer within {timeout_s:g} s")
        line = bytes(self._stream.stdout[:end])
        del self._stream.stdout[: end + 1]
        return line

    def close(self) -> None:
        """Remove the container."""
        self._started.remove()


def _tar(files: Mapping[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o644
            tar.addfile(member, io.BytesIO(content))
    return packed.getvalue()
