"""Makes pieces of an answer's code blocks: kind, name, and what a piece has to do with the app."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pytest_qwen.extraction.fences import Block
from pytest_qwen.extraction.kinds import Kind, is_client, kind_of, looks_like_python
from pytest_qwen.extraction.naming import PYTHON, naming_of

_COMMENT_LINE = re.compile(r"^[ \t]*+#.*", re.MULTILINE)
_IMPORT_LINE = re.compile(r"^[ \t]*+(?:from|import)[ \t].*", re.MULTILINE)
_WORD = re.compile(r"\w+")
_IMPORT = re.compile(r"^(?:import|from)[ \t]", re.MULTILINE)
_HANDLER = re.compile(
    r"^(?:@|def[ \t]|async[ \t]+def[ \t]|class[ \t]|\w+\.(?:include_router|add_api_route)\()", re.MULTILINE
)
_START_OF_CODE = re.compile(
    r'^(?:import[ \t]+\w|from[ \t]+[.\w]+[ \t]+import\b|#!|#[ \t]|"""|@\w)', re.MULTILINE
)
_TEST_FILE = re.compile(r"(?:.*/)?(?:test_[^/]*|[^/]*_test|conftest)\.py|tests?/.*")

_LANGUAGE_OF: dict[Kind, str] = {
    "python": "python",
    "shell": "shell",
    "requirements": "requirements",
    "dockerfile": "dockerfile",
    "compose": "yaml",
    "document": "markdown",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A code block with its kind, and its name if it has one.

    `app` is None for a text that makes no app, else the variable that the app is kept in ("" for none).
    `whole` says that an app comes with imports and handlers, so that it is no fragment that shows a step.
    """

    kind: Kind
    text: str
    language: str
    path: str | None
    line: int
    closed: bool = True
    app: str | None = None
    whole: bool = False

    @property
    def label(self) -> str:
        """How notes call the piece."""
        return self.path or f"the block at line {self.line}"

    @property
    def imported(self) -> frozenset[str]:
        """The words of the lines that import something."""
        return frozenset(word for line in _IMPORT_LINE.findall(self.text) for word in _WORD.findall(line))

    @property
    def is_app(self) -> bool:
        """Whether the piece can be the main file: it makes an app, and is not a test."""
        return self.app is not None and not (self.path and _TEST_FILE.fullmatch(self.path))

    @property
    def is_loose_client(self) -> bool:
        """Whether the piece is nameless Python that only uses an app."""
        return self.path is None and self.app is None and is_client(self.text)

    def supersedes(self, earlier: Piece) -> bool:
        """Whether the piece can stand in for an earlier one: it is neither cut nor a fragment beside it."""
        return (self.closed or not earlier.closed) and self._completeness >= earlier._completeness

    @property
    def _completeness(self) -> int:
        return (self.app is not None) + self.whole


def pieces_of(blocks: Sequence[Block], entry: re.Pattern[str], notes: list[str]) -> list[Piece]:
    """The pieces of all blocks that hold text; what was decided goes to `notes`."""
    return [_piece(block, entry, notes) for block in blocks if block.text.strip()]


def bare_piece(prose: str, entry: re.Pattern[str]) -> Piece | None:
    """The piece in a text without fences: from its first line of code on, if that reads as Python."""
    start = _START_OF_CODE.search(prose)
    text = prose[start.start() :].strip("\n") + "\n" if start else ""
    if start is None or not looks_like_python(text):
        return None
    app, whole = _app_in(text, entry)
    line = prose.count("\n", 0, start.start()) + 1
    return Piece(kind="python", text=text, language="python", path=None, line=line, app=app, whole=whole)


def _piece(block: Block, entry: re.Pattern[str], notes: list[str]) -> Piece:
    naming = naming_of(block)
    notes.extend(f"line {block.line}: {refused}" for refused in naming.refused)
    kind, path = kind_of(block.language, naming.path, block.text), naming.path
    if kind != "python" and path and path.endswith((".py", ".pyi")):
        path = None  # commands or a session under the name of the file that they use
    app, whole = _app_in(block.text, entry) if kind == "python" else (None, False)
    suffix = path.rpartition(".")[2] if path and "." in path else "text"
    language = "text" if block.language in PYTHON else block.language or suffix
    return Piece(
        kind=kind,
        text=block.text,
        language=_LANGUAGE_OF.get(kind, language),
        path=path,
        line=block.line,
        closed=block.closed,
        app=app,
        whole=whole,
    )


def _app_in(text: str, entry: re.Pattern[str]) -> tuple[str | None, bool]:
    """The variable of the app that the code makes (None: no app, "": no variable), and if it is whole."""
    code = _COMMENT_LINE.sub("", text)
    found = entry.search(code)
    if found is None:
        return None, False
    line = code[code.rfind("\n", 0, found.start()) + 1 : found.start()]
    variable = re.match(r"[ \t]*(\w+)[ \t]*(?::[^=]*)?=", line)
    whole = _IMPORT.search(code) is not None and _HANDLER.search(code) is not None
    return variable[1] if variable else "", whole
