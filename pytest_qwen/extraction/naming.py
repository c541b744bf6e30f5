"""Finds the file name that an answer gives to a code block, and refuses names that are not safe."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from pytest_qwen.escaping import escaped
from pytest_qwen.extraction.fences import Block
from pytest_qwen.extraction.infostring import looks_like_path

MAX_PATH_CHARACTERS = 100
PYTHON = frozenset({"python", "py", "python3", "py3", "pyi"})
SHELL = frozenset(
    {
        *("bash", "sh", "shell", "zsh", "fish", "console", "shell-session", "shellscript", "terminal"),
        *("powershell", "ps1", "pwsh", "cmd", "bat", "batch"),
    }
)

_MAX_LINE_CHARACTERS = 300
_SEGMENT = re.compile(r"\w[\w.-]*", re.ASCII)
_DOTFILES = frozenset({".env.example"})

_LIST_MARKER = re.compile(r"(?:[-+*]|\d{1,3}[.)])\s+")
_NAMES_A_FILE = re.compile(r"\b(?:save|saved|create|file|named|called)\b.*:\W*$", re.IGNORECASE)
_MOST_WORDS_OF_A_LABEL = 3
_AROUND = "`*_\"'()[]<>:,;"

_COMMENT = re.compile(
    r"(?:\#+|//+|--|/\*+|<!--|;|\"{3}|'{3})[ \t]*(?:(?:file ?name|file|path)[ \t]*:[ \t]*)?", re.IGNORECASE
)
_BEHIND_NAME = re.compile(r"\s*(?:$|[-–—:(*\"']).*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Naming:
    """A block's sanitised file name, or None, and a line for every name that was refused."""

    path: str | None
    refused: tuple[str, ...] = ()


def safe_path(claimed: str) -> str | None:
    """`claimed` as a relative path of plain segments, or None when it cannot be made one."""
    path = claimed.strip().replace("\\", "/")
    while path.startswith("./"):
        path = path[2:]
    *folders, name = path.split("/")
    plain = all(_SEGMENT.fullmatch(part) for part in folders)
    if len(path) > MAX_PATH_CHARACTERS or not plain or not (_SEGMENT.fullmatch(name) or name in _DOTFILES):
        return None
    return path


def naming_of(block: Block) -> Naming:
    """The first usable name of: the fence's attribute, the line above, a first comment that is a path."""
    refused: list[str] = []
    for claimed in _claims(block):
        path = safe_path(claimed)
        if path is not None:
            return Naming(path=path, refused=tuple(refused))
        refused.append(f"the file name {escaped(claimed, 80)!r} was refused: not a plain relative path")
    return Naming(path=None, refused=tuple(refused))


def _claims(block: Block) -> Iterator[str]:
    if block.name and (looks_like_path(block.name) or "/" in block.name or "\\" in block.name):
        yield block.name
    for claimed in (_name_above(block.above), _name_in_comment(block.text)):
        if claimed and _fits(claimed, block.language):
            yield claimed


def _fits(name: str, language: str) -> bool:
    """Whether a name near a block can be the block's own: no commands in main.py, say."""
    is_python = name.endswith((".py", ".pyi"))
    if language in PYTHON:
        return is_python
    return not (is_python and language in SHELL)


def _name_above(line: str) -> str | None:
    """The file that a heading, a bold or quoted line, a label or "Save this as `main.py`:" names."""
    line = line[:_MAX_LINE_CHARACTERS]
    item = _LIST_MARKER.match(line)
    line = line[item.end() :] if item else line
    words = line.lstrip("# ").split()
    quoted = [word for word in line.split("`")[1::2] if looks_like_path(word.strip())]
    bare = [word.strip(_AROUND).rstrip(".") for word in words]
    names = set(quoted or filter(looks_like_path, bare))
    if len(names) != 1:
        return None
    is_title = line.startswith(("#", "**", "__")) or len(words) <= _MOST_WORDS_OF_A_LABEL
    return names.pop() if is_title or _NAMES_A_FILE.search(line) else None


def _name_in_comment(text: str) -> str | None:
    """The path that the first line is a comment of; #! and coding lines do not count."""
    for line in text[: 4 * _MAX_LINE_CHARACTERS].split("\n")[:4]:
        if not line.strip() or line.startswith("#!") or "coding:" in line or "coding=" in line:
            continue
        comment = _COMMENT.match(line[:_MAX_LINE_CHARACTERS].strip())
        if comment is None:
            return None
        rest = line.strip()[comment.end() : _MAX_LINE_CHARACTERS].lstrip("`\"'")
        word = re.split(r"[\s`\"'*(:]", rest, maxsplit=1)[0]
        behind = rest[len(word) :].lstrip("`\"'")
        return word if looks_like_path(word) and _BEHIND_NAME.fullmatch(behind) else None
    return None
