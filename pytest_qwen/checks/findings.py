"""The five things a check can say, in one short form each."""

from __future__ import annotations

from pytest_qwen.scorecards import CheckOutcome, Finding


def passed(evidence: str, *, timing: str | None = None) -> Finding:
    """It was observed and is good."""
    return Finding(outcome=CheckOutcome.PASS, evidence=evidence, timing=timing)


def failed(evidence: str, *, timing: str | None = None, share: float | None = None) -> Finding:
    """It was observed and is not good; `share` (0-1) of the weight is earned all the same."""
    return Finding(outcome=CheckOutcome.FAIL, evidence=evidence, timing=timing, share=share)


def unmeasured(why: str, *, timing: str | None = None) -> Finding:
    """It could not be observed, and that is nobody's fault."""
    return Finding(outcome=CheckOutcome.UNMEASURED, evidence=why, timing=timing)


def flaky(evidence: str, *, timing: str | None = None) -> Finding:
    """Repeated observations disagree: unmeasured, and a failure where the rubric is strict."""
    return Finding(outcome=CheckOutcome.UNMEASURED, evidence=f"flaky: {evidence}", timing=timing, flaky=True)


def infra(why: str) -> Finding:
    """Our own harness broke before it could be observed."""
    return Finding(outcome=CheckOutcome.INFRA_ERROR, evidence=why)


def tampered(evidence: str) -> Finding:
    """The program reached for the harness that tests it."""
    return Finding(outcome=CheckOutcome.TAMPER, evidence=evidence)
