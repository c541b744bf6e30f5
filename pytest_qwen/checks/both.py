"""Checks of which the source shows one part and the running server another: both have to be good."""

from __future__ import annotations

from collections.abc import Callable

from pytest_qwen.checks import practices, running
from pytest_qwen.observations import Evidence
from pytest_qwen.scorecards import CheckOutcome, Finding

Check = Callable[[Evidence], Finding]
# The first of these that either part has is the whole's.
_GRAVEST = (CheckOutcome.TAMPER, CheckOutcome.FAIL, CheckOutcome.INFRA_ERROR, CheckOutcome.UNMEASURED)


def _both(first: Check, second: Check, name: str) -> Check:
    def check(evidence: Evidence) -> Finding:
        parts = [first(evidence), second(evidence)]
        for outcome in _GRAVEST:
            for part in parts:
                if part.outcome == outcome:
                    return part
        timing = "; ".join(part.timing for part in parts if part.timing) or None
        evidence_text = "; ".join(part.evidence for part in parts)
        return Finding(outcome=CheckOutcome.PASS, evidence=evidence_text[:200], timing=timing)

    check.__name__, check.__doc__ = name, f"{first.__doc__} {second.__doc__}"
    return check


never_blocks_the_loop = _both(practices.b1_source, running.loop_stays_free, "never_blocks_the_loop")
loads_the_model_once = _both(practices.b2_source, running.model_is_kept, "loads_the_model_once")
handles_errors = _both(practices.b5_source, running.errors_keep_their_status, "handles_errors")
