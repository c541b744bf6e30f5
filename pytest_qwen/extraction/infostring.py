"""What stands behind an opening fence: the language, and the file name that it claims."""

from __future__ import annotations

import re
from dataclasses import dataclass

_MAX_CHARACTERS = 300  # what comes behind is not read, so that no pattern meets a long line
_MAX_LANGUAGE_CHARACTERS = 24

_ATTRIBUTE = re.compile(r"""([A-Za-z_-]+)[ \t]*=[ \t]*("[^"]*"|'[^']*'|[^\s,}]+)""")
_NAMING = ("title", "filename", "file", "name", "path")

_SUFFIXES = (
    "py|pyi|txt|toml|cfg|ini|ya?ml|json|html?|css|js|ts|md|sh|bash|bat|ps1|sql|csv|xml|jinja2?|j2|conf|lock"
    "|example"
)
_PATH = re.compile(
    rf"""(?:[A-Za-z]:)?[/\\~]*                             # absolute names are seen here, and refused later
    (?:[\w.-]+[/\\]+)*
    (?:[\w.-]+\.(?:{_SUFFIXES})|Dockerfile(?:\.\w+)?|Makefile|Procfile|Pipfile|\.\w+ignore|\.env(?:\.\w+)?)""",
    re.VERBOSE | re.ASCII,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Info:
    """The language in lower case ("" for none) and the file name that was claimed, as it was written."""

    language: str
    name: str | None


def looks_like_path(word: str) -> bool:
    """Whether a word reads as the name of a file, safe or not."""
    return len(word) <= _MAX_CHARACTERS and _PATH.fullmatch(word) is not None


def read_info(info: str) -> Info:
    """Reads `python`, `py title="main.py"`, `{.python file=main.py}`, `python:main.py` and `main.py`."""
    info = info[:_MAX_CHARACTERS].strip()
    attributes = {key.lower(): value.strip("\"'") for key, value in _ATTRIBUTE.findall(info)}
    named = next((attributes[key] for key in _NAMING if attributes.get(key)), None)
    words = re.sub(r"[{},]", " ", _ATTRIBUTE.sub(" ", info)).split()
    paths = [word for word in words if looks_like_path(word)]
    if words and words[0] in paths:
        return Info(language="", name=named or words[0])
    language, _, behind = words[0].partition(":") if words else ("", "", "")
    if looks_like_path(behind):
        paths.insert(0, behind)
    language = language.strip(".[]").lower()[:_MAX_LANGUAGE_CHARACTERS]
    return Info(language=language, name=named or next(iter(paths), None))
