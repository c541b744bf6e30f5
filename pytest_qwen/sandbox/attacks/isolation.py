"""Attacks on the walls of a container: its network, files, kernel, privileges."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from pytest_qwen.sandbox.attacks.canary import VARIABLE, Canary, NotChecked, found
from pytest_qwen.sandbox.attacks.running import listed, reported, started, told
from pytest_qwen.sandbox.base import Container, Sandbox

# What a program may find in its environment: what we give it and what Python's own image says of itself.
_KNOWN_VARIABLES = {
    "GPG_KEY", "HOME", "HOSTNAME", "LANG", "LC_CTYPE", "OMP_NUM_THREADS", "PATH", "PYTHONDONTWRITEBYTECODE",
    "PYTHONUNBUFFERED", "PYTHON_SHA256", "PYTHON_VERSION", "container",
}  # fmt: skip
_NO_CAPABILITY = {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"}


def exfiltration(sandbox: Sandbox, canary: Canary) -> str | None:
    """Nothing arrives at listeners on this machine's addresses, and nothing else answers."""
    heard = len(canary.hits)
    targets = [[address, canary.port] for address in canary.addresses()]
    reached = told(sandbox, 5, json.dumps(targets))
    hits = canary.hits[heard:]
    # Its own loopback takes datagrams, and loses them.
    reached = [one for one in reached if not one.startswith("SOCK_DGRAM 127.")]
    return found(
        (bool(hits), f"the canary listener heard {listed(hits)}"),
        (bool(reached), f"it reached {listed(reached)}"),
    )


def socket_families(sandbox: Sandbox, _canary: Canary) -> str | None:
    """No socket but local, internet and netlink ones, whichever system call asks for it."""
    opened = told(sandbox, 6)
    return found((bool(opened), f"it opened {listed(opened)}"))


def secrets_of_the_host(sandbox: Sandbox, canary: Canary) -> str | None:
    """This process's environment and files are nowhere in what it sees, nor in what the engine was told."""
    with started(sandbox, 7, str(canary.file)) as guest:
        seen = reported(guest)
        known = canary.inspect(guest)
    variables = {entry.partition("=")[0] for entry in known["Config"]["Env"]} - _KNOWN_VARIABLES
    return found(
        ("environ" not in seen, "the attack told nothing of its environment"),
        (canary.token in json.dumps(seen), "the canary's token is in what it sees"),
        (VARIABLE in json.dumps(seen), "the name of the canary's variable is in what it sees"),
        (canary.token in json.dumps(known), "the canary's token was handed to the engine"),
        (bool(variables), f"the engine gave it the variables {listed(sorted(variables))}"),
    )


def engine_socket(sandbox: Sandbox, canary: Canary) -> str | None:
    """No socket of anybody's is within reach."""
    with started(sandbox, 8) as guest:
        sockets = reported(guest)
        mounts = _shared(canary, guest)
    return found(
        (bool(sockets), f"it found {listed(sockets)}"), (bool(mounts), f"of the host it has {listed(mounts)}")
    )


def proc_and_sys(sandbox: Sandbox, canary: Canary) -> str | None:
    """What steers the kernel cannot be opened, and is as it was."""
    watched = [Path("/proc/sys/kernel/core_pattern"), Path("/proc/sys/kernel/modprobe")]
    before = [file.read_bytes() for file in watched if file.exists()]
    with started(sandbox, 9) as guest:
        opened = reported(guest)
        scores = [_oom_score(pid) for pid in canary.processes(guest)]
    after = [file.read_bytes() for file in watched if file.exists()]
    return found(
        (bool(opened), f"it opened {listed(opened)}"),
        (before != after, "a setting of this machine's kernel has changed"),
        (any(score < 0 for score in scores), "it made itself safe from being killed for memory"),
    )


def _oom_score(pid: int) -> int:
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/oom_score_adj").read_text(encoding="ascii"))
    return 0


def links(sandbox: Sandbox, canary: Canary) -> str | None:
    """Links that it leaves lead nowhere, and nothing that is taken from it follows them."""
    with started(sandbox, 10, str(canary.file)) as guest:
        reached = reported(guest)
        log = guest.log()
        root = canary.inspect(guest)["State"]["Pid"]
        planted = Path(f"/proc/{root}/root/work/out/result.json")
        with contextlib.suppress(OSError):
            reached += [] if planted.is_symlink() else ["the attack planted nothing"]
    return found(
        (bool(reached), f"it reached {listed(reached)}"),
        (canary.token.encode() in log.head + log.tail, "the canary file's content is in its log"),
    )


def planted_files(sandbox: Sandbox, canary: Canary) -> str | None:
    """There is no folder that it shares with this machine, and it can make no device."""
    with started(sandbox, 11) as guest:
        made = reported(guest)
        mounts = _shared(canary, guest)
        writable = not canary.inspect(guest)["HostConfig"]["ReadonlyRootfs"]
    return found(
        (bool(made), f"it made the devices {listed(made)}"),
        (bool(mounts), f"of the host it has {listed(mounts)}"),
        (writable, "its root file system is writable"),
    )


def _shared(canary: Canary, guest: Container) -> list[str]:
    """Folders, volumes and devices of the machine that a container has, by the engine's account."""
    known = canary.inspect(guest)
    host = known["HostConfig"]
    mounts = [mount.get("Source") or mount.get("Destination", "?") for mount in known.get("Mounts") or ()]
    mounts = [
        name
        for name, mount in zip(mounts, known.get("Mounts") or (), strict=True)
        if mount.get("Type") != "tmpfs"
    ]
    given = [*(host.get("Binds") or ()), *(host.get("VolumesFrom") or ()), *(host.get("Devices") or ())]
    return [*map(str, mounts), *map(str, given)]


def privileges(sandbox: Sandbox, canary: Canary) -> str | None:
    """It has no capability and can get none, as the kernel says of its process."""
    with started(sandbox, 20) as guest:
        gained = reported(guest)
        host = canary.inspect(guest)["HostConfig"]
        try:
            status = canary.status(guest)
        except NotChecked:
            status = {}
    held = [f"{name} {status[name]}" for name in _NO_CAPABILITY & set(status) if int(status[name], 16)]
    return found(
        (bool(gained), f"it could do {listed(gained)}"),
        (bool(held), f"it has the capabilities {listed(held)}"),
        (bool(status) and status["NoNewPrivs"] != "1", "it may gain privileges"),
        (bool(status) and status["Seccomp"] != "2", "its system calls are not filtered"),
        (bool(status) and "0" in status["Uid"].split(), "it runs as root"),
        (bool(host["Privileged"]) or "ALL" not in (host["CapDrop"] or ()), "the engine was told to trust it"),
    )


def system_calls(sandbox: Sandbox, _canary: Canary) -> str | None:
    """Every denied system call is turned away before the kernel looks at it."""
    passed = told(sandbox, 21)
    return found((bool(passed), f"the kernel took {listed(passed)}"))
