"""Evidence and scorecards as plain JSON data: kept with the run, scored again, compared byte by byte."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pytest_qwen.errors import Misuse, explain
from pytest_qwen.exchanges import Exchange
from pytest_qwen.observations import Evidence, Server
from pytest_qwen.programs import NoProgram, Program, SourceFile
from pytest_qwen.records import RunRecord, build, plain
from pytest_qwen.scorecards import CheckOutcome, CheckResult, Rating, Scorecard

EVIDENCE_VERSION = "pytest-qwen-evidence/1"
SCORECARD_VERSION = "pytest-qwen-scorecard/1"

_Value = TypeVar("_Value")


def evidence_to_json(evidence: Evidence) -> dict[str, Any]:
    """The evidence as plain data, with its version."""
    return {"version": EVIDENCE_VERSION, **plain(evidence)}


def evidence_from_json(data: object) -> Evidence:
    """The evidence that `evidence_to_json` made; unknown fields are ignored.

    Raises Misuse for another version, and for data that is none.
    """
    return _read(data, EVIDENCE_VERSION, _evidence)


def scorecard_to_json(card: Scorecard) -> dict[str, Any]:
    """The scorecard as plain data, with its version."""
    return {"version": SCORECARD_VERSION, **plain(card)}


def scorecard_from_json(data: object) -> Scorecard:
    """The scorecard that `scorecard_to_json` made; unknown fields are ignored.

    Raises Misuse for another version, and for data that is none.
    """
    return _read(data, SCORECARD_VERSION, _scorecard)


def rated_of(record: RunRecord) -> tuple[tuple[Evidence, Scorecard], ...]:
    """What a test rated: the evidence and the scorecard of each answer. Raises Misuse as the readers do."""
    return tuple(
        (evidence_from_json(one.get("evidence")), scorecard_from_json(one.get("scorecard")))
        for one in record.rated
    )


def fingerprint(card: Scorecard) -> str:
    """The scorecard as canonical JSON without its timings: equal for two scorecards of the same evidence."""
    data = scorecard_to_json(card)
    del data["timings_s"]
    for check in data["checks"]:
        del check["timing"]
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _read(data: object, version: str, make: Callable[[Mapping[str, Any]], _Value]) -> _Value:
    kind = version.partition("/")[0].removeprefix("pytest-qwen-")
    if not isinstance(data, Mapping) or data.get("version") != version:
        found = f"version {data.get('version')!r}" if isinstance(data, Mapping) else type(data).__name__
        raise Misuse(
            explain(
                f"this is no {kind} that this version can read",
                found=found,
                slip="it was written by another version of pytest-qwen, or is another kind of data",
                choices=[version],
            )
        )
    try:
        return make(data)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        problem = f"a field of the {kind} is missing or malformed: {type(error).__name__}: {error}"
        raise Misuse(explain(problem, asked=str(data.get("answer")))) from error


def _evidence(data: Mapping[str, Any]) -> Evidence:
    return build(
        Evidence,
        data,
        program=_program(data["program"]),
        servers={name: build(Server, one) for name, one in data["servers"].items()},
        exchanges={name: _exchange(one) for name, one in data["exchanges"].items()},
        infra_errors=tuple(data["infra_errors"]),
    )


def _program(data: Mapping[str, Any]) -> Program | NoProgram:
    if "reason" in data:
        return build(NoProgram, data)
    files = {
        name: tuple(build(SourceFile, one) for one in data[name])
        for name in ("files", "attachments", "clients")
    }
    return build(Program, data, notes=tuple(data["notes"]), **files)


def _exchange(data: Mapping[str, Any]) -> Exchange:
    return build(Exchange, data, headers=tuple((name, value) for name, value in data["headers"]))


def _scorecard(data: Mapping[str, Any]) -> Scorecard:
    return build(
        Scorecard,
        data,
        ratings={name: build(Rating, one, caps=tuple(one["caps"])) for name, one in data["ratings"].items()},
        checks=tuple(
            build(CheckResult, one, outcome=CheckOutcome(one["outcome"]), profiles=tuple(one["profiles"]))
            for one in data["checks"]
        ),
        notes=tuple(data["notes"]),
    )
