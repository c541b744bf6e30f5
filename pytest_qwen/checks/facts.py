"""What every check of a program's text begins with: is there a program, was it read, does it parse."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from pytest_qwen.checks.findings import failed, infra, passed, unmeasured
from pytest_qwen.escaping import escaped
from pytest_qwen.observations import Evidence
from pytest_qwen.programs import NoProgram
from pytest_qwen.scorecards import Finding

Facts = Mapping[str, Any]
Reader = Callable[[Facts], Finding]
Check = Callable[[Evidence], Finding]


def of_text(reader: Reader) -> Check:
    """Make a check of a reader of the facts; it fails where there is no program at all."""
    return _check(reader, lambda facts: _not_read(facts, "text"))


def of_tree(reader: Reader) -> Check:
    """Make a check of a reader of the facts that a tree gives; it fails where the source does not parse."""
    return _check(reader, lambda facts: _not_parsed(facts) or _not_read(facts, "tree"))


def of_lint(reader: Reader) -> Check:
    """Make a check of a reader of ruff's findings too; unmeasured where ruff gave none."""

    def missing(facts: Facts) -> Finding | None:
        ruff = facts["ruff"]
        unread = _not_parsed(facts) or _not_read(facts, "tree")
        return unread or (None if ruff["ok"] else unmeasured(escaped(str(ruff["why"]))))

    return _check(reader, missing)


def found(facts: Facts, codes: Collection[str]) -> list[str]:
    """Ruff's findings of some codes, a line each, in the order of the lines."""
    findings = [
        (one["path"], one["line"], f"{at(one)} {one['message']} ({code})")
        for code, places in facts["ruff"]["findings"].items()
        if code in codes
        for one in places
    ]
    return [text for _, _, text in sorted(findings)]


def none_of(wrong: Sequence[str], good: str) -> Finding:
    """A pass saying `good` when nothing is wrong, else a fail that names the first things."""
    if not wrong:
        return passed(escaped(good))
    rest = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
    return failed(escaped(wrong[0], 200 - len(rest)) + rest)


def at(fact: Facts) -> str:
    """Where a fact was found: "main.py:14"."""
    return fact["path"] if fact.get("line") is None else f"{fact['path']}:{fact['line']}"


def _check(reader: Reader, missing: Callable[[Facts], Finding | None]) -> Check:
    def check(evidence: Evidence) -> Finding:
        if isinstance(evidence.program, NoProgram):
            return failed(escaped(f"no program ({evidence.program.reason}): {evidence.program.detail}"))
        if not evidence.source:
            why = "the source was not analysed"
            return infra(evidence.infra_errors[0]) if evidence.infra_errors else unmeasured(why)
        return missing(evidence.source) or reader(evidence.source)

    check.__name__, check.__doc__ = reader.__name__, reader.__doc__
    return check


def _not_parsed(facts: Facts) -> Finding | None:
    parse = facts["parse"]
    if parse["ok"]:
        return None
    error = next(iter(parse["errors"]), None)
    detail = f": {at(error)} {error['message']}" if error else ""
    return failed(escaped(f"source does not parse{detail}"))


def _not_read(facts: Facts, part: str) -> Finding | None:
    """Why a part of the analysis is missing, where it is."""
    why = next((one for one in facts["failures"] if one.startswith(f"{part}:")), None)
    return unmeasured(escaped(f"the analysis did not get through this source ({why})")) if why else None
