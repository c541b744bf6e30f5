"""One session a device: a file lock that the kernel releases when its holder dies."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from pytest_qwen.errors import Unavailable, explain

_POLL_S = 0.2


def runtime_directory() -> Path:
    """This user's private directory for locks, made if need be.

    Raises Unavailable when it cannot be made or belongs to somebody else.
    """
    given = os.environ.get("XDG_RUNTIME_DIR")
    directory = Path(given or tempfile.gettempdir()) / f"pytest-qwen-{os.getuid()}"
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
        owner = directory.lstat().st_uid
    except OSError as error:
        raise Unavailable(
            explain(
                "the directory for device locks cannot be made",
                asked=str(directory),
                found=str(error),
                next_step="set XDG_RUNTIME_DIR or TMPDIR to a directory that you may write to",
            )
        ) from error
    if owner != os.getuid() or directory.is_symlink():
        raise Unavailable(
            explain(
                "the directory for device locks is not ours",
                asked=str(directory),
                found=f"owned by user {owner}",
                next_step="remove it or set XDG_RUNTIME_DIR",
            )
        )
    return directory


class DeviceLock:
    """The lock of one device ("cpu" or a GPU's UUID) or endpoint (its URL): two who time it time each other.

    Another process that asks waits; two locks of one process exclude each other too. Not for threads.
    """

    def __init__(
        self,
        device: str,
        *,
        directory: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Nothing is taken yet. `directory` is `runtime_directory()` when None."""
        self.device = device
        self._directory = directory
        self._clock = clock
        self._sleep = sleep
        self._fd: int | None = None

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._fd is not None

    def acquire(self, timeout_s: float, on_wait: Callable[[str], None] | None = None) -> None:
        """Take the lock, waiting up to `timeout_s`; `on_wait` is told once who holds it.

        Does nothing when it is held already. Raises Unavailable, which names the holder.
        """
        if self.held:
            return
        name = re.sub(r"[^\w.-]", "_", self.device)
        path = (self._directory or runtime_directory()) / f"device-{name}.lock"
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise Unavailable(
                explain("the device lock cannot be opened", asked=str(path), found=str(error))
            ) from error
        try:
            self._wait(fd, timeout_s, on_wait)
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd
        with contextlib.suppress(OSError):  # a full disk: the lock holds without its holder's number
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}".encode(), 0)

    def release(self) -> None:
        """Give the lock back; safe to call twice. The file stays: without it two could hold the lock."""
        if self._fd is not None:
            os.ftruncate(self._fd, 0)
            os.close(self._fd)
            self._fd = None

    def _wait(self, fd: int, timeout_s: float, on_wait: Callable[[str], None] | None) -> None:
        deadline = self._clock() + timeout_s
        told = False
        while not _try_lock(fd):
            holder = _holder(fd)
            if self._clock() >= deadline:
                raise Unavailable(
                    explain(
                        f"device {self.device!r} is in use by another test session",
                        asked=f"to be alone on it within {timeout_s:g} s",
                        found=f"held by {holder}",
                        next_step="wait for that session, or use one xdist worker a device",
                    )
                )
            if on_wait is not None and not told:
                on_wait(f"waiting for device {self.device!r}, held by {holder}")
                told = True
            self._sleep(_POLL_S)


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(fd: int) -> str:
    """Who wrote its process id into the lock, with its command line where it can be read."""
    pid = os.pread(fd, 32, 0).decode(errors="replace").strip()
    if not pid.isdigit():
        return "an unknown process"
    try:
        command = (
            Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        )
    except OSError:
        return f"pid {pid}"
    return f"pid {pid} ({command[:120]})"
