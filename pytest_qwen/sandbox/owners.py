"""Whose a container is, written on it: what dead sessions left can be told from what live ones use."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

LABEL = "pytest-qwen"
_GRACE_S = 60.0  # after its deadline, for a clock that differs a little


def labels_for(session: str, worker: str, role: str, deadline_s: float) -> dict[str, str]:
    """The labels of a container; `deadline_s` is in seconds since the epoch."""
    return {
        f"{LABEL}.session": session,
        f"{LABEL}.worker": worker,
        f"{LABEL}.role": role,
        f"{LABEL}.deadline": str(int(deadline_s)),
        f"{LABEL}.owner": _owner(os.getpid()),
    }


def left_behind(labels: Mapping[str, str], now_s: float) -> bool:
    """Whether nobody needs a container any more: its time is over, or its owner on this machine is dead."""
    deadline = labels.get(f"{LABEL}.deadline", "")
    if deadline.isdigit() and now_s > int(deadline) + _GRACE_S:
        return True
    place, _, owner = labels.get(f"{LABEL}.owner", "").partition(":")
    pid, _, started = owner.partition(":")
    return place == _place() and pid.isdigit() and _dead(int(pid), started)


def _owner(pid: int) -> str:
    """A process of this machine, told from any other that had its number: place, number, start time."""
    return f"{_place()}:{pid}:{_stat(pid)[1]}"


def _place() -> str:
    """Where a process number means the same process: this boot, and the namespace that numbers them.

    Sessions in containers of their own may share one engine; none of them can see whether another lives.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:  # no Linux: then nobody's death can be told, and the deadline decides
        return "unknown"


def _dead(pid: int, started: str) -> bool:
    """Whether a process has ended; one that nobody collected yet has."""
    state, now_there = _stat(pid)
    if now_there:
        return now_there != started or state in "ZX"
    return bool(started) and not _exists(pid)


def _exists(pid: int) -> bool:
    """Also true of processes that `/proc` hides from this user."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # not ours to signal, or no number of a process
        pass
    return True


def _stat(pid: int) -> tuple[str, str]:
    """A process's state and start time; empty where they cannot be read."""
    try:
        # the third field and the 22nd; the second may hold blanks, but ends with the last closing parenthesis
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return fields[0], fields[19]
    except (OSError, IndexError):
        return "", ""
