"""Checks of a CRUD API, each with answers that pass and answers that fail."""

import json
from collections.abc import Callable

import pytest
from making import evidence, server

from pytest_qwen.checks import items
from pytest_qwen.exchanges import Exchange
from pytest_qwen.observations import Evidence
from pytest_qwen.scenarios.fastapi_crud.observe import SENT, id_of
from pytest_qwen.scorecards import CheckOutcome, Finding

PASS, FAIL = CheckOutcome.PASS, CheckOutcome.FAIL


def seen(name: str, status: int = 200, body: object = "") -> Exchange:
    text = body if isinstance(body, str) else json.dumps(body)
    return Exchange(name=name, method="GET", path="/todos", status=status, body=text)


def with_id(kind: str, number: int = 1) -> dict[str, object]:
    return {"id": number, **SENT[kind]}


ALL = [with_id("first"), with_id("second", 2), with_id("bare", 3)]
API = {
    "operations": [
        {"method": method, "path": path}
        for method, path in [
            ("POST", "/todos"), ("GET", "/todos"), ("GET", "/todos/{id}"), ("PUT", "/todos/{id}"),
            ("PATCH", "/todos/{id}"), ("DELETE", "/todos/{id}"),
        ]
    ]
}  # fmt: skip
GONE = [
    seen(f"gone.{what}", 404, {"detail": "no such to-do"}) for what in ("read", "update", "patch", "delete")
]
CASES: list[tuple[Callable[[Evidence], Finding], str, list[Exchange], CheckOutcome]] = [
    (items.creates, "201 with an id", [seen("create.0", 201, with_id("first"))], PASS),
    (items.creates, "200", [seen("create.0", 200, with_id("first"))], FAIL),
    (items.creates, "never asked", [], FAIL),
    (items.reads_back, "as sent", [seen("read.0", 200, with_id("first"))], PASS),
    (items.reads_back, "a field is lost", [seen("read.0", 200, {"id": 1, "title": "buy milk"})], FAIL),
    (items.reads_back, "no JSON", [seen("read.0", 200, "<html>")], FAIL),
    (items.fills_in_defaults, "defaults", [seen("create.2", 201, with_id("bare"))], PASS),
    (items.fills_in_defaults, "an empty text instead of null", [seen("create.2", 201, {**with_id("bare"), "description": ""})], FAIL),
    (items.lists, "in order, then without it", [seen("list.0", 200, ALL), seen("list.1", 200, ALL[1:])], PASS),
    (items.lists, "wrapped in an object", [seen("list.0", 200, {"todos": ALL}), seen("list.1", 200, {"todos": []})], PASS),
    (items.lists, "newest first", [seen("list.0", 200, ALL[::-1]), seen("list.1", 200, [])], FAIL),
    (items.lists, "still there", [seen("list.0", 200, ALL), seen("list.1", 200, [with_id("patched")])], FAIL),
    (items.filters, "the done one", [seen("filter.0", 200, [with_id("changed")])], PASS),
    (items.filters, "everything", [seen("filter.0", 200, [*ALL, with_id("changed")])], FAIL),
    (items.updates, "kept", [seen("update.0"), seen("read.1", 200, with_id("changed"))], PASS),
    (items.updates, "refused", [seen("update.0", 500), seen("read.1", 200, with_id("changed"))], FAIL),
    (items.updates, "lost", [seen("update.0"), seen("read.1", 200, with_id("first"))], FAIL),
    (items.patches, "the rest stays", [seen("patch.0"), seen("read.2", 200, with_id("patched"))], PASS),
    (items.patches, "the rest is lost", [seen("patch.0"), seen("read.2", 200, {**with_id("patched"), "done": False})], FAIL),
    (items.deletes, "204, then 404", [seen("delete.0", 204), *GONE], PASS),
    (items.deletes, "200", [seen("delete.0", 200), *GONE], FAIL),
    (items.deletes, "a second deletion works", [seen("delete.0", 204), *GONE[:3], seen("gone.delete", 204)], FAIL),
    (items.never_breaks, "4xx", [seen("bad.json", 422), *GONE], PASS),
    (items.never_breaks, "500", [seen("bad.json", 500), *GONE], FAIL),
    (items.refuses, "as asked", [seen("bad.json", 422), seen("bad.id", 404), seen("bad.method", 405)], PASS),
    (items.refuses, "accepted", [seen("bad.blank", 201)], FAIL),
    (items.numbers_apart, "eight ids", [seen(f"parallel.{i}", 201, {"id": i}) for i in range(8)], PASS),
    (items.numbers_apart, "one id twice", [seen(f"parallel.{i}", 201, {"id": min(i, 6)}) for i in range(8)], FAIL),
    (items.stays_alive, "alive", [seen("after.0")], PASS),
    (items.stays_alive, "broken", [seen("after.0", 500)], FAIL),
    (items.errors_say_why, "a message", GONE, PASS),
    (items.errors_say_why, "an empty body", [seen("gone.read", 404)], FAIL),
]  # fmt: skip


@pytest.mark.parametrize(
    ("check", "case", "given", "outcome"), CASES, ids=[f"{c.__name__}: {name}" for c, name, _, _ in CASES]
)
def test_check(
    check: Callable[[Evidence], Finding], case: str, given: list[Exchange], outcome: CheckOutcome
) -> None:
    made = next((one for one in given if one.name == "create.0"), seen("create.0", 201, with_id("first")))
    found = check(evidence(*given, facts={"sent": SENT, "id": id_of(made)}))
    assert found.outcome == outcome, found.evidence


def test_all_six_operations_are_wanted() -> None:
    assert items.offers_its_operations(evidence(facts={"api": API})).outcome == PASS
    fewer = {"operations": [one for one in API["operations"] if one["method"] != "PATCH"]}
    assert "change" in items.offers_its_operations(evidence(facts={"api": fewer})).evidence


@pytest.mark.parametrize("check", sorted({check for check, *_ in CASES}, key=lambda check: check.__name__))
def test_a_broken_harness_is_nobodys_fault(check: Callable[[Evidence], Finding]) -> None:
    broken = evidence(servers={}, infra_errors=("engine gone",))
    assert check(broken).outcome == CheckOutcome.INFRA_ERROR


def test_a_server_that_never_answered_fails_everything() -> None:
    dead = evidence(servers={"main": server(ready=False)})
    assert {check(dead).outcome for check, *_ in CASES} == {FAIL}


@pytest.mark.parametrize(
    ("body", "found"), [({"id": 7}, "7"), ({"id": "a"}, "a"), ({"id": True}, None), ([], None), ("x", None)]
)
def test_identifier(body: object, found: str | None) -> None:
    assert id_of(seen("create.0", 201, body)) == found
