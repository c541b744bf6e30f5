"""What was found in a model's answer: a program with its files, or the reason why there is none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

NoProgramReason = Literal["empty", "too large", "not text", "too many fences", "no code", "no entry"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """One file of an answer: a sanitised relative path, its text with "\\n" line ends, its language."""

    path: str
    text: str
    language: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """The files of an answer.

    `files` are Python and data files that the guest gets; `main` is the path of the one that makes the app.
    `attachments` (requirements, Dockerfile, compose, shell) are kept and read, never run or built. `clients`
    are Python blocks that only talk to the server. `prose` is the answer's text outside its code. `truncated`
    says that the last fence was never closed. `notes` tell what was decided on the way, a line each.
    """

    files: tuple[SourceFile, ...]
    main: str
    attachments: tuple[SourceFile, ...] = ()
    clients: tuple[SourceFile, ...] = ()
    prose: str = ""
    truncated: bool = False
    notes: tuple[str, ...] = ()

    @property
    def source(self) -> str:
        """The text of the main file."""
        return next(file.text for file in self.files if file.path == self.main)


@dataclass(frozen=True, slots=True, kw_only=True)
class NoProgram:
    """Why an answer holds no program that could be run; `detail` says what was found."""

    reason: NoProgramReason
    detail: str
