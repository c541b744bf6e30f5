"""Makes text that nobody vouches for safe to show: one line, cut, with everything invisible spelled out."""

from __future__ import annotations

import re

SHOWN_CHARACTERS = 200

# What some continuous-integration services take as a command wherever it stands in a log line ("##[group]",
# "##vso[...]"), and what some take at its start ("::error::").
_COMMAND = re.compile(r"^[^\S\n]*+::|##", re.MULTILINE)


def escaped(text: str, limit: int = SHOWN_CHARACTERS) -> str:
    """`text` in one line of at most `limit` characters, the last of them "…" when something was cut off.

    Line ends, control characters, terminal escapes, bidirectional marks, lone surrogates and other characters
    that show nothing become visible escapes; commands of continuous-integration services are broken.
    """
    shown = _spelled(_broken(text[: limit + 1]))
    return shown if len(shown) <= limit else shown[: max(0, limit - 1)] + "…"


def printable(data: bytes) -> str:
    """A log as text: its lines stay, each as harmless as `escaped` makes it; bytes that are no UTF-8 show."""
    text = data.decode("utf-8", "backslashreplace").replace("\r\n", "\n")
    return visible(_broken(text))


def visible(text: str) -> str:
    """The text, its lines kept, with everything invisible spelled out: for files, where commands are none."""
    return "\n".join(map(_spelled, text.split("\n")))


def _broken(text: str) -> str:
    """The text with the last character of whatever begins a command spelled out."""
    return _COMMAND.sub(lambda found: f"{found[0][:-1]}\\x{ord(found[0][-1]):02x}", text)


def _spelled(line: str) -> str:
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in line)
