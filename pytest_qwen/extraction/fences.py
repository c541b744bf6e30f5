"""Finds the fenced code blocks of a markdown text, by CommonMark's rules."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from pytest_qwen.extraction.infostring import read_info

MAX_FENCES = 500
MARKDOWN = frozenset({"markdown", "md"})

_TAB = 4
_MOST_NESTED_ITEMS = 30  # keeps a line's cost small in a text made of lists
_MOST_INDENT = 3  # one column more would be an indented code block, which holds no fence
_FENCE = re.compile(
    r"(?P<indent>[ \t]*+)(?P<item>(?:[-+*]|\d{1,9}[.)])[ \t]++)?(?P<marks>`{3,}+|~{3,}+)[ \t]*+(?P<info>.*)"
)
_LIST_ITEM = re.compile(r"[ \t]*+(?:[-+*]|\d{1,9}[.)])[ \t]++(?=\S)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fence:
    """An opening fence: its character and length, its column, and the column where its container begins."""

    marks: str
    indent: int
    container: int
    info: str

    def closed_by(self, line: str) -> bool:
        """Whether `line` is the fence's end: bare, of the same character and at least as long."""
        bare = line.strip(" \t")
        if not bare.startswith(self.marks) or bare.strip(self.marks[0]):
            return False
        return _columns(line[: line.index(bare)]) <= self.container + _MOST_INDENT

    def nests(self, line: str) -> bool:
        """Whether `line` opens a block inside, as models write it within a markdown block of equal fences."""
        if not line.lstrip(" \t").startswith(self.marks):
            return False
        fence = opening(line, (0, self.container))
        return fence is not None and bool(fence.info)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A code block: what its fence says, its text, the prose line above it, and where it starts (from 1)."""

    language: str
    name: str | None
    text: str
    above: str
    closed: bool
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Scanned:
    """The code blocks of a text and the text around them; `wrapped`: a markdown fence held it all."""

    blocks: tuple[Block, ...]
    prose: str
    wrapped: bool = False

    @property
    def too_many(self) -> bool:
        """Whether the text has more blocks than are read; then the last ones are missing."""
        return len(self.blocks) > MAX_FENCES


def opening(line: str, containers: Iterable[int] = (0,)) -> Fence | None:
    """The fence that `line` opens, if it does. `containers` are the columns of the list items around it."""
    found = _FENCE.fullmatch(line) if "```" in line or "~~~" in line else None
    if found is None or (found["marks"][0] == "`" and "`" in found["info"]):
        return None
    indent = _columns(line[: found.start("marks")])
    container = indent if found["item"] else max(column for column in (0, *containers) if column <= indent)
    if indent - container > _MOST_INDENT:
        return None
    return Fence(marks=found["marks"], indent=indent, container=container, info=found["info"].strip())


def scan(text: str) -> Scanned:
    """The code blocks of `text`, at most one more than are allowed."""
    scanner = _Scanner()
    for number, line in enumerate(text.split("\n"), start=1):
        scanner.read(number, line)
        if len(scanner.blocks) > MAX_FENCES:
            break
    scanner.end_block(closed=False)
    return Scanned(blocks=tuple(scanner.blocks), prose="\n".join(scanner.prose))


def unwrapped(scanned: Scanned) -> Scanned:
    """What is inside when an answer's only blocks are markdown that holds blocks itself; else `scanned`."""
    if not scanned.blocks or any(block.language not in MARKDOWN for block in scanned.blocks):
        return scanned
    inner = [scan(block.text) for block in scanned.blocks]
    blocks = [
        replace(block, line=outer.line + block.line)
        for outer, found in zip(scanned.blocks, inner, strict=True)
        for block in found.blocks
    ]
    if not blocks:
        return scanned
    prose = "\n".join((scanned.prose, *(found.prose for found in inner)))
    return Scanned(blocks=tuple(blocks), prose=prose, wrapped=True)


class _Scanner:
    """Reads a text line by line and collects its blocks and its prose."""

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self.prose: list[str] = []
        self._fence: Fence | None = None
        self._language = ""
        self._name: str | None = None
        self._code: list[str] = []
        self._line = 0
        self._nested = False
        self._above = ""  # the last line of prose since the last block
        self._after_blank = True
        self._containers = [0]

    def read(self, number: int, line: str) -> None:
        if self._fence is not None:
            self._read_code(self._fence, line)
            return
        fence = opening(line, self._containers)
        if fence is None:
            self._read_prose(line)
            return
        info = read_info(fence.info)
        self._fence, self._language, self._name, self._line = fence, info.language, info.name, number

    def _read_code(self, fence: Fence, line: str) -> None:
        if fence.closed_by(line):
            if not self._nested:
                self.end_block(closed=True)
                return
            self._nested = False
        elif not self._nested and self._language in MARKDOWN and fence.nests(line):
            self._nested = True
        self._code.append(line)

    def _read_prose(self, line: str) -> None:
        self.prose.append(line)
        stripped = line.strip()
        if stripped:
            self._above = stripped
            self._track_lists(line)
        self._after_blank = not stripped

    def _track_lists(self, line: str) -> None:
        """Keep the columns at which the contents of the list items around begin."""
        item = _LIST_ITEM.match(line)
        if item or self._after_blank:  # otherwise a line that goes on with the paragraph of the item
            indent = _columns(line[: len(line) - len(line.lstrip(" \t"))])
            while self._containers[-1] > indent:
                self._containers.pop()
        if item and len(self._containers) < _MOST_NESTED_ITEMS:
            self._containers.append(_columns(item[0]))

    def end_block(self, *, closed: bool) -> None:
        """Put away the block that is being read, if there is one."""
        if self._fence is None:
            return
        self.blocks.append(
            Block(
                language=self._language,
                name=self._name,
                text=_dedented(self._code, self._fence.indent),
                above=self._above,
                closed=closed,
                line=self._line,
            )
        )
        self._fence, self._code, self._nested, self._above = None, [], False, ""


def _columns(start: str) -> int:
    return len(start.expandtabs(_TAB))


def _dedented(lines: list[str], indent: int) -> str:
    """The lines as one text, moved left by the fence's column, or less where a line is not so far in."""
    starts = (line[: len(line) - len(line.lstrip(" \t"))] for line in lines if line.strip())
    shift = min((_columns(start) for start in starts), default=0) if indent else 0
    shift = min(shift, indent)
    return "".join(f"{_moved_left(line, shift) if shift else line}\n" for line in lines)


def _moved_left(line: str, shift: int) -> str:
    code = line.lstrip(" \t")
    start = line[: len(line) - len(code)]
    if "\t" not in start:
        return line[min(shift, len(start)) :]
    return " " * max(0, _columns(start) - shift) + code
