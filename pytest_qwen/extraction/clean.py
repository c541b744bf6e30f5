"""Makes plain text of an answer: decoded, with "\\n" line ends, without terminal codes and thoughts."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass

from pytest_qwen.extraction.fences import opening
from pytest_qwen.programs import NoProgram

MAX_ANSWER_BYTES = 4 * 1024 * 1024

# One in so many characters may be unreadable: text in a foreign encoding has fewer, binary data far more.
_READABLE_TO_UNREADABLE = 10
_UNREADABLE = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ufffd]")

# Control sequences (colours, cursor), operating system commands (titles, links), and what is left of escapes.
_TERMINAL_CODE = re.compile(
    "(?:\x1b\\[|\x9b)[0-?]*+[ -/]*+[@-~]|\x1b\\][^\x07\x1b\n]*+(?:\x07|\x1b\\\\)|\x1b[ -/]*+[0-~]|\x1b"
)
_THOUGHT = re.compile(r"^[ \t]*+<(?:think|thinking|thought)>", re.IGNORECASE | re.MULTILINE)
_THOUGHT_END = re.compile(r"</(?:think|thinking|thought)>[ \t]*+", re.IGNORECASE)
_THOUGHT_END_OF_LINE = re.compile(_THOUGHT_END.pattern + "$", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleaned:
    """The plain text of an answer, and a line for everything that was taken away."""

    text: str
    notes: tuple[str, ...]


def cleaned(answer: str | bytes) -> Cleaned | NoProgram:
    """The answer as plain text, or why there is none: too large, not text, or empty."""
    if len(answer) > MAX_ANSWER_BYTES:  # before anything that takes time; no character is less than a byte
        return _too_large(len(answer), "bytes" if isinstance(answer, bytes) else "characters")
    raw = answer if isinstance(answer, bytes) else answer.encode("utf-8", "surrogatepass")
    if len(raw) > MAX_ANSWER_BYTES:
        return _too_large(len(raw), "bytes")
    notes: list[str] = []
    text = _without_terminal_codes(_decoded(raw), notes)
    if text.isspace() or not text:
        return NoProgram(reason="empty", detail=f"nothing but white space in {len(raw):,} bytes")
    unreadable = len(_UNREADABLE.findall(text))
    if unreadable * _READABLE_TO_UNREADABLE > len(text):
        found = f"{unreadable:,} of {len(text):,} characters are control characters or no UTF-8"
        return NoProgram(reason="not text", detail=found)
    if unreadable:
        notes.append(f"{unreadable} control characters or bytes that are no UTF-8 were kept as they are")
    text = _without_thoughts(_with_plain_line_ends(text, notes), notes)
    if text.isspace() or not text:
        return NoProgram(reason="empty", detail=f"{notes[-1]}; nothing else was there")
    return Cleaned(text=text, notes=tuple(notes))


def _too_large(size: int, unit: str) -> NoProgram:
    return NoProgram(
        reason="too large", detail=f"{size:,} {unit}, at most {MAX_ANSWER_BYTES:,} bytes are read"
    )


def _decoded(raw: bytes) -> str:
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):  # what some shells redirect into a file
        return raw.decode("utf-16", "replace")
    return raw.decode("utf-8-sig", "replace")


def _without_terminal_codes(text: str, notes: list[str]) -> str:
    text, count = _TERMINAL_CODE.subn("", text.replace("\ufeff", ""))
    if count:
        notes.append(f"{count} terminal codes were taken out")
    return text


def _with_plain_line_ends(text: str, notes: list[str]) -> str:
    if "\r" not in text:
        return text
    notes.append("foreign line ends (CR LF or CR) became LF")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _without_thoughts(text: str, notes: list[str]) -> str:
    """Take out think blocks that stand outside code, also one whose start was part of the prompt."""
    before = len(text)
    end = _THOUGHT_END_OF_LINE.search(text)
    if end and _is_end_of_unopened_thought(text, end):
        text = text[end.end() :]
    thinking = False
    if _THOUGHT.search(text):
        text, thinking = _without_thought_lines(text)
    if len(text) < before:
        notes.append(f"{before - len(text):,} characters of thoughts were taken out")
    if thinking:
        notes.append("the answer ended while the model was still thinking")
    return text


def _is_end_of_unopened_thought(text: str, end: re.Match[str]) -> bool:
    thought = text[: end.start()]
    if _THOUGHT.search(thought):
        return False
    alone = not thought.rpartition("\n")[2].strip()
    return alone or ("```" not in thought and "~~~" not in thought)


def _without_thought_lines(text: str) -> tuple[str, bool]:
    """The text without its thoughts, and whether the last of them never ended."""
    kept, fence, thinking = [], None, False
    for line in text.split("\n"):
        rest = line
        if not thinking and fence is None and (start := _THOUGHT.match(line)):
            thinking, rest = True, line[start.end() :]
        if thinking:
            end = _THOUGHT_END.search(rest)
            if end is None:
                continue
            thinking, rest = False, rest[end.end() :]
        if fence is None:
            fence = opening(rest)
        elif fence.closed_by(rest):
            fence = None
        kept.append(rest)
    return "\n".join(kept), thinking
