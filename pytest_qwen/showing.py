"""Our errors and verdicts as pytest outcomes and texts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from pytest_qwen.errors import NotInstalled, QwenError, Unavailable


@contextlib.contextmanager
def as_outcome(*, proving: bool = False) -> Iterator[None]:
    """Our errors as pytest outcomes without a traceback: the machine's fault skips, anything else fails.

    Two exceptions, because a gate that could not measure must not look green: an engine that is not
    installed fails, and so does anything that is missing where bounds were to be proven (`proving`).
    """
    try:
        yield
    except QwenError as error:
        skips = isinstance(error, Unavailable) and not isinstance(error, NotInstalled) and not proving
        text = str(error)
        raise (skipped(_one_line(text)) if skips else pytest.fail.Exception(text, pytrace=False)) from None


def _one_line(text: str) -> str:
    """A message as pytest lists the reasons of skips: one line each."""
    return "; ".join(line.strip() for line in text.splitlines())


def skipped(why: str) -> BaseException:
    """A skip that is reported at the test, not at a line of ours."""
    return pytest.skip.Exception(why, _use_item_location=True)


def first_line(report: pytest.TestReport) -> str:
    """Why a test failed or was skipped, in one line; "" for a pass."""
    if report.passed:
        return ""
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    text = text.removeprefix("Skipped: ")
    return text.strip().splitlines()[0] if text.strip() else ""


def gate_text(target: str, bounds: int) -> str:
    """Why a run that names its target is not passed although no test failed."""
    return (
        f"qwen: NOTHING MEASURED: {target} was to be proven and {bounds} bound(s) were asked for, "
        "but no verdict was reached; this run does not count as passed"
    )
