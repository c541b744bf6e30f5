"""Process 1 of a container: takes the job from standard input, runs it, ends everything when it ends.

Reads a JSON line {"argv", "tar_bytes", "lifetime_s", "stdin": "watch" or "pass"}, then so many bytes of tar,
which it unpacks below /work. With "watch" the end of standard input ends the container: it closes when the
process that started it dies, however that dies. Signals from inside cannot end process 1.
"""

from __future__ import annotations

import ctypes
import io
import json
import os
import select
import signal
import sys
import tarfile
import time
from typing import Any

PR_SET_DUMPABLE = 4
WORK = "/work"


def exactly(count: int) -> bytes:
    """So many bytes of standard input, unbuffered: what follows belongs to the job."""
    parts = []
    while count:
        part = os.read(0, min(count, 1 << 20))
        if not part:
            sys.exit("launch: the input ended before the job was there")
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def header() -> Any:
    """What is to be run."""
    line = b""
    while not line.endswith(b"\n"):
        line += exactly(1)
    return json.loads(line)


def unpack(packed: bytes) -> None:
    """Regular files below /work; anything else of the tar is passed over."""
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        for member in tar:
            path = os.path.normpath(os.path.join(WORK, member.name))
            content = tar.extractfile(member) if member.isreg() else None
            if content is None or not path.startswith(WORK + "/"):
                continue
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(content.read())


def child(job: Any) -> None:
    """In the new process: the job's own session, input, environment and folder."""
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGPIPE, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    if job["stdin"] == "watch":
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
    os.chdir(WORK)
    try:
        os.execvp(job["argv"][0], job["argv"])  # noqa: S606 - the job itself
    except OSError as error:
        os.write(2, f"launch: {job['argv'][0]}: {error.strerror}\n".encode())
    os._exit(127)


def watch(main: int, job: Any) -> int:
    """Until the job's main process has ended, its time is over, or nobody holds the input any more."""
    deadline = time.monotonic() + job["lifetime_s"]
    wake, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _frame: os.kill(main, number))
    watched = [wake] + ([0] if job["stdin"] == "watch" else [])
    while True:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return 1
            if pid == 0:
                break
            if pid == main:
                return os.waitstatus_to_exitcode(status)
        left = deadline - time.monotonic()
        if left <= 0:
            return 137
        ready, _, _ = select.select(watched, [], [], left)
        if wake in ready:
            os.read(wake, 4096)
        if 0 in ready and not os.read(0, 4096):
            return 137


def main() -> None:
    """Run the job and end as it ends."""
    job = header()
    unpack(exactly(job["tar_bytes"]))
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    pid = os.fork()
    if pid == 0:
        child(job)
    code = watch(pid, job)
    os._exit(code if code >= 0 else 128 - code)


main()
