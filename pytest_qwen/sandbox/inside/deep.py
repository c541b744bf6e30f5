"""Fuzzes the server in the guest's network with schemathesis: runs inside a container, beside the guest.

Reads one JSON line {"document", "base_url", "seed", "max_examples", "seconds", "checks"} from standard input
and writes one JSON line {"version", "operations", "cases", "failures", "errors", "stopped"}. The document has
to be of our own making: schemathesis opens what references point to. One pass over all operations, from one
seed, without a database. When the time is over, what was found so far is told. "stopped" is "completed",
"time", "server" (it answers no more) or "broken" (schemathesis itself).
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

# A failure is told once for each operation, check and status; so many of them.
FAILURES_KEPT = 100
ERRORS_KEPT = 10
MESSAGE_CHARACTERS = 300
REQUEST_CHARACTERS = 600
REQUEST_TIMEOUT_S = 5


class Found:
    """What was found so far; told once, by whoever is first: the run that ended, or the clock."""

    def __init__(self, output: int) -> None:
        self._output = output
        self._lock = threading.Lock()
        self._told = False
        self.operations = 0
        self.cases = 0
        self.failures: dict[tuple[str, str, int | None], dict[str, Any]] = {}
        self.errors: dict[str, None] = {}

    def add(self, recorder: Any) -> None:
        """The cases of one scenario, and the checks that failed for them."""
        with self._lock:
            self.cases += len(recorder.interactions)
            for case_id, checks in recorder.checks.items():
                for check in checks:
                    if check.failure_info is not None:
                        self._add_failure(recorder, case_id, check)

    def _add_failure(self, recorder: Any, case_id: str, check: Any) -> None:
        failure = check.failure_info.failure
        interaction = recorder.interactions.get(failure.case_id or case_id) or recorder.interactions.get(
            case_id
        )
        response = interaction.response if interaction is not None else None
        status = response.status_code if response is not None else None
        operation = str(failure.operation or recorder.label)
        if len(self.failures) < FAILURES_KEPT:
            told = {
                "check": check.name,
                "operation": operation,
                "status": status,
                "message": ": ".join(filter(None, (failure.title, failure.message)))[:MESSAGE_CHARACTERS],
                # after the command there may be a remark on its characters
                "request": check.failure_info.code_sample.partition("\n\n⚠")[0][:REQUEST_CHARACTERS],
            }
            self.failures.setdefault((check.name, operation, status), told)

    def add_error(self, text: str) -> None:
        """Something that schemathesis could not do."""
        with self._lock:
            if len(self.errors) < ERRORS_KEPT:
                self.errors.setdefault(text[:MESSAGE_CHARACTERS])

    def tell(self, stopped: str) -> None:
        """Write it down, unless that was done before."""
        with self._lock:
            if self._told:
                return
            self._told = True
            said = {
                "version": version("schemathesis"),
                "operations": self.operations,
                "cases": self.cases,
                "failures": list(self.failures.values()),
                "errors": list(self.errors),
                "stopped": stopped,
            }
            line = json.dumps(said).encode() + b"\n"
            while line:
                line = line[os.write(self._output, line) :]


def settings(job: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration, in the words of schemathesis's own file."""
    return {
        "seed": job["seed"],
        "base-url": job["base_url"],
        "workers": 1,
        "max-redirects": 0,
        "request-timeout": REQUEST_TIMEOUT_S,
        "continue-on-failure": True,
        "suppress-health-check": ["all"],
        "warnings": False,
        "cache": {"enabled": False},
        # Smaller examples of the same failure would cost most of the time.
        "generation": {"max-examples": job["max_examples"], "no-shrink": True, "database": "none"},
        "checks": {"enabled": False, **{name: {"enabled": True} for name in job["checks"]}},
    }


def fuzz(job: Mapping[str, Any], found: Found) -> str:
    """Run schemathesis; why it stopped."""
    import schemathesis
    from schemathesis.config import SchemathesisConfig
    from schemathesis.engine import StopReason, events, from_schema

    config = SchemathesisConfig.from_dict(settings(job))
    schema = schemathesis.openapi.from_dict(job["document"], config=config)
    found.operations = schema.statistic.operations.selected
    stopped = "broken"
    for event in from_schema(schema).execute():
        if isinstance(event, events.ScenarioFinished):
            found.add(event.recorder)
        elif isinstance(event, events.NonFatalError):
            found.add_error(f"{event.label}: {event.info.title}: {event.info.message}")
        elif isinstance(event, events.FatalError):
            found.add_error(f"{type(event.exception).__name__}: {event.exception}")
        elif isinstance(event, events.EngineFinished):
            gone = event.stop_reason is StopReason.SERVER_UNAVAILABLE
            stopped = "server" if gone else "completed"
    return stopped


def main() -> None:
    """One job, one answer."""
    job = json.loads(sys.stdin.readline())
    found = Found(os.dup(1))
    os.dup2(2, 1)  # nothing that is printed by anything else gets between

    def give_up() -> None:
        found.tell("time")
        os._exit(0)

    clock = threading.Timer(float(job["seconds"]), give_up)
    clock.daemon = True
    clock.start()
    try:
        stopped = fuzz(job, found)
    except BaseException as error:  # whatever it is, what was found before is told
        found.add_error(f"{type(error).__name__}: {error}")
        stopped = "broken"
    found.tell(stopped)
    os._exit(0)  # threads of schemathesis are not waited for


if __name__ == "__main__":
    main()
