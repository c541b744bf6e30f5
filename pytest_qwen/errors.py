"""Errors by whose fault they are, and the one form that every error message takes."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def closest(word: str, choices: Iterable[str]) -> str | None:
    """The choice that `word` was probably meant to be, or None when nothing is near."""
    by_lower = {choice.lower(): choice for choice in choices}
    found = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[found[0]] if found else None


def explain(
    problem: str,
    *,
    asked: str | None = None,
    found: str | None = None,
    slip: str | None = None,
    next_step: str | None = None,
    choices: Iterable[str] | None = None,
) -> str:
    """A message that says what is wrong, what was asked and found, the likely slip and what is valid."""
    lines = [problem]
    for label, text in (("asked", asked), ("found", found), ("likely slip", slip), ("next step", next_step)):
        if text:
            lines.append(f"  {label}: {text}")
    if choices is not None:
        lines.append(f"  valid: {', '.join(choices)}")
    return "\n".join(lines)


class QwenError(Exception):
    """Base of every error that this plugin raises on purpose; its text is meant to be read as it is."""


class Misuse(QwenError):
    """The user's fault: a marker, an option or a test body asks for something that makes no sense."""


class Unavailable(QwenError):
    """The machine's fault: a GPU, a package, a permission or an engine that is not there."""


class NotInstalled(Unavailable):
    """The engine itself cannot be imported: nothing can be measured, which is never a silent skip."""


class ModelUnusable(QwenError):
    """The asked model cannot be loaded: not found, corrupt weights, weights in a refused format."""


class DoesNotFit(QwenError):
    """The model was loaded or run out of memory; the text carries the plan and the need."""


class EngineFault(QwenError):
    """The engine died, hung or met a device fault; it is not used again.

    `kind` is one of "died", "hang", "device", "error". `partial` is the evidence that was gathered before it
    (an `evidence.Measurement`), None when there is none.
    """

    partial: object | None = None

    def __init__(self, message: str, kind: str = "error") -> None:
        super().__init__(message, kind)
        self.message = message
        self.kind = kind

    def __str__(self) -> str:
        return self.message
