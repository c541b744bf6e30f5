"""Says what can be seen in an answer without running it: its trees, its commands, what ruff finds.

Reads one JSON object in one line from standard input: `files`, `attachments` and `clients` (path → text),
`main`, `prose`, `model_id`. Prints one JSON object of facts. Needs the standard library and ruff alone.
Whatever reads the answer does so in a child with limits, so that a text made to crash it becomes a fact.
"""

from __future__ import annotations

import ast
import json
import os
import resource
import select
import signal
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

from pytest_qwen.sandbox.inside.analyse.app import program_facts
from pytest_qwen.sandbox.inside.analyse.clients import request_facts
from pytest_qwen.sandbox.inside.analyse.handlers import handlers_facts
from pytest_qwen.sandbox.inside.analyse.instructions import instruction_facts
from pytest_qwen.sandbox.inside.analyse.lint import lint_facts
from pytest_qwen.sandbox.inside.analyse.models import Models
from pytest_qwen.sandbox.inside.analyse.practices import practice_facts
from pytest_qwen.sandbox.inside.analyse.style import style_facts
from pytest_qwen.sandbox.inside.analyse.trees import Trees

Facts = dict[str, Any]
_SOURCE_BYTES = 1 << 20
_MEMORY_BYTES = 1 << 30
_STAGE_S = 8
_FACTS_BYTES = 16 << 20

_LISTS = (
    "failures imports routes handlers loads model_ids offloads direct_inference no_grad on_event functions "
    "duplicates stubs bare_excepts configuration uvicorn_runs debug cors bounds logging prints requirements "
    "install_commands start_commands examples harness_names"
)
NOTHING: Facts = {
    **{name: [] for name in _LISTS.split()},
    "parse": {"ok": False, "errors": []},
    "app": None,
    "main_block": None,
    "lifespan": None,
    "docstrings": {"modules": [], "public": 0, "documented": 0, "missing": []},
    "annotations": {"total": 0, "annotated": 0, "missing": []},
    "ruff": {"ok": False, "version": None, "why": "the source is too large", "counts": {}, "findings": {}},
}


def main() -> None:
    """Read the message, print the facts."""
    given = json.loads(sys.stdin.readline())
    sources = {path: text for path, text in given["files"].items() if path.endswith(".py")}
    facts = NOTHING | {"asked_model_id": given.get("model_id")}
    small = sum(len(text.encode("utf-8", "replace")) for text in sources.values()) <= _SOURCE_BYTES
    facts["parse"] = _parse(sources, given["main"]) if small else _refused(given["main"], "too large")
    stages: list[tuple[str, Callable[[], Facts]]] = [
        ("text", lambda: instruction_facts(given["prose"], given["attachments"], sources)),
        ("clients", lambda: {"requests": _requests(given["clients"])}),
    ]
    if facts["parse"]["ok"]:
        stages.append(("tree", lambda: tree_facts(sources, given["main"])))
    for name, stage in stages:
        found = _apart(stage)
        if "error" in found:
            facts["failures"].append(f"{name}: {found['error']}")
        else:
            facts |= found
    facts["examples"] = facts["examples"] + facts.pop("requests", [])
    if small:
        facts["ruff"] = lint_facts(sources)
    print(json.dumps(facts))


def _parse(sources: dict[str, str], main: str) -> Facts:
    found = _apart(
        lambda: {"errors": [error for path, text in sources.items() for error in _syntax(path, text)]}
    )
    if "error" in found:
        return _refused(main, found["error"])
    return {"ok": not found["errors"] and main in sources, "errors": found["errors"]}


def _syntax(path: str, text: str) -> list[Facts]:
    try:
        ast.parse(text)
    except SyntaxError as error:
        return [{"path": path, "line": error.lineno, "kind": "SyntaxError", "message": str(error.msg)[:120]}]
    except (RecursionError, MemoryError, ValueError) as error:
        return [{"path": path, "line": None, "kind": type(error).__name__, "message": str(error)[:120]}]
    return []


def _refused(main: str, kind: str) -> Facts:
    return {"ok": False, "errors": [{"path": main, "line": None, "kind": kind, "message": kind}]}


def tree_facts(sources: dict[str, str], main: str) -> Facts:
    """All that the trees of sources that parse show."""
    trees = Trees(sources, main)
    models = Models(trees)
    found = program_facts(trees) | handlers_facts(trees, models) | models.facts()
    return found | style_facts(trees) | practice_facts(trees)


def _requests(clients: dict[str, str]) -> list[Facts]:
    """The requests of client code; code that does not parse makes none."""
    return [
        one for path, text in clients.items() if not _syntax(path, text) for one in request_facts(text, path)
    ]


def _apart(work: Callable[[], Facts]) -> Facts:
    """The result of work done in a child with limits; {"error": …} when it did not survive."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _limited(work, writing)
    os.close(writing)
    data = _read(reading, child)
    os.close(reading)
    _, status = os.waitpid(child, 0)
    if data is None:
        return {"error": "timeout"}
    if os.WIFSIGNALED(status):
        return {"error": f"crash by signal {os.WTERMSIG(status)}"}
    try:
        result = json.loads(data)
    except ValueError:
        return {"error": "crash"}
    return result if isinstance(result, dict) else {"error": "crash"}


def _limited(work: Callable[[], Facts], writing: int) -> None:
    """In the child: do the work, write its result, and end."""
    try:
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        warnings.simplefilter("ignore")
        try:
            result = json.dumps(work())
        except Exception as error:
            result = json.dumps({"error": type(error).__name__})
        with os.fdopen(writing, "w") as pipe:
            pipe.write(result)
    finally:
        os._exit(0)


def _read(reading: int, child: int) -> bytes | None:
    """All that the child writes; None when it takes too long or writes too much, and then it is killed."""
    deadline, data = time.monotonic() + _STAGE_S, b""
    while len(data) <= _FACTS_BYTES:
        ready, _, _ = select.select([reading], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            break
        block = os.read(reading, 1 << 16)
        if not block:
            return data
        data += block
    os.kill(child, signal.SIGKILL)
    return None


if __name__ == "__main__":
    main()
