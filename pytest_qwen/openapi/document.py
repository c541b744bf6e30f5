"""Reads an OpenAPI document that nobody vouches for: within limits, from its own text, as plain values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pytest_qwen.openapi.parsed import (
    DEEPEST,
    METHODS,
    MOST_OPERATIONS,
    Refused,
    at,
    items,
    mapping,
    parse,
)
from pytest_qwen.openapi.values import Body, Document, NotReadable, Operation, Parameter, Property

MOST_RESOLVED = 10_000
_LONGEST_TEXT = 500
# How deep fields of fields are followed in an answer's schema.
_DEEPEST_FIELD = 4


def read_document(text: str) -> Document | NotReadable:
    """The operations of an OpenAPI 3 document; nothing is ever fetched for it."""
    try:
        return _Reader(parse(text)).document()
    except Refused as refused:
        return NotReadable(reason=str(refused))
    except (ValueError, RecursionError):
        return NotReadable(reason="not JSON")


class _Reader:
    """Reads one parsed document; counts every node that it opens."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._opened = 0
        self._left_alone: set[str] = set()

    def document(self) -> Document:
        info = mapping(self._root.get("info"))
        operations = tuple(self._operations())
        notes = (f"{len(self._left_alone)} references that point elsewhere were left alone",)
        return Document(
            title=_text(info.get("title")),
            description=_text(info.get("description")),
            version=_text(info.get("version")),
            operations=operations,
            notes=notes if self._left_alone else (),
        )

    def _operations(self) -> Iterator[Operation]:
        count = 0
        for path, raw in mapping(self._root.get("paths")).items():
            item, trail = self._open(raw)
            for method in METHODS:
                if path.startswith("/") and isinstance(item.get(method), Mapping):
                    count += 1
                    if count > MOST_OPERATIONS:
                        raise Refused(f"more than {MOST_OPERATIONS} operations")
                    yield self._operation(method, path, item, trail)

    def _operation(self, method: str, path: str, item: Mapping[str, Any], trail: frozenset[str]) -> Operation:
        raw, trail = self._open(item[method], trail)
        responses = mapping(raw.get("responses"))
        success = self._success(responses, trail)
        name, summary = _text(raw.get("operationId")), _text(raw.get("summary"))
        return Operation(
            method=method.upper(),
            path=_text(path),
            operation_id=name,
            summary=summary,
            description=_text(raw.get("description")),
            explained=_explained(name, summary, _text(raw.get("description"))),
            parameters=tuple(self._parameters(item, raw, trail)),
            bodies=tuple(self._bodies(raw.get("requestBody"), trail)),
            statuses=tuple(_text(status) for status in responses),
            success=self._properties(success, trail, nested=True),
            success_schema=any(
                set(part) - {"title", "description", "example", "examples", "$ref"}
                for part, _ in self._parts(success, trail)
            ),
        )

    def _parameters(
        self, item: Mapping[str, Any], operation: Mapping[str, Any], trail: frozenset[str]
    ) -> Iterator[Parameter]:
        """Those of the operation, then those of its whole path that it does not name itself."""
        named = set()
        for raw in [*items(operation.get("parameters")), *items(item.get("parameters"))]:
            found, inner = self._open(raw, trail)
            name, where = _text(found.get("name")), _text(found.get("in"))
            if name and (name, where) not in named:
                named.add((name, where))
                kind = self._property(name, found.get("schema"), inner, required=False).type
                yield Parameter(name=name, where=where, required=found.get("required") is True, type=kind)

    def _bodies(self, raw: object, trail: frozenset[str]) -> Iterator[Body]:
        body, trail = self._open(raw, trail)
        for media_type, value in mapping(body.get("content")).items():
            media, inner = self._open(value, trail)
            schema = media.get("schema")
            yield Body(
                media_type=_text(media_type).lower(),
                type=self._property("", schema, inner, required=False).type,
                title=_text(self._open(schema, inner)[0].get("title")),
                properties=self._properties(schema, inner, nested=False),
            )

    def _success(self, responses: Mapping[str, Any], trail: frozenset[str]) -> object:
        """The schema of the first documented 2xx answer, a JSON one if there is one."""
        for status in sorted(status for status in responses if status.startswith("2")):
            content = mapping(self._open(responses[status], trail)[0].get("content"))
            for media_type in sorted(content, key=lambda name: "json" not in name.lower()):
                return self._open(content[media_type], trail)[0].get("schema")
        return None

    def _properties(self, node: object, trail: frozenset[str], *, nested: bool) -> tuple[Property, ...]:
        """The fields of a schema, the first of each name."""
        found: dict[str, Property] = {}
        for one in self._fields(node, trail, _DEEPEST_FIELD if nested else 0, ""):
            found.setdefault(one.name, one)
        return tuple(found.values())

    def _fields(self, node: object, trail: frozenset[str], deeper: int, prefix: str) -> Iterator[Property]:
        for part, inner in self._parts(node, trail):
            required = [name for name in items(part.get("required")) if isinstance(name, str)]
            for name, value in mapping(part.get("properties")).items():
                yield self._property(prefix + name, value, inner, required=name in required)
                if deeper:
                    yield from self._fields(value, inner, deeper - 1, f"{prefix}{name}.")
            if deeper and "items" in part:
                yield from self._fields(part["items"], inner, deeper - 1, prefix)

    def _property(self, name: str, node: object, trail: frozenset[str], *, required: bool) -> Property:
        parts = list(self._parts(node, trail))
        kind = next((kind for part, _ in parts for kind in _types(part)), "")
        told = [part for part, _ in parts]
        if kind == "array":
            told = [item for part, inner in parts for item, _ in self._parts(part.get("items"), inner)]
        return Property(
            name=_text(name),
            type=kind,
            format=next((_text(part["format"]) for part in told if part.get("format")), ""),
            content_media_type=next(
                (_text(part["contentMediaType"]) for part in told if part.get("contentMediaType")), ""
            ),
            required=required,
            described=any(_text(part.get("description")).strip() for part, _ in parts),
            example=any("example" in part or part.get("examples") for part, _ in parts),
        )

    def _parts(
        self, node: object, trail: frozenset[str], depth: int = 0
    ) -> Iterator[tuple[Mapping[str, Any], frozenset[str]]]:
        """A schema and those that it is composed of, each with the references that led to it."""
        schema, trail = self._open(node, trail)
        if not schema or depth > DEEPEST:
            return
        yield schema, trail
        for word in ("allOf", "anyOf", "oneOf"):
            for member in items(schema.get(word)):
                yield from self._parts(member, trail, depth + 1)

    def _open(
        self, node: object, trail: frozenset[str] = frozenset()
    ) -> tuple[Mapping[str, Any], frozenset[str]]:
        """What a node is once its references are followed; empty where they lead elsewhere or in a circle."""
        self._count()
        seen = set(trail)
        opened = mapping(node)
        while isinstance(reference := opened.get("$ref"), str):
            if not reference.startswith("#/"):
                self._left_alone.add(reference)
                return {}, trail
            if reference in seen:
                return {}, trail
            self._count()
            seen.add(reference)
            beside = {key: value for key, value in opened.items() if key != "$ref"}
            opened = {**mapping(at(self._root, reference)), **beside}
        return opened, frozenset(seen)

    def _count(self) -> None:
        self._opened += 1
        if self._opened > MOST_RESOLVED:
            raise Refused(f"more than {MOST_RESOLVED} nodes once its references are followed")


def _explained(operation_id: str, summary: str, description: str) -> bool:
    """FastAPI makes both the summary ("Predict Image") and the id from the function's name."""
    from_name = operation_id.lower().startswith(summary.lower().replace(" ", "_"))
    return bool(description.strip() or (summary.strip() and not from_name))


def _types(schema: Mapping[str, Any]) -> Iterator[str]:
    """The types that a schema allows, without null."""
    named = schema.get("type")
    for kind in named if isinstance(named, list) else [named]:
        if isinstance(kind, str) and kind != "null":
            yield _text(kind)


def _text(value: object) -> str:
    """A string of the document, cut, without halves of characters; "" for anything else."""
    if not isinstance(value, str):
        return ""
    return value[:_LONGEST_TEXT].encode("utf-8", "backslashreplace").decode()
