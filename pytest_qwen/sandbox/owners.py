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
    owner = labels.get(f"{LABEL}.owner", "")
    boot, _, rest = owner.partition(":")
    pid = rest.partition(":")[0]
    return boot == _boot() and pid.isdigit() and owner != _owner(int(pid))


def _owner(pid: int) -> str:
    """A process of this machine, told from any other that had its number: boot, number, start time."""
    return f"{_boot()}:{pid}:{_started(pid)}"


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:  # no Linux: then nobody's death can be told, and the deadline decides
        return "unknown"


def _started(pid: int) -> str:
    try:
        # the 22nd field; the second may hold blanks, but ends with the last closing parenthesis
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
