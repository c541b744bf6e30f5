"""--qwen-plan: one line a selected test, nothing loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from pytest_qwen.ask import RunRequest
from pytest_qwen.bench import Bench
from pytest_qwen.errors import Misuse, QwenError
from pytest_qwen.planning import Plan, plan_for, render
from pytest_qwen.target import mismatch


def plan_all(requests: Mapping[str, RunRequest | Misuse], bench: Bench) -> tuple[str, int]:
    """The text of the plan, and how many tests cannot pass: impossible, or misuse.

    `requests` maps a test to what it asks for, or to its misuse. A test for another GPU is counted apart.
    """
    plans, elsewhere, wrong = [], 0, []
    for test, request in requests.items():
        if isinstance(request, Misuse):
            wrong.append(_misuse(test, request))
        elif mismatch(request.gpu, bench.target):
            elsewhere += 1
        elif request.model.id or bench.settings.model:
            try:
                plans.append(_planned(test, request, bench))
            except QwenError as error:
                wrong.append(_misuse(test, error))
    lines = [f"plan for {bench.target.label}", render(plans), *wrong]
    if elsewhere:
        lines.append(f"{elsewhere} more want another GPU")
    return "\n".join(lines), len(wrong) + sum(plan.outlook == "impossible" for plan in plans)


def _planned(test: str, request: RunRequest, bench: Bench) -> Plan:
    """The plan of one test; impossible where the card has no kernels for the weights."""
    found, lacking = plan_for(request, bench, test=test), bench.lacking(request)
    if lacking is None:
        return found
    return replace(found, outlook="impossible", reasons=(lacking, *found.reasons))


def _misuse(test: str, error: QwenError) -> str:
    return f"misuse      {test}: {str(error).splitlines()[0]}"
