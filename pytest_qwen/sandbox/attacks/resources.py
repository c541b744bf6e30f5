"""Attacks on what a machine has to give: processes, memory, disk, log, time; and programs that do not end."""

from __future__ import annotations

import dataclasses
import os
import time

from pytest_qwen.exchanges import Call
from pytest_qwen.sandbox.attacks.canary import Canary, NotChecked, found, mib
from pytest_qwen.sandbox.attacks.running import SMALL, job, listed, reported, served, started, unharmed
from pytest_qwen.sandbox.base import MIB, Container, Job, Sandbox

_ANSWERS_WITHIN_S = 10.0
_LOG_WITHIN_S = 30.0
_DISK_SLACK_BYTES = 50 * MIB
_CPUS_SLACK = 1.3  # the quota is kept over a tenth of a second, the engine looks over one second
_SLOWER = 2.0
_WORK = "from time import perf_counter as t; s = t(); sum(i * i for i in range(3_000_000)); print(t() - s)"


def fork_bomb(sandbox: Sandbox, canary: Canary) -> str | None:
    """While it forks: its processes are limited, the engine answers, others run; then all of it goes."""
    with started(sandbox, 1) as guest:
        most = 0
        for _ in range(10):
            most = max(most, len(canary.processes(guest)))
            time.sleep(0.1)
        silent_s = canary.silent_s()
        harm = unharmed(sandbox)
        begun_s = time.monotonic()
        guest.remove()
        gone_s = time.monotonic() - begun_s
    left = canary.left(guest)
    return found(
        (most < SMALL.pids // 2, f"the bomb did not go off: {most} processes"),
        (most > SMALL.pids, f"{most} processes where {SMALL.pids} are allowed"),
        (silent_s > _ANSWERS_WITHIN_S, f"the engine was silent for {silent_s:.0f} s"),
        (gone_s > _ANSWERS_WITHIN_S, f"removing it took {gone_s:.0f} s"),
        (bool(left), f"still there after its removal: {listed(left)}"),
        (bool(harm), harm),
    )


def memory_bomb(sandbox: Sandbox, canary: Canary) -> str | None:
    """It is killed, with no swap to go to."""
    with started(sandbox, 2) as guest:
        limits = canary.inspect(guest)["HostConfig"]
        state = guest.wait(30)
    allowed = (limits["Memory"], limits["MemorySwap"])
    return found(
        (state.running, "it was still running after 30 s"),
        (not state.running and state.ended != "killed", f"it ended by itself with {state.exit_code}"),
        (allowed != (SMALL.memory_bytes,) * 2, f"memory and swap are limited to {allowed}"),
        (bool(harm := unharmed(sandbox)), harm),
    )


def disk_fill(sandbox: Sandbox, canary: Canary) -> str | None:
    """Only what is small and in memory takes files; the disk keeps its space. Others use the disk too, so a
    loss of space counts when it comes three times."""
    allowed = {"/tmp": SMALL.tmp_bytes, "/work": SMALL.work_bytes, "/dev/shm": SMALL.shm_bytes}  # noqa: S108
    for _ in range(3):
        free_before = canary.free_bytes()
        with started(sandbox, 3) as guest:
            written = dict(reported(guest))
            lost = free_before - canary.free_bytes()
            on_root = canary.written_bytes(guest)
        if lost <= _DISK_SLACK_BYTES:
            break
    beyond = {folder: mib(size) for folder, size in written.items() if size > allowed.get(folder, 0)}
    return found(
        (sum(written.values()) < SMALL.work_bytes // 2, "the attack wrote next to nothing anywhere"),
        (bool(beyond), f"more than allowed was written: {listed(list(beyond.items()))}"),
        (lost > _DISK_SLACK_BYTES, f"the disk lost {mib(lost)}"),
        (on_root > MIB, f"{mib(on_root)} went to its root file system"),
        (bool(harm := unharmed(sandbox)), harm),
    )


def log_flood(sandbox: Sandbox, canary: Canary) -> str | None:
    """The engine keeps no more than it may, and neither a look at the log nor a job's output grows."""
    begun_s = time.monotonic()
    with started(sandbox, 4, "48") as guest:
        state = guest.wait(_LOG_WITHIN_S)
        log = guest.log()
        kept = canary.log_bytes(guest)
    output = sandbox.run(job(4, "1024"), timeout_s=_LOG_WITHIN_S, most_bytes=MIB)
    spent_s = time.monotonic() - begun_s
    most = SMALL.log_bytes + MIB // 4  # files are changed after the piece that fills them
    return found(
        (state.exit_code != 0, "the flood never ended"),
        (kept > most, f"{mib(kept)} of log on the disk where {mib(SMALL.log_bytes)} are allowed"),
        (len(log.head + log.tail) > MIB >> 3, f"a look at its log read {mib(len(log.head + log.tail))}"),
        (not log.dropped_bytes, "the log does not tell that it was cut"),
        (not output.truncated or len(output.stdout) > MIB, f"{mib(len(output.stdout))} of output taken"),
        (spent_s > _LOG_WITHIN_S, f"it took {spent_s:.0f} s"),
    )


def clock_and_cpu(sandbox: Sandbox, canary: Canary) -> str | None:
    """The clock and its priority stay; it uses the CPU that it was given, and its neighbour hardly notices.
    The machine's other work disturbs such figures, so one try of three that shows it is enough."""
    alone_s = min(_work_s(sandbox) for _ in range(2))
    with started(sandbox, 22) as guest:
        gained = reported(guest)
        limits = canary.inspect(guest)["HostConfig"]
        for _ in range(3):
            share, beside_s = canary.cpu_share(guest), _work_s(sandbox)
            if share <= SMALL.cpus * _CPUS_SLACK and beside_s < _SLOWER * alone_s:
                break
    if beside_s >= _SLOWER * alone_s:  # was it the guest, or the machine's other work?
        alone_s = max(alone_s, _work_s(sandbox))
        if beside_s >= _SLOWER * alone_s and os.getloadavg()[0] > (os.cpu_count() or 1):
            raise NotChecked("the machine has other work, so a neighbour's delay says nothing")
    quota = limits["NanoCpus"] / 1e9 or limits["CpuQuota"] / (limits["CpuPeriod"] or 100_000)
    return found(
        (bool(gained), f"it could do {listed(gained)}"),
        (
            quota != SMALL.cpus,
            f"the engine limits it to {quota:g} CPUs (0: all) where {SMALL.cpus:g} are allowed",
        ),
        (share < SMALL.cpus / 4, f"it used {share:.2f} CPUs only: the attack did not run"),
        (share > SMALL.cpus * _CPUS_SLACK, f"it used {share:.1f} CPUs where {SMALL.cpus:g} are allowed"),
        (beside_s >= _SLOWER * alone_s, f"its neighbour became {beside_s / alone_s:.1f} times slower"),
    )


def _work_s(sandbox: Sandbox) -> float:
    """How long a fixed piece of work takes in a container of its own, by that container's clock."""
    command = ("python3", "-I", "-c", _WORK)
    return float(sandbox.run(Job(argv=command, limits=SMALL, role="tool"), timeout_s=60).stdout)


def survivor(sandbox: Sandbox, canary: Canary) -> str | None:
    """Nothing is left of it after its removal, after its main program's end, and after its lifetime."""
    complaints = []
    with started(sandbox, 23, "stays") as guest:
        reported(guest)
        guest.signal("SIGTERM")
        begun_s = time.monotonic()
        guest.remove()
        spent_s = time.monotonic() - begun_s
    complaints += _survived(canary, guest, "its removal")
    with started(sandbox, 23, "goes") as guest:
        state = guest.wait(20)
        complaints += ["its daemons keep it running"] if state.running else []
    complaints += _survived(canary, guest, "its own end")
    with started(sandbox, 23, "stays", limits=dataclasses.replace(SMALL, lifetime_s=2)) as guest:
        state = guest.wait(10)
        complaints += [] if state.ended == "killed" else [f"its time being over did not end it ({state})"]
    complaints += _survived(canary, guest, "its time")
    return found(
        (spent_s > _ANSWERS_WITHIN_S, f"its removal took {spent_s:.0f} s"),
        (bool(complaints), "; ".join(complaints)),
    )


def _survived(canary: Canary, guest: Container, what: str) -> list[str]:
    left = canary.left(guest)
    return [f"left after {what}: {listed(left)}"] if left else []


def early_end(sandbox: Sandbox, canary: Canary) -> str | None:
    """The engine tells how it ended, nothing starts it again, and a probe tells that it is gone."""
    complaints = []
    for how, code in (("exit", 0), ("crash", 1)):
        with started(sandbox, 24, how) as guest:
            policy = canary.inspect(guest)["HostConfig"]["RestartPolicy"]["Name"]
            if policy not in {"", "no"}:
                return f"the engine starts it again: its policy is {policy}"
            state = guest.wait(20)
            time.sleep(0.3)
            again = guest.state()
        if (state.running, state.ended, state.exit_code) != (False, "exited", code):
            complaints.append(f"the end of {how} is told as {state}")
        if again != state:
            complaints.append(f"it was started again after {how}")
    return found((bool(complaints), "; ".join(complaints)), _after_a_good_start(sandbox))


def _after_a_good_start(sandbox: Sandbox) -> tuple[bool, str]:
    with served(sandbox, 24, "serve") as both:
        first = both.guest.state()
        good = both.probe.batch([Call(name="good", method="GET", path="/")])["good"]
        state = both.guest.wait(10)
        gone = both.probe.batch([Call(name="gone", method="GET", path="/")])["gone"]
    fine = first.running and good.ok and state.exit_code == 0 and gone.failure == "refused"
    return not fine, f"a good start and its end are told as {good}, {state}, {gone}"
