"""A copy of a hostile OpenAPI document that other tools may read: rebuilt from what is known to be harmless.

Nothing is copied as a whole. The copy has no addresses (servers, external values, remote references), no
callbacks, links, webhooks, security, examples or texts. Its only references point to schemas of its own, each
written once, so a document that refers to itself stays finite. What is left out makes the copy permit more
than the original, never less: what breaks a rule of the copy breaks a rule of the original.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from pytest_qwen.openapi.parsed import (
    METHODS,
    MOST_NODES,
    MOST_OPERATIONS,
    Refused,
    at,
    items,
    mapping,
    parse,
)
from pytest_qwen.openapi.values import NotReadable

_LONGEST_NAME = 500
# A tool that makes values of a schema would make one of this size.
_MOST_LEAST = {"minLength": 10_000, "minItems": 100, "minProperties": 100}
_TYPES = frozenset({"string", "number", "integer", "boolean", "array", "object", "null"})
_SIZES = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_FLAGS = ("uniqueItems", "nullable", "readOnly", "writeOnly", "exclusiveMinimum", "exclusiveMaximum")
_WORDS = ("format", "pattern", "contentMediaType", "contentEncoding")
_VERSION = re.compile(r"3\.[01]\.\d{1,3}")
_STATUS = re.compile(r"[1-5](?:\d\d|XX)|default")
_MEDIA_TYPE = re.compile(r"[\w.+*-]{1,80}/[\w.+*-]{1,120}(?:; ?[\w-]{1,40}=[\w.-]{1,80})*", re.ASCII)
_HEADER = re.compile(r"[A-Za-z0-9_-]{1,100}")
_PATH = re.compile(r"/(?!/)[!-~]{0,499}")


def sanitised(text: str) -> dict[str, Any] | NotReadable:
    """The copy as plain JSON data; nothing is ever fetched for it."""
    try:
        return _Copier(parse(text)).document()
    except Refused as refused:
        return NotReadable(reason=str(refused))
    except RecursionError:
        return NotReadable(reason="nested too deep")


class _Copier:
    """Copies one parsed document; counts every node that it writes."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._written = 0
        self._names: dict[str, str] = {}  # of the schemas that references lead to, in the copy
        self._waiting: list[str] = []  # references whose schemas are still to be written

    def document(self) -> dict[str, Any]:
        """The copy as a whole."""
        paths = self._paths()
        schemas: dict[str, Any] = {}
        while self._waiting:  # a loop, for a schema that is written finds others
            reference = self._waiting.pop()
            schemas[self._names[reference]] = self._schema(self._target(reference))
        version = str(self._root.get("openapi"))
        return {
            "openapi": version if _VERSION.fullmatch(version) else "3.1.0",
            "info": {"title": "server", "version": "0"},
            "paths": paths,
            "components": {"schemas": schemas},
        }

    def _paths(self) -> dict[str, Any]:
        paths: dict[str, Any] = {}
        count = 0
        for path, raw in mapping(self._root.get("paths")).items():
            item = self._open(raw) if _PATH.fullmatch(path) else {}
            methods = [method for method in METHODS if isinstance(item.get(method), Mapping)]
            count += len(methods)
            if count > MOST_OPERATIONS:
                raise Refused(f"more than {MOST_OPERATIONS} operations")
            if methods:
                paths[path] = {method: self._operation(item, self._open(item[method])) for method in methods}
        return paths

    def _operation(self, item: Mapping[str, Any], raw: Mapping[str, Any]) -> dict[str, Any]:
        self._count()
        operation: dict[str, Any] = {"responses": self._responses(mapping(raw.get("responses")))}
        parameters = self._parameters([*items(raw.get("parameters")), *items(item.get("parameters"))])
        if parameters:
            operation["parameters"] = parameters
        body = self._open(raw.get("requestBody"))
        content = self._content(body)
        if content:
            operation["requestBody"] = {"required": body.get("required") is True, "content": content}
        return operation

    def _parameters(self, given: list[Any]) -> list[dict[str, Any]]:
        """Those of the operation come first, and the first of a name counts."""
        found: dict[tuple[str, str], dict[str, Any]] = {}
        for raw in given:
            parameter = self._open(raw)
            name, where = parameter.get("name"), parameter.get("in")
            harmless = _HEADER.fullmatch if where in ("header", "cookie") else _name
            if where in ("query", "path", "header", "cookie") and isinstance(name, str) and harmless(name):
                required = where == "path" or parameter.get("required") is True
                schema = self._schema(parameter.get("schema"))
                one = {"name": name, "in": where, "required": required, "schema": schema}
                found.setdefault((name, str(where)), one)
        return list(found.values())

    def _responses(self, given: Mapping[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for status, raw in given.items():
            if _STATUS.fullmatch(status):
                content = self._content(self._open(raw))
                found[status] = {"description": "", **({"content": content} if content else {})}
        return found or {"default": {"description": ""}}

    def _content(self, holder: Mapping[str, Any]) -> dict[str, Any]:
        """All media types or none: a list that lacks one would forbid what the original allows."""
        given = mapping(holder.get("content"))
        if not all(map(_MEDIA_TYPE.fullmatch, given)):
            return {}
        return {kind: {"schema": self._schema(self._open(raw).get("schema"))} for kind, raw in given.items()}

    def _schema(self, raw: object) -> dict[str, Any]:
        """A schema of known keywords. Left out: what a value must not be, for its reverse is stricter."""
        self._count()
        schema = mapping(raw)
        if "$ref" in schema:
            return self._reference(schema["$ref"])
        found = _plain_keywords(schema)
        self._count(len(found.get("enum", ())) + len(found.get("required", ())))
        for word in ("items", "propertyNames"):
            if isinstance(schema.get(word), Mapping):
                found[word] = self._schema(schema[word])
        composed = {
            word: [self._schema(one) for one in items(schema.get(word))]
            for word in ("allOf", "anyOf", "oneOf", "prefixItems")
        }
        if either := composed.pop("oneOf"):  # more than one may fit, of schemas that became more permissive
            composed["allOf"].append({"anyOf": either})
        found |= {word: members for word, members in composed.items() if members}
        self._add_properties(schema, found)
        return found

    def _add_properties(self, schema: Mapping[str, Any], found: dict[str, Any]) -> None:
        whole = True  # no property was left out
        for word in ("properties", "patternProperties"):
            given = mapping(schema.get(word))
            kept = {name: self._schema(one) for name, one in given.items() if _name(name)}
            whole = whole and len(kept) == len(given)
            if kept:
                found[word] = kept
        others = schema.get("additionalProperties")
        if whole and isinstance(others, bool | Mapping):
            found["additionalProperties"] = others if isinstance(others, bool) else self._schema(others)

    def _reference(self, reference: object) -> dict[str, Any]:
        """A reference to the copy's own schema; anything at all where it does not point into the document."""
        if not isinstance(reference, str) or not reference.startswith("#/"):
            return {}
        if reference not in self._names:
            self._names[reference] = f"s{len(self._names)}"
            self._waiting.append(reference)
        return {"$ref": f"#/components/schemas/{self._names[reference]}"}

    def _target(self, reference: str) -> object:
        """What a reference leads to in the end, references to references followed; None in a circle."""
        return self._open({"$ref": reference})

    def _open(self, node: object) -> Mapping[str, Any]:
        seen: set[str] = set()
        opened = mapping(node)
        while "$ref" in opened:
            self._count()
            reference = opened["$ref"]
            if not isinstance(reference, str) or not reference.startswith("#/") or reference in seen:
                return {}
            seen.add(reference)
            opened = mapping(at(self._root, reference))
        return opened

    def _count(self, nodes: int = 1) -> None:
        self._written += nodes
        if self._written > MOST_NODES:
            raise Refused(f"more than {MOST_NODES} nodes once its references are followed")


def _plain_keywords(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords whose values are no schemas."""
    found: dict[str, Any] = {}
    named = schema.get("type")
    kinds = named if isinstance(named, list) else [named]
    if kinds and all(isinstance(kind, str) and kind in _TYPES for kind in kinds):
        found["type"] = named
    found |= {word: schema[word] for word in _WORDS if _name(schema.get(word))}
    found |= {word: schema[word] for word in _BOUNDS if _number(schema.get(word))}
    found |= {word: schema[word] for word in _FLAGS if isinstance(schema.get(word), bool)}
    for word in _SIZES:
        size = schema.get(word)
        if isinstance(size, int) and _number(size) and 0 <= size <= _MOST_LEAST.get(word, size):
            found[word] = size
    required = [name for name in items(schema.get("required")) if _name(name)]
    if required:
        found["required"] = list(dict.fromkeys(required))
    values = items(schema.get("enum"))
    if values and all(map(_scalar, values)):
        found["enum"] = values
    if "const" in schema and _scalar(schema["const"]):
        found["const"] = schema["const"]
    return found


def _name(value: object) -> bool:
    """Whether it is a text that is short and has no half characters."""
    if not isinstance(value, str) or len(value) > _LONGEST_NAME:
        return False
    return not any("\ud800" <= char <= "\udfff" for char in value)


def _number(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 63


def _scalar(value: object) -> bool:
    return value is None or isinstance(value, bool) or _number(value) or _name(value)
