"""Checks of what the server says of itself: its OpenAPI document, against what it was seen to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pytest_qwen.checks.findings import failed, passed
from pytest_qwen.checks.reading import brief, named, why_missing, why_silent
from pytest_qwen.observations import Evidence
from pytest_qwen.scorecards import Finding

_DEFAULTS = {"title": "FastAPI", "version": "0.1.0", "description": ""}
Reader = Callable[[Evidence, Mapping[str, Any]], Finding]


def _documented(read: Reader) -> Callable[[Evidence], Finding]:
    """A check that needs a readable document; without one it says why there is none."""

    def check(evidence: Evidence) -> Finding:
        api = evidence.facts.get("api")
        if api is None:
            return why_silent(evidence) or why_missing(evidence, "the OpenAPI document")
        if "error" in api:
            return failed(f"no OpenAPI document: {api['error']}")
        return read(evidence, api)

    check.__name__, check.__doc__ = read.__name__, read.__doc__
    return check


def takes_an_image(evidence: Evidence) -> Finding:
    """K1: at least one operation takes an image: a file of a form, a raw body, or text that holds one."""
    if "predict" not in evidence.facts:
        return why_silent(evidence) or why_missing(evidence, "the OpenAPI document")
    predict = evidence.facts.get("predict")
    if not predict or predict["how"] == "query":
        return failed("no operation takes an image as a form's file, a raw body or a JSON field")
    operation = predict["operation"]
    return passed(f"{operation['method']} {operation['path']} takes an image ({predict['how']})")


@_documented
def describes_its_answer(evidence: Evidence, _api: Mapping[str, Any]) -> Finding:
    """B8: the predict operation documents a 200 answer whose schema says something."""
    operation = _predict(evidence)
    if operation is None:
        return failed("no operation takes an image")
    if not operation["success_schema"]:
        return failed(f"{_name(operation)}: the schema of its 200 answer is empty")
    return passed(f"{_name(operation)}: its 200 answer has a schema")


@_documented
def describes_its_operations(_evidence: Evidence, api: Mapping[str, Any]) -> Finding:
    """D3: each operation has a description, or a summary that is not its function's name."""
    bare = [_name(one) for one in api["operations"] if not _explained(one)]
    return _none_of(bare, "no description", f"all {len(api['operations'])} operations are described")


@_documented
def names_itself(_evidence: Evidence, api: Mapping[str, Any]) -> Finding:
    """D4: title, description and version are not FastAPI's defaults."""
    left = [name for name, default in _DEFAULTS.items() if api.get(name, "") == default]
    return _none_of(left, "left at the default", "title, description and version are its own")


@_documented
def describes_its_fields(evidence: Evidence, _api: Mapping[str, Any]) -> Finding:
    """D5: at least half of the fields of the predict operation's answer have a description or an example."""
    operation = _predict(evidence)
    fields: Sequence[Mapping[str, Any]] = operation["success"] if operation else ()
    if not fields:
        return failed("the answer of the predict operation has no documented fields")
    told = [one for one in fields if one["described"] or one["example"]]
    text = f"{len(told)} of {len(fields)} fields of the answer have a description or an example"
    return passed(text) if 2 * len(told) >= len(fields) else failed(text)


@_documented
def documents_its_statuses(evidence: Evidence, _api: Mapping[str, Any]) -> Finding:
    """D6: every status that the battery received is documented for the predict operation."""
    operation = _predict(evidence)
    seen = named(evidence, "good.", "kind.", "bad.", "odd.", "large", "bomb")
    if operation is None or not seen:
        return failed("the predict operation could not be asked")
    documented = set(operation["statuses"])
    missing = sorted({str(one.status) for one in seen if one.status is not None} - documented)
    if "default" in documented:
        missing = []
    return _none_of(missing, "received but not documented", "every status received is documented")


def example_works(evidence: Evidence) -> Finding:
    """D8: an example request of the answer works when it is sent, host and file replaced."""
    seen = named(evidence, "example")
    if not seen:
        if evidence.source.get("examples"):
            return why_missing(evidence, "the example request")
        return failed("the answer shows no example request that could be sent")
    good = next((one for one in seen if one.ok), None)
    return passed(str(good)) if good else failed("; ".join(brief(one) for one in seen[:3]))


def _predict(evidence: Evidence) -> Mapping[str, Any] | None:
    predict = evidence.facts.get("predict")
    return None if predict is None else predict["operation"]


def _explained(operation: Mapping[str, Any]) -> bool:
    """FastAPI titles an operation by its function's name, which explains nothing."""
    summary = operation["summary"].lower().replace(" ", "_")
    return bool(
        operation["description"] or (summary and not operation["operation_id"].lower().startswith(summary))
    )


def _name(operation: Mapping[str, Any]) -> str:
    return f"{operation['method']} {operation['path']}"


def _none_of(left: Sequence[str], problem: str, good: str) -> Finding:
    return failed(f"{problem}: {', '.join(left)}") if left else passed(good)
