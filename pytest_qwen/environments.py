"""Which guest environment a program gets, what the image lacks, and for which models one stands in."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Environment = Literal["tf5", "tf4"]

# Public vision transformers that programs load beside or instead of the asked model, often for the image
# processor alone. Offline they would not be found, which says nothing about the program. Policy: model
# substitution. The same stand-in answers under these names too, and a program that loads one of them instead
# still does not use the model that was asked for.
ALIASES = (
    "google/vit-base-patch16-224",
    "google/vit-base-patch16-224-in21k",
    "google/vit-base-patch16-384",
    "google/vit-base-patch32-384",
    "google/vit-large-patch16-224",
)

_CLAUSE = re.compile(r"(===?|~=|!=|<=?|>=?)\s*v?(\d+(?:\.\d+)*)")
_FIVE = (5,)

# What transformers says of names and files that its version does not know, wherever it was caught.
_TRANSFORMERS_LACKS = re.compile(
    r"cannot import name '\w+' from 'transformers[\w.]*'"
    r"|No module named 'transformers\.[\w.]+'"
    r"|module '?transformers[\w.]*'? has no attribute '?\w+'?"
    r"|Unrecognized (?:feature extractor|image processor|processing class|processor|model|configuration)\b"
)
_WHY_CHARACTERS = 160
_OF_TRANSFORMERS = re.compile(r"/transformers/")
_RETRIED = {"ImportError", "ModuleNotFoundError", "AttributeError", "ValueError"}

_NO_MODULE = re.compile(r"No module named '([^']+)'")
# How programs call their own files. That one was left out is a fault of the answer, not of the image.
_OWN_NAMES = (
    "api app backend classifier common config constants core database db dependencies exceptions helpers "
    "inference lib logger logging_config main middleware model models predict predictor routers routes "
    "schemas server service services settings src tests util utils"
)
_OWN_FILES = frozenset(_OWN_NAMES.split())

_FRAME = re.compile(r'^[\s|]*File "([^"]+)", line \d+')
_ERROR = re.compile(
    r"^[\s|+-]*((?:\w+\.)*(?:\w*(?:Error|Exception|Exit|Interrupt|Warning|NotFound)))(?::\s*(.*))?$"
)
_CHAINED = ("During handling of the above exception", "The above exception was the direct cause")


def first_environment(requirements: Iterable[Mapping[str, Any]]) -> Environment:
    """The environment to start a program in: "tf4" when its requirements allow no transformers 5.

    Each requirement has a normalised "name" and a "specifier" such as ">=4.30,<5".
    """
    asked = (one["specifier"] for one in requirements if one["name"] == "transformers")
    return "tf4" if any(map(_below_five, asked)) else "tf5"


def _below_five(specifier: str) -> bool:
    return any(_stops_below_five(*clause) for clause in _CLAUSE.findall(specifier))


def _stops_below_five(operator: str, version: str) -> bool:
    """Whether a clause leaves out every release of version 5."""
    release = tuple(map(int, version.split(".")))
    while len(release) > 1 and release[-1] == 0:
        release = release[:-1]
    if operator in ("==", "===", "~=", "<="):
        return release < _FIVE
    return operator == "<" and release <= _FIVE


def retry_in_tf4(log: str) -> str | None:
    """Why a failed start deserves another one with transformers 4; None when it does not.

    That is an import, attribute or value error from transformers itself, or of a name that it lacks.
    """
    for line in reversed(log.splitlines()):
        if _TRANSFORMERS_LACKS.search(line):
            return _short(line.strip("│| \t"))
    for error in _last_errors(log):
        if error.kind in _RETRIED and _OF_TRANSFORMERS.search(error.raised_in):
            return _short(f"{error.kind}: {error.message}")
    return None


def _short(why: str) -> str:
    """The first sentence, which names what failed."""
    return why.partition(". ")[0][:_WHY_CHARACTERS]


def missing_import(log: str, own: Collection[str] = ()) -> str | None:
    """The package that a failed start lacked, by its import name; None when it failed for another reason.

    A module inside a package that is there, one of `own` and what is named as programs name their own files
    are no missing packages.
    """
    errors = _last_errors(log)
    lines = [e.message for e in errors if e.kind == "ModuleNotFoundError"] if errors else log.splitlines()
    names = [found[1] for line in lines if (found := _NO_MODULE.search(line))]
    packages = (name for name in names if "." not in name and name not in {*own, *_OWN_FILES})
    return next(packages, None)


def needs_substitution(model_ids: Iterable[str], asked: Collection[str]) -> tuple[str, ...]:
    """The models that a program loads and was not asked for, and that the stand-in answers for."""
    return tuple(name for name in dict.fromkeys(model_ids) if name in ALIASES and name not in asked)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Error:
    """The end of a traceback; `raised_in` is the file of its last frame."""

    kind: str
    message: str
    raised_in: str


def _last_errors(log: str) -> list[_Error]:
    """The last traceback of a log and those that led to it, the first cause first."""
    errors: list[_Error] = []
    frame, chained = None, False
    for line in log.splitlines():
        if found := _FRAME.match(line):
            frame = found[1]
        elif any(words in line for words in _CHAINED):
            chained = True
        elif frame is not None and (found := _ERROR.match(line)):
            kind, message = found[1].rpartition(".")[2], found[2] or ""
            error = _Error(kind=kind, message=message, raised_in=frame)
            errors = [*errors, error] if chained else [error]
            frame, chained = None, False
    return errors
