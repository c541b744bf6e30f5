"""Which operation of a server takes an image and how, and which tells its health."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from pytest_qwen.openapi.values import Body, Document, Operation, Parameter, Property

# In the order in which they are preferred.
How = Literal["multipart", "form-list", "raw", "json-base64", "json-url", "query"]
_HOWS: tuple[How, ...] = get_args(How)

_IMAGE_WORDS = ("file", "image", "img", "photo", "picture", "pic", "upload")
_BASE64_WORDS = ("base64", "b64", "data", "content", "bytes", "encoded")
_URL_WORDS = ("url", "uri", "link", "path", "src", "source")
_PREDICT_WORDS = ("predict", "classif", "infer", "detect", "image", "analy", "moderat", "nsfw")
# The likelier first.
_HEALTH_WORDS = ("health", "ready", "readiness", "live", "alive", "ping", "heartbeat", "status")
_FORM, _BYTES = "multipart/form-data", "application/octet-stream"


@dataclass(frozen=True, slots=True, kw_only=True)
class Predict:
    """How an image is handed to an operation.

    `field` is the name of the form's, the JSON object's or the query's field; None where the body is the
    image or the JSON string itself. `many` says that it wants a list. `others` are the body's further
    required fields, `parameters` the required ones outside it.
    """

    operation: Operation
    how: How
    field: str | None = None
    media_type: str = ""
    many: bool = False
    others: tuple[Property, ...] = ()
    parameters: tuple[Parameter, ...] = ()


def find_predict(document: Document) -> Predict | None:
    """The operation that takes an image, or None when none of them seems to."""
    return next(iter(all_predicts(document)), None)


def all_predicts(document: Document) -> tuple[Predict, ...]:
    """Every way to hand in an image that the document offers, the likeliest first."""
    declared = any(
        _is_file(field) for one in document.operations for body in one.bodies for field in body.properties
    )
    found = [way for one in document.operations for way in _ways(one, by_name=not declared)]
    return tuple(sorted(found, key=_unlikeliness))


def find_health(document: Document) -> Operation | None:
    """The GET operation without required parameters that is named like a health or readiness check."""
    ranked = []
    for operation in document.operations:
        words = re.findall(r"[a-z]+", operation.path.lower())
        rank = next(
            (n for n, name in enumerate(_HEALTH_WORDS) if any(w.startswith(name) for w in words)), None
        )
        if rank is not None and operation.method == "GET" and not _required(operation):
            ranked.append((rank, len(operation.path), operation))
    return min(ranked, key=lambda one: one[:2])[2] if ranked else None


def _ways(operation: Operation, *, by_name: bool) -> Iterator[Predict]:
    """How this operation could take an image; `by_name` trusts names where no file is declared."""
    if operation.method not in {"GET", "POST", "PUT", "PATCH"}:
        return
    for body in operation.bodies:
        if body.media_type == _FORM:
            yield from _in_form(operation, body, by_name=by_name)
        elif body.media_type.startswith("image/") or body.media_type in {_BYTES, "*/*"}:
            yield _way(operation, "raw", media_type=body.media_type)
        elif "json" in body.media_type:
            yield from _in_json(operation, body)
    for parameter in operation.parameters:
        named = _named(parameter.name, _IMAGE_WORDS) or _named(parameter.name, _URL_WORDS)
        if parameter.where == "query" and parameter.type in {"string", ""} and named:
            yield _way(operation, "query", field=parameter.name)


def _in_form(operation: Operation, body: Body, *, by_name: bool) -> Iterator[Predict]:
    for field in body.properties:
        like_file = field.type in {"string", "array"} and _named(field.name, _IMAGE_WORDS)
        if _is_file(field) or (by_name and like_file):
            how: How = "form-list" if field.type == "array" else "multipart"
            yield _way(operation, how, field=field.name, body=body)


def _in_json(operation: Operation, body: Body) -> Iterator[Predict]:
    """Images as text: in a field of an object, or as the whole value."""
    whole = Property(name=body.title, type=body.type)
    for field in body.properties or (whole,):
        how: How | None = None
        if field.type in {"string", "array", ""}:
            how = _text_kind(field)
        if how is not None:
            name = field.name if body.properties else None
            yield _way(operation, how, field=name, body=body, many=field.type == "array")


def _text_kind(field: Property) -> How | None:
    """Whether a text field seems to hold an image, and as what."""
    if field.format in {"uri", "url"} or _named(field.name, ("url", "uri", "link")):
        return "json-url"
    if field.format in {"byte", "base64"} or _named(field.name, (*_BASE64_WORDS, *_IMAGE_WORDS)):
        return "json-url" if _named(field.name, _URL_WORDS) else "json-base64"
    return "json-url" if _named(field.name, _URL_WORDS) else None


def _way(
    operation: Operation,
    how: How,
    *,
    field: str | None = None,
    media_type: str = "",
    body: Body | None = None,
    many: bool = False,
) -> Predict:
    properties = body.properties if body else ()
    return Predict(
        operation=operation,
        how=how,
        field=field,
        media_type=body.media_type if body else media_type,
        many=many or how == "form-list",
        others=tuple(one for one in properties if one.required and one.name != field),
        parameters=tuple(one for one in _required(operation) if how != "query" or one.name != field),
    )


def _unlikeliness(way: Predict) -> tuple[bool | int, ...]:
    """Sorts the likeliest first; equals stay in the document's order."""
    path = way.operation.path.lower()
    return (
        _HOWS.index(way.how),
        way.operation.method != "POST",
        not any(word in path for word in _PREDICT_WORDS),
        "batch" in path,
        way.field is not None and not _named(way.field, _IMAGE_WORDS),
        len(way.others) + len(way.parameters),
    )


def _required(operation: Operation) -> tuple[Parameter, ...]:
    return tuple(
        one for one in operation.parameters if one.required and one.where in {"query", "path", "header"}
    )


def _is_file(field: Property) -> bool:
    media = field.content_media_type.lower()
    return field.format == "binary" or media == _BYTES or media.startswith("image/")


def _named(name: str, words: Iterable[str]) -> bool:
    """Whether a part of the name ("image" in "inputImage_1") starts with one of the words."""
    parts = re.findall(r"[a-z]+\d*", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower())
    return any(part.startswith(word) for part in parts for word in words)
