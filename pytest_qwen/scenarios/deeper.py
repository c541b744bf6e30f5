"""The optional last step of a trial: the program is started once more and fuzzed. It changes no stars."""

from __future__ import annotations

import time
from typing import Any

from pytest_qwen.deep import fuzz, summary
from pytest_qwen.escaping import escaped
from pytest_qwen.sandbox.base import SandboxFault
from pytest_qwen.scenarios.base import Seen, Trial
from pytest_qwen.serving import Launch, Serving


def look_deeper(trial: Trial, seen: Seen, launch: Launch) -> None:
    """Add the fact "deep" and a line to the notes, when the trial asks for it and the program had started.

    A start of its own, so that nothing that is scored can change. What breaks here is told in the note and
    is no breakdown of the trial.
    """
    main = seen.servers.get("main")
    if not trial.deep or main is None or not main.ready or "openapi" not in seen.exchanges:
        return
    started = time.monotonic()
    try:
        found = _fuzzed(trial, seen.exchanges["openapi"].body, launch)
    except SandboxFault as fault:
        found = {"error": escaped(f"the sandbox broke down: {fault}", 300)}
    seen.facts["deep"] = found
    seen.facts["notes"] = [*seen.facts.get("notes", ()), summary(found)]
    seen.timings_s["deep"] = time.monotonic() - started


def _fuzzed(trial: Trial, document_text: str, launch: Launch) -> dict[str, Any]:
    with Serving(trial.sandbox, launch) as serving:
        if not serving.ready():
            return {"error": "the program did not start again"}
        return fuzz(trial.sandbox, serving.guest, document_text, seed=trial.seed, port=serving.probe.port)
