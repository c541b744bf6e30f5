"""The optional deep probe: schemathesis beside a running server, on our own copy of its OpenAPI document.

It is never scored. It runs in a container of its own; where that does not answer as agreed, the probe is
broken: that is told, and counts against nobody.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from pytest_qwen.errors import QwenError
from pytest_qwen.escaping import escaped
from pytest_qwen.openapi import NotReadable, sanitised
from pytest_qwen.sandbox.base import MIB, Container, Job, Limits, Sandbox, SandboxFault
from pytest_qwen.sandbox.tools import script
from pytest_qwen.serving import PORT

# The weightiest first.
CHECKS = (
    "not_a_server_error",
    "content_type_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "missing_required_header",
    "unsupported_method",
    "use_after_free",
    "ensure_resource_availability",
    "status_code_conformance",
)
SECONDS = 60.0
MAX_EXAMPLES = 25
_STOPS = ("completed", "time", "server", "broken")
# Beyond its own time: starting the interpreter, importing schemathesis, writing the answer.
_SLACK_S = 30.0
_MOST_BYTES = 1 * MIB
_MOST_FAILURES = 100
_MOST_ERRORS = 10
_MESSAGE_CHARACTERS = 300
_REQUEST_CHARACTERS = 600


def fuzz(
    sandbox: Sandbox,
    guest: Container,
    document_text: str,
    *,
    seed: int,
    port: int = PORT,
    max_examples: int = MAX_EXAMPLES,
    seconds: float = SECONDS,
) -> dict[str, Any]:
    """What schemathesis finds at the server that runs in `guest`, as plain data; raises for nothing they do.

    {"version", "seed", "operations", "cases", "failures": [{"check", "operation", "status", "message",
    "request", "usual"}], "errors", "stopped"}, or {"error"} with the reason why there is nothing to tell.
    "usual" are failures that almost every server has, or that are schemathesis's own.
    """
    document = sanitised(document_text)
    if isinstance(document, NotReadable):
        return {"error": f"the server's OpenAPI document cannot be used: {document.reason}"}
    if not document["paths"]:
        return {"error": "the server's OpenAPI document has no operations"}
    message = {
        "document": document,
        "base_url": f"http://127.0.0.1:{port}",
        "seed": seed,
        "max_examples": max_examples,
        "seconds": seconds,
        "checks": CHECKS,
    }
    try:
        facts = _facts(_answer(sandbox, guest, message, seconds), set(_forms(document)))
        return {**facts, "seed": seed}
    except (QwenError, ValueError, TypeError, KeyError, RecursionError) as error:
        return {"error": escaped(f"the deep probe broke down: {str(error) or type(error).__name__}", 300)}


def _answer(sandbox: Sandbox, guest: Container, message: Mapping[str, Any], seconds: float) -> Any:
    limits = Limits(memory_bytes=512 * MIB, pids=64, lifetime_s=seconds + 2 * _SLACK_S)
    job = Job(
        argv=("python3", "-I", "deep.py"), files={"deep.py": script("deep.py")}, limits=limits, role="probe"
    )
    conversation = sandbox.talk(job, beside=guest)
    try:
        conversation.send(json.dumps(message).encode())
        return json.loads(conversation.receive(seconds + _SLACK_S, most_bytes=_MOST_BYTES))
    finally:
        conversation.close()


def _forms(document: Mapping[str, Any]) -> Iterator[str]:
    """The operations that take a form with several parts, as schemathesis names them."""
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if any(
                kind.startswith("multipart/") for kind in operation.get("requestBody", {}).get("content", ())
            ):
                yield f"{method.upper()} {path}"


def _facts(raw: Any, forms: Collection[str]) -> dict[str, Any]:
    """The answer with every field of the agreed type, and every text harmless to show."""
    if raw["stopped"] not in _STOPS:
        raise SandboxFault("its answer has not the agreed form")
    return {
        "version": escaped(_text(raw["version"]), 40),
        "operations": _count(raw["operations"]),
        "cases": _count(raw["cases"]),
        "failures": [_failure(one, forms) for one in raw["failures"][:_MOST_FAILURES]],
        "errors": [escaped(_text(one), _MESSAGE_CHARACTERS) for one in raw["errors"][:_MOST_ERRORS]],
        "stopped": raw["stopped"],
    }


def _failure(raw: Any, forms: Collection[str]) -> dict[str, Any]:
    check, operation = raw["check"], _text(raw["operation"])
    if check not in CHECKS:
        raise SandboxFault("it told of a check that was not asked for")
    # Frameworks do not document the errors that a handler raises. In a form every part is text: one "of a
    # wrong type" is a right one.
    usual = check == "status_code_conformance" or (check == "negative_data_rejection" and operation in forms)
    return {
        "check": check,
        "operation": escaped(operation),
        "status": None if raw["status"] is None else _count(raw["status"]),
        "message": escaped(_text(raw["message"]), _MESSAGE_CHARACTERS),
        "request": escaped(_text(raw["request"]), _REQUEST_CHARACTERS),
        "usual": usual,
    }


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("its answer has something else where a text should be")
    return " ".join(value.split("\n"))


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 31:
        raise TypeError("its answer has something else where a number should be")
    return value


def summary(facts: Mapping[str, Any]) -> str:
    """One line for the notes of a scorecard."""
    if "error" in facts:
        return f"deep probe: {facts['error']}"
    return f"deep probe (schemathesis {facts['version']}, {facts['cases']} cases): {'; '.join(_parts(facts))}"


def _parts(facts: Mapping[str, Any]) -> Iterator[str]:
    found = {(one["check"], one["operation"]): one["usual"] for one in facts["failures"]}
    weighty = sorted((one for one, usual in found.items() if not usual), key=lambda one: CHECKS.index(one[0]))
    told = [f"{check} {operation}" for check, operation in weighty]
    yield _findings(len(told)) + (f": {', '.join(told[:3])}{', …' if len(told) > 3 else ''}" if told else "")
    if len(found) > len(told):
        yield f"{len(found) - len(told)} of the kind that almost every server has"
    if facts["stopped"] == "time":
        yield "ended by its time limit"
    elif facts["stopped"] == "server":
        yield "the server stopped answering"
    elif facts["stopped"] == "broken":
        yield f"schemathesis broke off: {facts['errors'][-1] if facts['errors'] else 'it did not say why'}"


def _findings(count: int) -> str:
    return "no findings" if count == 0 else "1 finding" if count == 1 else f"{count} findings"
