"""The copy that schemathesis reads is harmless, finite and never stricter; a broken deep probe is a note."""

import json
import re
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_qwen.deep import CHECKS, fuzz, summary
from pytest_qwen.errors import Unavailable
from pytest_qwen.exchanges import Exchange
from pytest_qwen.observations import Server
from pytest_qwen.openapi import NotReadable, sanitised
from pytest_qwen.programs import Program
from pytest_qwen.sandbox.base import SandboxFault
from pytest_qwen.scenarios.base import Seen, Trial
from pytest_qwen.scenarios.deeper import look_deeper
from pytest_qwen.serving import Launch


def document(*, schema: Any = None, schemas: Any = None, operation: Any = None, **more: Any) -> str:
    """A document whose one operation answers with the schema."""
    answers = {"200": {"description": "", "content": {"application/json": {"schema": schema}}}}
    paths = {"/items": {"get": {"responses": answers, **(operation or {})}}}
    parts = {"components": {"schemas": schemas}} if schemas is not None else {}
    return json.dumps({"openapi": "3.1.0", "info": {"title": "t"}, "paths": paths, **parts, **more})


def copied(text: str) -> dict[str, Any]:
    found = sanitised(text)
    assert not isinstance(found, NotReadable)
    return found


def answer_of(copy: Mapping[str, Any]) -> Any:
    return copy["paths"]["/items"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]


def schema_of(schema: Any, **more: Any) -> Any:
    return answer_of(copied(document(schema=schema, **more)))


def nodes(value: Any) -> Any:
    yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from nodes(inner)


def references(copy: Any) -> set[str]:
    return {one["$ref"] for one in nodes(copy) if isinstance(one, dict) and isinstance(one.get("$ref"), str)}


# ---- the copy


@pytest.mark.parametrize(
    "elsewhere",
    [
        "http://127.0.0.1:1/x.json",
        "https://example.org/x.json#/a",
        "file:///etc/passwd",
        "/etc/passwd",
        "../secrets.json",
        "other.yaml#/components",
        "#anchor",
        "#",
        "",
        7,
        None,
        {"$ref": "http://127.0.0.1:1/"},
    ],
)
def test_a_reference_to_elsewhere_becomes_anything_at_all(elsewhere: Any) -> None:
    assert schema_of({"$ref": elsewhere}) == {}
    in_a_property = schema_of({"type": "object", "properties": {"a": {"$ref": elsewhere}}})
    assert in_a_property == {"type": "object", "properties": {"a": {}}}
    through = schema_of({"$ref": "#/components/schemas/A"}, schemas={"A": {"$ref": elsewhere}})
    assert through == {"$ref": "#/components/schemas/s0"}
    item = json.dumps({"openapi": "3.1.0", "paths": {"/items": {"$ref": elsewhere}}})
    assert copied(item)["paths"] == {}


def test_nothing_that_names_an_address_or_a_text_is_left() -> None:
    hostile = "http://evil.example/"
    everything = {
        "servers": [{"url": hostile}],
        "externalDocs": {"url": hostile},
        "callbacks": {"c": {hostile: {"post": {"responses": {}}}}},
        "security": [{"evil": []}],
        "description": hostile,
        "operationId": hostile,
        "tags": [hostile],
        "x-anything": hostile,
        "parameters": [
            {
                "name": "q",
                "in": "query",
                "schema": {"type": "string", "default": hostile},
                "examples": {"one": {"externalValue": hostile}, "two": {"$ref": hostile}},
                "example": {"$ref": hostile},
            }
        ],
        "requestBody": {
            "content": {"application/json": {"schema": {}, "examples": {"e": {"externalValue": hostile}}}}
        },
    }
    schema = {"$id": hostile, "$schema": hostile, "xml": {"namespace": hostile}, "enum": [{"$ref": hostile}]}
    text = document(
        schema=schema,
        operation=everything,
        servers=[{"url": hostile}],
        webhooks={"w": {"post": {"$ref": hostile}}},
        info={"title": hostile, "version": hostile},
    )
    copy = copied(text)
    assert "evil" not in json.dumps(copy)
    assert set(copy) == {"openapi", "info", "paths", "components"}
    kept = copy["paths"]["/items"]["get"]
    assert kept["parameters"] == [
        {"name": "q", "in": "query", "required": False, "schema": {"type": "string"}}
    ]
    assert kept["requestBody"] == {"required": False, "content": {"application/json": {"schema": {}}}}


def test_a_schema_of_itself_is_written_once_and_stays_a_schema_of_itself() -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#/components/schemas/Node"}}}
    copy = copied(document(schema={"$ref": "#/components/schemas/Node"}, schemas={"Node": node}))
    own = {"$ref": "#/components/schemas/s0"}
    assert answer_of(copy) == own
    assert copy["components"]["schemas"] == {"s0": {"type": "object", "properties": {"next": own}}}


def test_references_in_a_circle_lead_to_anything_at_all() -> None:
    circle = {"A": {"$ref": "#/components/schemas/B"}, "B": {"$ref": "#/components/schemas/A"}}
    copy = copied(document(schema={"$ref": "#/components/schemas/A"}, schemas=circle))
    assert copy["components"]["schemas"] == {"s0": {}}


def test_a_reference_to_any_place_of_the_document_works() -> None:
    text = document(
        schema={"$ref": "#/x-parts/a~1b/0"},
        operation={"parameters": [{"$ref": "#/x-parts/p"}]},
        **{"x-parts": {"a/b": {"0": {"type": "integer"}}, "p": {"name": "n", "in": "path"}}},
    )
    copy = copied(text)
    assert copy["components"]["schemas"] == {"s0": {"type": "integer"}}
    assert copy["paths"]["/items"]["get"]["parameters"][0]["required"] is True


def test_a_thousand_laughs_stay_as_short_as_they_were() -> None:
    laughs = {
        f"L{i}": {"allOf": [{"$ref": f"#/components/schemas/L{i + 1}"}] * 10, "type": "object"}
        for i in range(100)
    }
    text = document(schema={"$ref": "#/components/schemas/L0"}, schemas=laughs)
    assert len(json.dumps(copied(text))) < 1.01 * len(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[]", "not an OpenAPI 3 document"),
        ('{"swagger": "2.0", "paths": {}}', "not an OpenAPI 3 document"),
        ('{"openapi": "3.1.0", "x": "' + "x" * (2 << 20) + '"}', "larger than"),
        ('{"openapi": ' + "[" * 100_000, "nested deeper"),
        ('{"openapi": "3.1.0", "x": [' + "0," * 200_000 + "0]}", "more than 100000 values"),
        (
            json.dumps(
                {"openapi": "3.1.0", "paths": {f"/{i}": {"get": {"responses": {}}} for i in range(201)}}
            ),
            "more than 200 operations",
        ),
    ],
    ids=["empty", "cut", "list", "swagger", "large", "deep", "wide", "operations"],
)
def test_a_document_beyond_the_limits_is_not_read(text: str, reason: str) -> None:
    found = sanitised(text)
    assert isinstance(found, NotReadable)
    assert reason in found.reason


def test_overlapping_parts_do_not_multiply_without_end() -> None:
    """Each reference leads to one more part of the same deep schema, which all would be written again."""
    leaf = {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(5000)}}
    deep: Any = leaf
    for _ in range(25):
        deep = {"items": deep}
    places = ["#/components/schemas/D" + "/items" * depth for depth in range(26)]
    text = document(schema={"anyOf": [{"$ref": place} for place in places]}, schemas={"D": deep})
    assert sanitised(text) == NotReadable(reason="more than 100000 nodes once its references are followed")


def test_a_reference_so_long_that_to_follow_it_again_and_again_takes_minutes_is_not_followed() -> None:
    schemas = {"a" * 900: {"type": "string"}, "b" * 1000: {"type": "string"}}
    schema = {
        "items": {"$ref": f"#/components/schemas/{'a' * 900}"},
        "allOf": [{"$ref": f"#/components/schemas/{'b' * 1000}"}],
    }
    copy = copied(document(schema=schema, schemas=schemas))
    assert copy["components"]["schemas"] == {"s0": {"type": "string"}, "s1": {}}


def test_a_long_list_that_is_referred_to_from_everywhere_is_counted_each_time() -> None:
    deep: Any = {"enum": list(range(20_000)), "required": [str(i) for i in range(20_000)]}
    for _ in range(10):
        deep = {"items": deep}
    places = ["#/components/schemas/D" + "/items" * depth for depth in range(11)]
    text = document(schema={"anyOf": [{"$ref": place} for place in places]}, schemas={"D": deep})
    assert isinstance(sanitised(text), NotReadable)


def test_what_cannot_be_copied_makes_the_copy_permit_more() -> None:
    assert schema_of({"not": {"$ref": "http://x/"}, "if": {}, "then": {"type": "null"}}) == {}
    either = {"oneOf": [{"type": "string"}, {"$ref": "http://x/"}]}
    assert schema_of(either) == {"allOf": [{"anyOf": [{"type": "string"}, {}]}]}
    assert schema_of({"type": ["string", "odd"], "enum": ["a", {"b": 1}]}) == {}
    closed = {"additionalProperties": False, "properties": {"a": {}, "b" * 501: {}}}
    assert schema_of(closed) == {"properties": {"a": {}}}
    content = {"application/json": {"schema": {}}, "no media type": {"schema": {}}}
    copy = copied(document(operation={"responses": {"200": {"content": content}, "odd": {}}}))
    assert copy["paths"]["/items"]["get"]["responses"] == {"200": {"description": ""}}


def test_a_schema_that_asks_for_gigabytes_does_not() -> None:
    assert schema_of({"type": "string", "minLength": 10**9, "maxLength": 10**9}) == {
        "type": "string",
        "maxLength": 10**9,
    }
    assert schema_of({"minItems": 10**400, "multipleOf": float("inf"), "minimum": float("nan")}) == {}


def test_paths_and_headers_that_a_client_would_misread_are_left_out() -> None:
    get = {"get": {"responses": {}, "parameters": [{"name": "a\r\nb", "in": "header"}]}}
    paths = ("/fine/{x}", "//evil.example/x", "http://evil.example/", "/a b", "x", "/\ud800")
    copy = copied(json.dumps({"openapi": "3.0.3", "paths": dict.fromkeys(paths, get)}))
    assert copy["paths"] == {"/fine/{x}": {"get": {"responses": {"default": {"description": ""}}}}}


def test_what_fastapi_writes_is_kept() -> None:
    todo = {
        "title": "Todo",
        "type": "object",
        "required": ["title"],
        "properties": {
            "title": {"type": "string", "minLength": 1, "maxLength": 200, "title": "Title"},
            "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            "state": {"enum": ["open", "done"], "type": "string"},
            "tags": {"type": "array", "items": {"type": "string"}, "default": []},
        },
    }
    copy = copied(
        document(schema={"type": "array", "items": {"$ref": "#/components/schemas/T"}}, schemas={"T": todo})
    )
    assert answer_of(copy) == {"type": "array", "items": {"$ref": "#/components/schemas/s0"}}
    assert copy["components"]["schemas"]["s0"] == {
        "type": "object",
        "required": ["title"],
        "properties": {
            "title": {"type": "string", "minLength": 1, "maxLength": 200},
            "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            "state": {"enum": ["open", "done"], "type": "string"},
            "tags": {"type": "array", "items": {"type": "string"}},
        },
    }


WORDS = """$ref openapi paths /items get post responses 200 content application/json schema components schemas A B
properties items allOf oneOf enum type required parameters name in minLength additionalProperties"""
KEYS = st.sampled_from(WORDS.split())
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(
        ["#/components/schemas/A", "#/components/schemas/B", "#/paths/~1items", "http://x/", "path"]
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=40,
)


@given(VALUES, VALUES, VALUES)
def test_whatever_comes_the_copy_is_plain_and_refers_to_itself_alone(item: Any, one: Any, two: Any) -> None:
    text = json.dumps(
        {"openapi": "3.1.0", "paths": {"/items": item}, "components": {"schemas": {"A": one, "B": two}}}
    )
    copy = copied(text)
    assert json.loads(json.dumps(copy, allow_nan=False)) == copy
    json.dumps(copy, ensure_ascii=False).encode()
    schemas = copy["components"]["schemas"]
    assert references(copy) <= {f"#/components/schemas/{name}" for name in schemas}


# ---- the host's side


class Conversation:
    container: Any = None

    def __init__(self, answer: Any) -> None:
        self.answer, self.sent, self.closed = answer, [], False

    def send(self, line: bytes) -> None:
        self.sent.append(json.loads(line))

    def receive(self, timeout_s: float, *, most_bytes: int = 0) -> bytes:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer if isinstance(self.answer, bytes) else json.dumps(self.answer).encode()

    def close(self) -> None:
        self.closed = True


class Sandbox:
    """Gives one conversation, or breaks down."""

    def __init__(self, answer: Any) -> None:
        self.conversation, self.jobs = Conversation(answer), []

    def talk(self, job: Any, *, beside: Any = None) -> Any:
        self.jobs.append((job, beside))
        return self.conversation

    def start(self, job: Any) -> Any:
        raise SandboxFault("the engine is gone")


GUEST: Any = object()
CRASH = {
    "check": "not_a_server_error",
    "operation": "POST /items",
    "status": 500,
    "message": "Server error\nat once",
    "request": "curl -d $'\x1b[2J' http://127.0.0.1:8000/items",
}
ANSWER = {
    "version": "4.32.5",
    "operations": 1,
    "cases": 512,
    "failures": [{**CRASH, "check": "status_code_conformance"}, CRASH],
    "errors": [],
    "stopped": "completed",
}


def told(answer: Any, text: str = document(schema={})) -> dict[str, Any]:
    return fuzz(Sandbox(answer), GUEST, text, seed=3)  # type: ignore[arg-type]


def test_the_copy_goes_in_and_plain_facts_come_out() -> None:
    sandbox: Any = Sandbox(ANSWER)
    facts = fuzz(sandbox, GUEST, document(schema={"$ref": "file:///etc/passwd"}), seed=3, port=81)
    (job, beside), (sent,) = sandbox.jobs[0], sandbox.conversation.sent
    assert beside is GUEST
    assert (job.role, job.limits.memory_bytes, job.argv) == ("probe", 512 << 20, ("python3", "-I", "deep.py"))
    assert job.limits.lifetime_s > sent["seconds"]
    assert (sent["base_url"], sent["seed"], sent["checks"]) == ("http://127.0.0.1:81", 3, list(CHECKS))
    assert "passwd" not in json.dumps(sent)
    assert sandbox.conversation.closed
    assert (facts["cases"], facts["seed"], facts["stopped"]) == (512, 3, "completed")
    usual, crash = facts["failures"]
    assert (usual["usual"], crash["usual"]) == (True, False)
    assert crash["message"] == "Server error at once"
    assert "\x1b" not in crash["request"]


def test_the_summary_says_what_is_worth_a_look_first() -> None:
    refused = {**CRASH, "check": "negative_data_rejection", "status": 200}
    facts = told({**ANSWER, "failures": [refused, *ANSWER["failures"]], "stopped": "time"})  # type: ignore[misc]
    assert summary(facts) == (
        "deep probe (schemathesis 4.32.5, 512 cases): 2 findings: not_a_server_error POST /items, "
        "negative_data_rejection POST /items; 1 of the kind that almost every server has; ended by its time limit"
    )
    assert summary(told({**ANSWER, "failures": []})).endswith("512 cases): no findings")
    assert "stopped answering" in summary(told({**ANSWER, "stopped": "server"}))
    assert "broke off: why" in summary(told({**ANSWER, "stopped": "broken", "errors": ["why"]}))


def test_a_wrong_type_in_a_form_is_no_finding_for_all_of_it_is_text() -> None:
    form = {"requestBody": {"content": {"multipart/form-data": {"schema": {"type": "object"}}}}}
    refused = {**CRASH, "check": "negative_data_rejection", "operation": "GET /items", "status": 200}
    facts = told({**ANSWER, "failures": [refused]}, document(schema={}, operation=form))
    assert facts["failures"][0]["usual"]
    assert not told({**ANSWER, "failures": [refused]})["failures"][0]["usual"]


@pytest.mark.parametrize(
    "answer",
    [
        SandboxFault("the job ended before it answered: killed"),
        Unavailable("the guest image is not there"),
        b"no JSON",
        b"[" * 5000,
        [],
        None,
        7,
        {},
        {**ANSWER, "stopped": "well"},
        {**ANSWER, "cases": "many"},
        {**ANSWER, "cases": -1},
        {**ANSWER, "failures": {"a": 1}},
        {**ANSWER, "failures": ["text"]},
        {**ANSWER, "failures": [{**CRASH, "check": "of its own"}]},
        {**ANSWER, "failures": [{**CRASH, "operation": 7}]},
        {**ANSWER, "errors": [7]},
    ],
    ids=repr,
)
def test_a_broken_probe_is_told_and_raises_nothing(answer: Any) -> None:
    facts = told(answer)
    assert list(facts) == ["error"]
    assert re.match(r"deep probe: the deep probe broke down: .+", summary(facts))


def test_without_a_document_nothing_is_started() -> None:
    for text in ("", "{}", '{"openapi": "3.1.0", "paths": {}}'):
        sandbox: Any = Sandbox(ANSWER)
        assert "OpenAPI document" in fuzz(sandbox, GUEST, text, seed=0)["error"]
        assert not sandbox.jobs


# ---- in a trial


def seen_of(*, ready: bool = True) -> Seen:
    got = Exchange(name="openapi", method="GET", path="/openapi.json", status=200, body=document(schema={}))
    return Seen(
        servers={"main": Server(ready=ready)},
        exchanges={"openapi": got},
        facts={"notes": ["run with a stub"]},
    )


def trial_of(*, deep: bool) -> Trial:
    program = Program(files=(), main="main.py")
    sandbox: Any = Sandbox(ANSWER)
    return Trial(sandbox=sandbox, program=program, source={}, material=None, seed=0, deep=deep)


LAUNCH = Launch(argv=("python3",), files={}, env={})


def test_a_sandbox_that_breaks_down_is_a_note_and_no_infra_error() -> None:
    seen = seen_of()
    before = (dict(seen.servers), dict(seen.exchanges))
    look_deeper(trial_of(deep=True), seen, LAUNCH)
    assert seen.infra_errors == []
    assert (seen.servers, seen.exchanges) == before
    assert seen.facts["deep"] == {"error": "the sandbox broke down: the engine is gone"}
    assert seen.facts["notes"] == [
        "run with a stub",
        "deep probe: the sandbox broke down: the engine is gone",
    ]


@pytest.mark.parametrize(("deep", "ready"), [(False, True), (True, False)])
def test_unasked_or_without_a_server_nothing_is_added(deep: bool, ready: bool) -> None:
    seen = seen_of(ready=ready)
    look_deeper(trial_of(deep=deep), seen, LAUNCH)
    assert seen == seen_of(ready=ready)
