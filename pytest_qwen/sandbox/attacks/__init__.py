"""Twenty-five ways in which a program tries to get out of its sandbox, each with what has to stop it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pytest_qwen.sandbox.attacks import answers, isolation, resources
from pytest_qwen.sandbox.attacks.canary import Canary, NotChecked
from pytest_qwen.sandbox.base import Sandbox

__all__ = ["ATTACKS", "Attack", "Canary", "NotChecked"]


@dataclass(frozen=True, slots=True)
class Attack:
    """One hostile program, run for real.

    `run` gives None when it was contained, else what got out. It raises NotChecked where this machine cannot
    show it, SandboxFault where the sandbox broke down or the attack itself did not run.
    """

    number: int
    name: str
    containment: str
    run: Callable[[Sandbox, Canary], str | None]


ATTACKS = (
    Attack(1, "fork bomb", "limit on processes", resources.fork_bomb),
    Attack(2, "memory bomb", "limit on memory, no swap", resources.memory_bomb),
    Attack(3, "disk fill", "read-only root, small file systems in memory", resources.disk_fill),
    Attack(4, "log flood", "capped log, both ends of it read", resources.log_flood),
    Attack(5, "network exfiltration", "no network but its own loopback", isolation.exfiltration),
    Attack(6, "sockets of other families", "filter of system calls", isolation.socket_families),
    Attack(
        7, "reading the host's secrets", "empty environment, nothing mounted", isolation.secrets_of_the_host
    ),
    Attack(8, "the engine's socket", "never mounted", isolation.engine_socket),
    Attack(9, "steering the kernel by /proc and /sys", "masked and read-only paths", isolation.proc_and_sys),
    Attack(10, "links out of its output", "nothing is collected by path", isolation.links),
    Attack(11, "planted sockets and devices", "no shared folder", isolation.planted_files),
    Attack(12, "killing or tracing the probe", "process namespaces of their own", answers.kill_the_probe),
    Attack(
        13, "attacking the probe by their network", "the probe listens on nothing", answers.shared_network
    ),
    Attack(14, "slow and endless answers", "a deadline for the whole exchange", answers.slow_answers),
    Attack(15, "giant headers", "limit on headers", answers.giant_headers),
    Attack(16, "redirects to the host", "redirects are not followed", answers.redirects),
    Attack(17, "compression bombs", "bodies are not unpacked, and limited", answers.compression_bombs),
    Attack(18, "lies about lengths, smuggled answers", "strict parser, a connection each", answers.framing),
    Attack(19, "hostile OpenAPI documents", "limits, local references only", answers.hostile_openapi),
    Attack(20, "gaining privileges", "no capabilities, no way to new ones", isolation.privileges),
    Attack(21, "dangerous system calls", "filter of system calls", isolation.system_calls),
    Attack(22, "changing the clock, spinning", "no capabilities, CPU quota", resources.clock_and_cpu),
    Attack(23, "surviving its end", "process namespace, lifetime", resources.survivor),
    Attack(24, "ending early", "no restarts, the engine tells its end", resources.early_end),
    Attack(25, "forging results", "the probe's own channel, escaping", answers.forged_results),
)
