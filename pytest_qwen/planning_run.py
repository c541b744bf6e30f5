"""What --qwen-plan prints: one line for each selected test on the card of the run, nothing loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from pytest_qwen.errors import Misuse
from pytest_qwen.planning import Plan, Planner, plan_for, render
from pytest_qwen.target import Target, mismatch

if TYPE_CHECKING:
    from pytest_qwen.ask import RunRequest


class Bench(Planner, Protocol):
    """The part of the run's bench that planning needs."""

    @property
    def target(self) -> Target:
        """What the run is for."""


class Terminal(Protocol):
    """Where the plan is written."""

    def section(self, title: str) -> None:
        """Begin a section."""

    def write_line(self, line: str) -> None:
        """Write one line, or several."""


def print_plan(requests: Mapping[str, RunRequest | Misuse], bench: Bench, terminal: Terminal) -> int:
    """Write the plan of every test, by node id; returns how many can never pass.

    Those are the tests with marks that make no sense and those that physics forbids. A test for another GPU
    is left out and counted in a line.
    """
    terminal.section(f"plan for {bench.target.label}")
    plans: list[Plan] = []
    misused, elsewhere = 0, 0
    for test, request in requests.items():
        if isinstance(request, Misuse):
            misused += 1
            terminal.write_line(f"{'misuse':<10}  {test}: {request}")
        elif mismatch(request.gpu, bench.target):
            elsewhere += 1
        else:
            found = plan_for(request, bench, test=test)
            if request.asked or found.outlook != "unknown":
                plans.append(found)
    terminal.write_line(render(plans))
    if elsewhere:
        terminal.write_line(f"{elsewhere} for other GPUs")
    return misused + sum(found.outlook == "impossible" for found in plans)
