"""What fails a test: every verdict but PASS, even one whose outcome comes from another copy of the module."""

from enum import StrEnum
from types import SimpleNamespace

import pytest

from pytest_qwen.outcomes import Outcome
from pytest_qwen.run import failure_text


class Copied(StrEnum):
    """The same outcomes, imported a second time."""

    PASS = "PASS"  # noqa: S105
    FAIL = "FAIL"
    NO_VERDICT = "NO VERDICT"


@pytest.mark.parametrize("kind", [Outcome, Copied])
@pytest.mark.parametrize("strict", [True, False])
def test_only_a_pass_passes(kind, strict):
    verdicts = [SimpleNamespace(outcome=outcome, explanation=str(outcome)) for outcome in kind]
    wanted = "FAIL\nNO VERDICT" if strict else "FAIL"
    assert failure_text(verdicts, no_verdict_fails=strict) == wanted
    assert failure_text(verdicts[:1], no_verdict_fails=strict) is None
