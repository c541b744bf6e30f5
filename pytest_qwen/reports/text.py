"""Text that fits where it goes: no control characters, a given width, a terminal's alphabet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

_ASCII = str.maketrans({"≥": ">=", "≤": "<=", "∞": "inf", "…": "...", "×": "x", "–": "-", "−": "-", "·": "-"})


def speak(text: str, *, unicode: bool) -> str:
    """`text` in one line that a terminal shows as it is: what it cannot show is escaped.

    Names, reasons and answers come from models and other people's code, so escape sequences are not trusted.
    """
    line = " ".join(text.split())
    shown = "".join(char if char.isprintable() else repr(char)[1:-1] for char in line)
    return shown if unicode else shown.translate(_ASCII).encode("ascii", "backslashreplace").decode("ascii")


def fit(text: str, width: int, *, unicode: bool, keep: Literal["start", "end"] = "start") -> str:
    """`text` cut to `width` columns, with an ellipsis where something was left out."""
    if len(text) <= width:
        return text
    dots = "…" if unicode else "..."
    room = max(0, width - len(dots))
    kept = text[:room] + dots if keep == "start" else dots + (text[-room:] if room else "")
    return kept[:width]


def columns(head: Sequence[str], rows: Sequence[Sequence[str]], *, words: int) -> str:
    """Columns under their heads: the first `words` to the left, figures to the right."""
    lines = [head, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i < words else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
