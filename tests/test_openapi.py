"""Documents and routes: what FastAPI writes is understood, and hostile documents end quickly and fetch nothing."""

import json
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_qwen.openapi import (
    Document,
    NotReadable,
    all_predicts,
    find_health,
    find_predict,
    from_routes,
    read_document,
    routes_document,
)

FILE = {"type": "string", "contentMediaType": "application/octet-stream"}
OLD_FILE = {"type": "string", "format": "binary"}
TEXT = {"type": "string"}


def operation(name: str, **more: Any) -> dict[str, Any]:
    """What FastAPI makes of a function of that name."""
    return {
        "summary": name.replace("_", " ").title(),
        "operationId": f"{name}_x_post",
        "responses": {},
        **more,
    }


def takes(media_type: str, schema: Any) -> dict[str, Any]:
    return operation("take", requestBody={"content": {media_type: {"schema": schema}}})


def form(**fields: Any) -> dict[str, Any]:
    return takes("multipart/form-data", {"type": "object", "properties": fields, "required": [*fields]})


def document(paths: dict[str, Any], schemas: dict[str, Any] | None = None) -> str:
    info = {"title": "Moderation", "version": "2.1", "description": "Says what an image is."}
    return json.dumps(
        {"openapi": "3.1.0", "info": info, "paths": paths, "components": {"schemas": schemas or {}}}
    )


def read(paths: dict[str, Any], schemas: dict[str, Any] | None = None) -> Document:
    found = read_document(document(paths, schemas))
    assert isinstance(found, Document), found
    return found


def post(path: str, body: dict[str, Any]) -> dict[str, Any]:
    return {path: {"post": body}}


# ---- reading


def test_a_document_as_fastapi_writes_it() -> None:
    schemas = {
        "Body_predict": {"type": "object", "properties": {"file": FILE}, "required": ["file"]},
        "Score": {"properties": {"label": {**TEXT, "examples": ["nsfw"]}}, "type": "object"},
        "Answer": {
            "type": "object",
            "required": ["label"],
            "properties": {
                "label": {**TEXT, "description": "The class"},
                "note": {"anyOf": [TEXT, {"type": "null"}]},
                "all": {"type": "array", "items": {"$ref": "#/components/schemas/Score"}},
            },
        },
    }
    answer = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Answer"}}}}
    body = takes("multipart/form-data", {"$ref": "#/components/schemas/Body_predict"})
    found = read(
        {
            "/predict": {"post": {**body, "responses": {"422": {}, "200": answer}}},
            "/items/{item_id}": {
                "parameters": [{"name": "item_id", "in": "path", "required": True, "schema": TEXT}],
                "get": operation(
                    "item", responses={"200": {"content": {"application/json": {"schema": {}}}}}
                ),
            },
        },
        schemas,
    )
    assert (found.title, found.version, found.description) == ("Moderation", "2.1", "Says what an image is.")
    predict, item = found.operations
    assert (predict.method, predict.path, predict.statuses) == ("POST", "/predict", ("422", "200"))
    assert predict.bodies[0].properties[0].required
    assert predict.bodies[0].properties[0].content_media_type == "application/octet-stream"
    fields = {one.name: (one.type, one.required, one.described, one.example) for one in predict.success}
    assert fields == {
        "label": ("string", True, True, False),
        "note": ("string", False, False, False),
        "all": ("array", False, False, False),
        "all.label": ("string", False, False, True),
    }
    assert predict.success_schema
    assert not item.success_schema
    assert [(one.name, one.where, one.required) for one in item.parameters] == [("item_id", "path", True)]


@pytest.mark.parametrize(
    ("more", "explained"),
    [
        ({}, False),
        ({"description": "  "}, False),
        ({"description": "Classifies."}, True),
        ({"summary": "Classify one image"}, True),
        ({"summary": ""}, False),
    ],
)
def test_a_summary_made_of_the_functions_name_explains_nothing(more: dict[str, Any], explained: bool) -> None:
    found = read(post("/predict", operation("predict_image") | more))
    assert found.operations[0].explained is explained


def test_inherited_and_composed_schemas_give_all_their_fields() -> None:
    schemas = {
        "Base": {"properties": {"file": OLD_FILE}},
        "More": {"properties": {"top_k": {"type": "integer"}}},
    }
    both = {"allOf": [{"$ref": f"#/components/schemas/{name}"} for name in schemas]}
    found = read(post("/predict", takes("multipart/form-data", both)), schemas)
    assert [one.name for one in found.operations[0].bodies[0].properties] == ["file", "top_k"]


def test_a_reference_with_escapes_in_it_is_followed() -> None:
    found = read(
        post("/p", takes("multipart/form-data", {"$ref": "#/components/schemas/a~1b%20~0c"})),
        {"a/b ~c": {"properties": {"file": FILE}}},
    )
    assert find_predict(found) is not None


# ---- which operation takes an image


@pytest.mark.parametrize(
    ("body", "how", "field"),
    [
        (form(file=FILE), "multipart", "file"),
        (form(upload=OLD_FILE), "multipart", "upload"),
        (form(x={"type": "string", "contentMediaType": "image/png"}), "multipart", "x"),
        (form(x={"anyOf": [OLD_FILE, {"type": "null"}]}), "multipart", "x"),
        (form(title=TEXT, photo=TEXT), "multipart", "photo"),
        (form(files={"type": "array", "items": FILE}), "form-list", "files"),
        (takes("image/png", OLD_FILE), "raw", None),
        (takes("application/octet-stream", {}), "raw", None),
        (takes("application/json", {"properties": {"image_base64": TEXT}}), "json-base64", "image_base64"),
        (takes("application/json", {"properties": {"top": TEXT, "image": TEXT}}), "json-base64", "image"),
        (takes("application/json", {"properties": {"imageUrl": TEXT}}), "json-url", "imageUrl"),
        (takes("application/json", {"properties": {"image_path": TEXT}}), "json-url", "image_path"),
        (takes("application/json", {"properties": {"x": TEXT | {"format": "uri"}}}), "json-url", "x"),
        (takes("application/json", {"type": "string", "title": "Image"}), "json-base64", None),
        (
            operation("p", parameters=[{"name": "image_url", "in": "query", "schema": TEXT}]),
            "query",
            "image_url",
        ),
    ],
)
def test_how_an_image_is_taken(body: dict[str, Any], how: str, field: str | None) -> None:
    found = find_predict(read(post("/x", body)))
    assert found is not None
    assert (found.how, found.field, found.operation.method, found.operation.path) == (
        how,
        field,
        "POST",
        "/x",
    )
    assert found.many == (how == "form-list")


@pytest.mark.parametrize(
    "body",
    [
        operation("nothing"),
        form(title=TEXT, count={"type": "integer"}),
        takes("application/json", {"properties": {"question": TEXT}}),
        takes("text/plain", TEXT),
        operation("q", parameters=[{"name": "limit", "in": "query", "schema": {"type": "integer"}}]),
    ],
)
def test_an_operation_that_takes_no_image(body: dict[str, Any]) -> None:
    assert find_predict(read(post("/predict", body))) is None


def test_names_are_trusted_only_where_no_file_is_declared() -> None:
    found = read({**post("/predict", form(image_name=TEXT)), **post("/other", form(x=FILE))})
    assert [one.operation.path for one in all_predicts(found)] == ["/other"]


def test_the_likeliest_operation_comes_first() -> None:
    query = operation("q", parameters=[{"name": "url", "in": "query", "required": True, "schema": TEXT}])
    paths = {
        "/by-url": {"get": query},
        "/predict/json": {"post": takes("application/json", {"properties": {"image_b64": TEXT}})},
        "/predict/raw": {"post": takes("image/jpeg", {})},
        "/predict/many": {"post": form(files={"type": "array", "items": FILE})},
        "/upload": {"post": form(file=FILE)},
        "/predict/batch": {"post": form(file=FILE)},
        "/predict/put": {"put": form(file=FILE)},
        "/predict": {"post": form(file=FILE)},
        "/files": {"delete": form(file=FILE)},
    }
    assert [one.operation.path for one in all_predicts(read(paths))] == [
        "/predict", "/predict/batch", "/upload", "/predict/put", "/predict/many", "/predict/raw",
        "/predict/json", "/by-url",
    ]  # fmt: skip


def test_what_else_a_request_needs() -> None:
    wanted = [
        {"name": name, "in": "query", "required": name == "key", "schema": TEXT} for name in ("key", "k")
    ]
    found = find_predict(read(post("/predict", {**form(file=FILE, user=TEXT), "parameters": wanted})))
    assert found is not None
    assert [one.name for one in found.others] == ["user"]
    assert [one.name for one in found.parameters] == ["key"]


def health_of(found: Document) -> str | None:
    health = find_health(found)
    return health and health.path


def test_health_is_a_get_that_needs_nothing() -> None:
    get = {"get": operation("x")}
    paths = {"/": get, "/status": get, "/api/v1/healthz": get, "/ready": get, "/health/{part}": {"post": {}}}
    assert health_of(read(paths)) == "/api/v1/healthz"
    assert health_of(read({"/": get, "/unhealthy": get, "/ping": {"post": {}}})) is None
    needs = {"parameters": [{"name": "part", "in": "path", "required": True}]}
    assert health_of(read({"/health/{part}": {"get": operation("x", **needs)}})) is None


# ---- from the source


@pytest.mark.parametrize(
    ("params", "how", "field"),
    [
        ({"file": "UploadFile = File(...)", "request": "Request"}, "multipart", "file"),
        ({"data": "bytes = File()"}, "multipart", "data"),
        ({"images": "list[UploadFile]"}, "form-list", "images"),
        (
            {
                "image": "Annotated[UploadFile, File(description='a=b')]",
                "model": "Model = Depends(get_model)",
            },
            "multipart",
            "image",
        ),
        ({"image_url": "str"}, "query", "image_url"),
        ({"image": "str = Body(..., embed=True)"}, "json-base64", "image"),
    ],
)
def test_routes_of_the_source(params: Any, how: str, field: str) -> None:
    found = from_routes([("get", "/", {}), ["post", "/predict", params]])
    assert found is not None
    assert (found.operation.method, found.operation.path, found.how, found.field) == (
        "POST",
        "/predict",
        how,
        field,
    )


@pytest.mark.parametrize(
    ("told", "required"),
    [
        ("Annotated[str, Form()]", True),
        ("str = Form(...)", True),
        ("str = Form()", True),
        ("str = Form(description='x=1')", True),
        ("str = Form(description='x', default='y')", False),
        ("str = Form(None)", False),
        ("str = Form('...')", False),
        ("Annotated[str, Form()] = 'x'", False),
    ],
)
def test_which_parameters_of_the_source_are_required(told: str, required: bool) -> None:
    found = from_routes([("POST", "/p", {"file": "UploadFile", "user": told})])
    assert found is not None
    assert [one.name for one in found.others] == (["user"] if required else [])


def test_routes_that_take_no_image_or_make_no_sense() -> None:
    assert from_routes([]) is None
    assert from_routes([("GET", "/", {}), "nonsense", 3, {}, ("GET", None, {})]) is None
    assert (
        health_of(routes_document([("GET", "/health", {}), ("GET", "/live/{x}", {"x": "str"})])) == "/health"
    )


# ---- hostile documents: each ends well under two seconds


def refused(text: str) -> str:
    started = time.perf_counter()
    found = read_document(text)
    assert time.perf_counter() - started < 2
    assert isinstance(found, NotReadable), found
    return found.reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"openapi": "3.1.0", "x": "' + "a" * (2 << 20) + '"}', "larger than"),
        ("é" * (1 << 20) + "x", "larger than"),
        ("[" * 1_000_000, "nested deeper"),
        ('{"a":' * 100_000, "nested deeper"),
        ("[" + "0," * 1_000_000 + "0]", "more than 100000 values"),
        ('"' * 1_000_000, "not JSON"),
        ('"' + "\\" * 1_500_001, "not JSON"),
        ('"\\' * 1_000_000, "not JSON"),
        ("9" * 1_000_000, "not JSON"),
        ("]" * 1_000_000, "not JSON"),
        ("", "not JSON"),
        ("<html>", "not JSON"),
        ("[]", "not an OpenAPI 3 document"),
        ('{"swagger": "2.0"}', "not an OpenAPI 3 document"),
        ('{"openapi": ["3."]}', "not an OpenAPI 3 document"),
    ],
)
def test_text_beyond_the_limits(text: str, reason: str) -> None:
    assert reason in refused(text)


def test_brackets_inside_of_strings_do_not_count() -> None:
    text = document({}).replace("Moderation", "[" * 200 + '\\"' + "{,")
    found = read_document(text)
    assert isinstance(found, Document)
    assert found.title.startswith("[[[")


def test_too_many_operations() -> None:
    assert "more than 200 operations" in refused(document({f"/{n}": {"get": {}} for n in range(201)}))
    assert len(read({f"/{n}": {"get": {}} for n in range(200)}).operations) == 200


def test_references_that_multiply() -> None:
    twice = {
        f"S{n}": {"properties": {f"p{k}": {"$ref": f"#/components/schemas/S{n + 1}"} for k in range(50)}}
        for n in range(20)
    }
    body = {"200": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/S0"}}}}}
    assert "more than 10000 nodes" in refused(document(post("/p", operation("p", responses=body)), twice))
    combined = {
        f"S{n}": {"allOf": [{"$ref": f"#/components/schemas/S{n + 1}"}] * 2, "x": 1} for n in range(40)
    }
    assert "more than 10000 nodes" in refused(document(post("/p", operation("p", responses=body)), combined))


def test_a_long_chain_of_references() -> None:
    chain = {f"S{n}": {"$ref": f"#/components/schemas/S{n + 1}"} for n in range(20_000)}
    assert "more than 10000 nodes" in refused(
        document(post("/p", takes("application/json", {"$ref": "#/components/schemas/S0"})), chain)
    )


def test_circles_end() -> None:
    node = {"type": "object", "properties": {"name": TEXT, "next": {"$ref": "#/components/schemas/Node"}}}
    schemas = {
        "Node": node,
        "Self": {"$ref": "#/components/schemas/Self"},
        "A": {"allOf": [{"$ref": "#/components/schemas/B"}]},
        "B": {"allOf": [{"$ref": "#/components/schemas/A"}], "properties": {"file": FILE}},
    }
    answer = {"200": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Node"}}}}}
    paths = {
        "/node": {"post": operation("n", responses=answer)},
        "/self": {"post": takes("application/json", {"$ref": "#/components/schemas/Self"})},
        "/ab": {"post": takes("multipart/form-data", {"$ref": "#/components/schemas/A"})},
        "/path": {"$ref": "#/paths/~1path"},
    }
    found = read(paths, schemas)
    assert [one.name for one in found.operations[0].success] == ["name", "next"]
    way = find_predict(found)
    assert way is not None
    assert way.operation.path == "/ab"


def test_nothing_outside_the_document_is_read(tmp_path: Path) -> None:
    secret = tmp_path / "schema.json"
    secret.write_text('{"properties": {"file": {"type": "string", "format": "binary"}}}')
    with socket.socket() as canary:
        canary.bind(("127.0.0.1", 0))
        canary.listen()
        canary.settimeout(0.1)
        port = canary.getsockname()[1]
        references = [
            f"http://127.0.0.1:{port}/a", f"//127.0.0.1:{port}/b", f"file://{secret}", str(secret), "schema.json",
            "#anchor", "#", "",
        ]  # fmt: skip
        paths = {
            f"/{n}": {"post": takes("multipart/form-data", {"$ref": reference})}
            for n, reference in enumerate(references)
        }
        paths["/example"] = {"get": operation("e", externalValue=f"http://127.0.0.1:{port}/c")}
        found = read(paths)
        with pytest.raises(TimeoutError):
            canary.accept()
    assert find_predict(found) is None
    assert found.notes == ("8 references that point elsewhere were left alone",)


def test_strings_that_cannot_be_encoded_are_spelled_out() -> None:
    text = document(post("/p\ud800", operation("p"))).replace("Moderation", "\\udfff")
    found = read_document(text)
    assert isinstance(found, Document)
    assert found.title.encode() == b"\\udfff"
    assert found.operations[0].path.encode()


WORDS = [
    "$ref",
    "type",
    "properties",
    "items",
    "allOf",
    "anyOf",
    "required",
    "content",
    "schema",
    "parameters",
    "requestBody",
    "responses",
    "200",
    "name",
    "in",
    "get",
    "post",
    "/p",
    "application/json",
    "multipart/form-data",
]
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=5)
    | st.sampled_from(["#/paths", "#/x", "string"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(WORDS),
            inner,
            max_size=4,
        )
    ),
    max_leaves=30,
)


@given(JSON, JSON)
def test_no_shape_breaks_the_reader(paths: Any, schemas: Any) -> None:
    found = read_document(
        json.dumps({"openapi": "3.0.0", "paths": {"/p": {"post": paths}}, "x": schemas, "info": schemas})
    )
    assert isinstance(found, Document)
    find_predict(found)
    find_health(found)
