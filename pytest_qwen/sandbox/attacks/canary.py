"""What nothing in a sandbox may get hold of, and the eyes that watch a sandbox from outside it."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from pytest_qwen.sandbox.base import MIB, SandboxFault

if TYPE_CHECKING:
    from docker import DockerClient

VARIABLE = "PYTEST_QWEN_CANARY"
_PROC = Path("/proc")


class Named(Protocol):
    """A container, known by the engine's name for it."""

    @property
    def id(self) -> str:
        """The engine's identifier."""


class NotChecked(Exception):
    """What an attack would show cannot be seen on this machine; the text says why."""


class Canary:
    """A secret in this process's environment and in a file, listeners on every address of this machine, and
    the engine's own view of its containers. Use as a context manager.

    `hits` are the connections and datagrams that reached the listeners.
    """

    def __init__(self, client: DockerClient) -> None:
        self._client = client
        self._ends = contextlib.ExitStack()
        self.token = f"canary-{secrets.token_hex(16)}"
        self.hits: list[str] = []
        self.file = Path()
        self.port = 0

    def __enter__(self) -> Canary:
        with contextlib.ExitStack() as ends:
            folder = ends.enter_context(tempfile.TemporaryDirectory(prefix="pytest-qwen-canary-"))
            self.file = Path(folder) / "secret"
            self.file.write_text(self.token, encoding="utf-8")
            Path(folder).chmod(0o755)
            self.file.chmod(0o644)  # so that only the sandbox keeps anybody from it
            os.environ[VARIABLE] = self.token
            ends.callback(os.environ.pop, VARIABLE, None)
            self._listen(ends)
            self._ends = ends.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ends.close()

    def _listen(self, ends: contextlib.ExitStack) -> None:
        stream = ends.enter_context(socket.create_server(("0.0.0.0", 0)))  # noqa: S104 - that is the point
        self.port = stream.getsockname()[1]
        datagrams = ends.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        datagrams.bind(("0.0.0.0", self.port))  # noqa: S104
        over = threading.Event()
        stream.settimeout(0.2)
        datagrams.settimeout(0.2)

        def take(sock: socket.socket) -> None:
            while not over.is_set():
                try:
                    if sock is stream:
                        connection, address = stream.accept()
                        connection.close()
                    else:
                        _, address = datagrams.recvfrom(4096)
                except TimeoutError:
                    continue
                self.hits.append(f"{'TCP' if sock is stream else 'UDP'} from {address[0]}")

        for sock in (stream, datagrams):
            thread = threading.Thread(target=take, args=(sock,), daemon=True)
            thread.start()
            ends.callback(thread.join)
        ends.callback(over.set)

    def addresses(self) -> list[str]:
        """Every IPv4 address of this machine."""
        try:
            table = (_PROC / "net/fib_trie").read_text(encoding="ascii")
        except OSError:
            return ["127.0.0.1"]
        return sorted(set(re.findall(r"\|-- ([\d.]+)\n\s+/32 host LOCAL", table))) or ["127.0.0.1"]

    def outside(self) -> list[str]:
        """The addresses that lead out of a container: this machine's without its loopback."""
        return [address for address in self.addresses() if not address.startswith("127.")]

    def inspect(self, container: Named) -> dict[str, Any]:
        """All that the engine knows of a container."""
        with self._faults("looking at a container"):
            return dict(self._client.api.inspect_container(container.id))

    def written_bytes(self, container: Named) -> int:
        """What a container has written to its root file system, by the engine's count."""
        with self._faults("asking for a container's size"):
            listed = self._client.api.containers(all=True, size=True, filters={"id": container.id})
        return int(listed[0].get("SizeRw") or 0) if listed else 0

    def processes(self, container: Named) -> list[int]:
        """The container's processes by the engine's own list, as this machine numbers them."""
        with self._faults("listing a container's processes"):
            found = self._client.api.top(container.id)
        column = [title.upper() for title in found["Titles"]].index("PID")
        return [int(row[column]) for row in found["Processes"]]

    def cpu_share(self, container: Named) -> float:
        """How many CPUs' worth a container used over the last second."""
        with self._faults("asking for a container's use of CPU"):
            seen = self._client.api.stats(container.id, stream=False)
        now, before = seen["cpu_stats"], seen["precpu_stats"]
        used_ns = now["cpu_usage"]["total_usage"] - before["cpu_usage"]["total_usage"]
        read_s, before_s = _seconds(seen["read"]), _seconds(seen["preread"])
        return float(used_ns / 1e9 / max(0.1, (read_s - before_s) % 60))

    def left(self, container: Named) -> list[str]:
        """What is left of a removed container: its entry with the engine, its processes on this machine."""
        with self._faults("listing containers"):
            entries = self._client.api.containers(all=True, filters={"id": container.id})
        return [f"container {entry['Id'][:12]}" for entry in entries] + [
            f"process {pid}" for pid in _of_group(container.id)
        ]

    def log_bytes(self, container: Named) -> int:
        """What the engine keeps of a container's output on this machine's disk.

        Raises NotChecked when that cannot be seen from here.
        """
        found = self.inspect(container)
        with self._faults("asking for its folder"):
            root = Path(self._client.info().get("DockerRootDir") or "/var/lib/docker")
        named = [found.get("LogPath"), found["HostConfig"]["LogConfig"].get("Path")]
        folders = [root / "containers" / container.id, *(Path(path).parent for path in named if path)]
        for folder in folders:
            with contextlib.suppress(OSError):
                sizes = [file.stat().st_size for file in folder.rglob("*") if file.is_file()]
                if sizes:
                    return sum(sizes)
        raise NotChecked(f"the engine's folder of logs ({folders[0]}) cannot be read from here")

    def free_bytes(self) -> int:
        """Free space where the engine keeps its containers, or of this machine's root."""
        with self._faults("asking for its folder"):
            root = Path(self._client.info().get("DockerRootDir") or "/")
        seen = os.statvfs(root if root.exists() else "/")
        return seen.f_bavail * seen.f_frsize

    def status(self, container: Named) -> dict[str, str]:
        """What the kernel says of a running container's first process; NotChecked where that is elsewhere."""
        pid = self.inspect(container)["State"]["Pid"]
        if not pid or pid not in _of_group(container.id):
            raise NotChecked("the container's processes cannot be seen from here: its engine runs elsewhere")
        lines = (_PROC / str(pid) / "status").read_text(encoding="utf-8").splitlines()
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}

    def silent_s(self) -> float:
        """How long the engine takes to answer the simplest question."""
        begun_s = time.monotonic()
        with self._faults("asking whether it is there"):
            self._client.ping()
        return time.monotonic() - begun_s

    @contextlib.contextmanager
    def _faults(self, doing: str) -> Iterator[None]:
        from docker.errors import DockerException

        try:
            yield
        except (DockerException, OSError) as error:
            raise SandboxFault(f"the engine failed while it was {doing}: {error}") from error


def found(*findings: tuple[bool, str]) -> str | None:
    """What got out, of (whether it did, what) pairs; None when all of it was contained."""
    return "; ".join(what for got_out, what in findings if got_out) or None


def mib(count: float) -> str:
    """Bytes for people."""
    return f"{count / MIB:.1f} MiB"


def _of_group(identifier: str) -> list[int]:
    """This machine's processes in a control group named after a container."""
    pids = []
    for folder in _PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if identifier in (folder / "cgroup").read_text(encoding="utf-8"):
                pids.append(int(folder.name))
    return pids


def _seconds(stamp: str) -> float:
    """The seconds of a minute in "2026-01-31T10:20:30.123456789Z"."""
    return float(stamp.rstrip("Z").rpartition(":")[2][:12])
