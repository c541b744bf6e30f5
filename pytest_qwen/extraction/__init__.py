"""From the text of a model's answer to its program, or to why it holds none. Pure; runs nothing."""

from __future__ import annotations

import re

from pytest_qwen.extraction.clean import cleaned
from pytest_qwen.extraction.fences import MAX_FENCES, scan, unwrapped
from pytest_qwen.extraction.program import program_of
from pytest_qwen.programs import NoProgram, Program

__all__ = ["extract"]


def extract(answer: str | bytes, *, entry: str = r"FastAPI\(") -> Program | NoProgram:
    """The program in `answer`: its files, and which of them makes the app.

    `entry` is a regular expression that the main file's text matches. No answer makes this raise, and the
    time it takes grows with the answer's length alone.
    """
    plain = cleaned(answer)
    if isinstance(plain, NoProgram):
        return plain
    scanned = scan(plain.text)
    inner = unwrapped(scanned)
    if scanned.too_many or inner.too_many:
        return NoProgram(reason="too many fences", detail=f"more than {MAX_FENCES} code blocks")
    return program_of(inner, entry=re.compile(entry), notes=plain.notes)
