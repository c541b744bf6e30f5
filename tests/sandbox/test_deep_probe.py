"""schemathesis beside a real server: a planted crash is found, a clean server has none, nothing hangs or gets out."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pytest_qwen.deep import fuzz, summary
from pytest_qwen.exchanges import Call
from pytest_qwen.programs import Program, SourceFile
from pytest_qwen.sandbox.base import Sandbox
from pytest_qwen.scenarios.base import Seen, Trial
from pytest_qwen.scenarios.fastapi_crud.observe import observe
from pytest_qwen.serving import Launch, Serving

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]

CLEAN = """
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, StrictStr

app = FastAPI()
todos: dict[int, str] = {}


class Todo(BaseModel):
    title: StrictStr


@app.post("/todos", status_code=201)
def create(todo: Todo) -> int:
    todos[len(todos)] = todo.title
    return len(todos) - 1


@app.get("/todos/{todo_id}")
def read(todo_id: int) -> str:
    if todo_id not in todos:
        raise HTTPException(404)
    return todos[todo_id]
"""
CRASHING = CLEAN.replace("    return todos[", "    todo_id = 1 // todo_id\n    return todos[").replace(
    "    todos[len(todos)] =", "    assert todo.title.isascii()\n    todos[len(todos)] ="
)
OF_ITSELF = """
from __future__ import annotations
from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()


class Node(BaseModel):
    name: str
    children: list[Node] = []
    above: Node | None = None
    by_name: dict[str, Node] = {}


@app.post("/nodes")
def nodes(node: Node) -> Node:
    return node
"""
SOON_GONE = """
import os
from fastapi import FastAPI

app = FastAPI()
calls = []


@app.get("/numbers/{number}")
def numbers(number: int) -> int:
    calls.append(number)
    if len(calls) > 3:
        os._exit(3)
    return number
"""


FLOODING = """
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

app = FastAPI()


@app.get("/flood")
def flood() -> StreamingResponse:
    return StreamingResponse(bytes(1 << 20) for _ in range(2000))
"""


@contextmanager
def serving(sandbox: Sandbox, source: str) -> Iterator[tuple[Serving, str]]:
    """The server, and the document that it publishes."""
    argv = ("python3", "-m", "uvicorn", "main:app", "--host", "127.0.0.1", "--port", "8000")
    with Serving(sandbox, Launch(argv=argv, files={"main.py": source.encode()}, env={})) as started:
        assert started.ready()
        call = Call(name="openapi", method="GET", path="/openapi.json")
        yield started, started.probe.batch([call])["openapi"].body


def found(sandbox: Sandbox, source: str, **more: Any) -> dict[str, Any]:
    with serving(sandbox, source) as (started, document):
        facts = fuzz(sandbox, started.guest, document, seed=1, max_examples=5, **more)
    assert "error" not in facts, facts["error"]
    return facts


def crashes(facts: dict[str, Any]) -> set[str]:
    return {one["operation"] for one in facts["failures"] if one["check"] == "not_a_server_error"}


def test_a_clean_server_has_no_crash(sandbox: Sandbox) -> None:
    facts = found(sandbox, CLEAN)
    assert crashes(facts) == set()
    assert (facts["stopped"], facts["operations"], facts["errors"]) == ("completed", 2, [])
    assert facts["cases"] > 20


def test_planted_crashes_are_found_with_a_request_that_shows_them(sandbox: Sandbox) -> None:
    facts = found(sandbox, CRASHING)
    assert "POST /todos" in crashes(facts)
    crash = next(one for one in facts["failures"] if one["check"] == "not_a_server_error")
    assert crash["status"] == 500
    assert crash["request"].startswith("curl -X ")
    assert "not_a_server_error" in summary(facts)


def test_the_same_seed_finds_the_same(sandbox: Sandbox) -> None:
    assert found(sandbox, CRASHING) == found(sandbox, CRASHING)


def test_a_document_of_itself_neither_hangs_nor_bursts(sandbox: Sandbox) -> None:
    facts = found(sandbox, OF_ITSELF, seconds=60)
    assert facts["stopped"] in ("completed", "time")
    assert facts["cases"] > 0


def test_a_schema_that_no_value_can_have_is_an_error_of_its_own(sandbox: Sandbox) -> None:
    endless = {"type": "object", "required": ["a"], "properties": {"a": {"$ref": "#/components/schemas/E"}}}
    body = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/E"}}}}
    document = {
        "openapi": "3.1.0",
        "paths": {"/todos": {"post": {"requestBody": body, "responses": {}}}},
        "components": {"schemas": {"E": endless}},
    }
    with serving(sandbox, CLEAN) as (started, _):
        facts = fuzz(sandbox, started.guest, json.dumps(document), seed=1, max_examples=5, seconds=30)
    assert facts["stopped"] in ("completed", "broken", "time")


def test_the_time_limit_holds_and_what_was_found_is_told(sandbox: Sandbox) -> None:
    source = CLEAN.replace("    return len(", "    import time; time.sleep(2)\n    return len(")
    facts = found(sandbox, source, seconds=8)
    assert facts["stopped"] == "time"


def test_a_server_that_dies_is_told(sandbox: Sandbox) -> None:
    facts = found(sandbox, SOON_GONE)
    assert facts["stopped"] == "server"
    assert "the server stopped answering" in summary(facts)


def test_a_guest_that_is_gone_is_an_error_and_nothing_worse(sandbox: Sandbox) -> None:
    with serving(sandbox, CLEAN) as (started, document):
        started.guest.remove()
        facts = fuzz(sandbox, started.guest, document, seed=1)
    assert "broke down" in facts["error"]


def test_a_probe_that_an_answer_kills_is_an_error_and_leaves_the_guest_alone(sandbox: Sandbox) -> None:
    with serving(sandbox, FLOODING) as (started, document):
        facts = fuzz(sandbox, started.guest, document, seed=1, max_examples=1, seconds=30)
        assert started.guest.state().running
    assert "broke down" in facts["error"]


def test_a_trial_with_it_has_the_same_evidence_and_one_more_note(sandbox: Sandbox) -> None:
    program = Program(files=(SourceFile(path="main.py", text=CRASHING, language="python"),), main="main.py")
    app = {"framework": "fastapi", "kind": "object", "module": "main", "name": "app", "directory": ""}
    seen = {}
    for deep in (False, True):
        seen[deep] = Seen()
        trial = Trial(sandbox=sandbox, program=program, source={"app": app}, material=None, seed=1, deep=deep)
        observe(trial, seen[deep])
    plain, deeper = seen[False], seen[True]
    assert set(deeper.facts) - set(plain.facts) == {"deep"}
    assert [note[:26] for note in deeper.facts["notes"]] == ["deep probe (schemathesis 4"]
    assert "POST /todos" in crashes(deeper.facts["deep"])
    assert deeper.exchanges.keys() == plain.exchanges.keys()
    assert [one.status for one in deeper.exchanges.values()] == [
        one.status for one in plain.exchanges.values()
    ]
    assert (deeper.servers.keys(), deeper.infra_errors) == (plain.servers.keys(), [])
