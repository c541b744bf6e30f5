"""Operations from what a program's source says, for a server that publishes no OpenAPI document."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from pytest_qwen.openapi.endpoints import Predict, find_predict
from pytest_qwen.openapi.values import Body, Document, Operation, Parameter, Property

_SCALAR = re.compile(r"\b(?:str|int|float|bool|HttpUrl|AnyUrl)\b")
_LIST = re.compile(r"\b(?:list|List|Sequence|Iterable)\[")
_INJECTED = re.compile(
    r"\b(?:Request|Response|WebSocket|BackgroundTasks|HTTPConnection|Header|Cookie)\b|\b(?:Depends|Security)\("
)
_TYPES = {"int": "integer", "float": "number", "bool": "boolean"}


def from_routes(routes: Iterable[Any]) -> Predict | None:
    """The route that takes an image, or None when none of them seems to."""
    return find_predict(routes_document(routes))


def routes_document(routes: Iterable[Any]) -> Document:
    """A document made of routes; what has not their form is passed over.

    Each is its method, its path, and its handler's parameters: name → annotation and default as they stand in
    the source ("UploadFile = File(...)").
    """
    operations = []
    for route in routes:
        match route:
            case [str(method), str(path), Mapping() as params]:
                told = {str(name): str(text) for name, text in params.items()}
                operations.append(_operation(method, path, told))
    return Document(operations=tuple(operations), notes=("read from the source",))


def _operation(method: str, path: str, parameters: Mapping[str, str]) -> Operation:
    """An operation from a handler's parameters, which FastAPI reads by the same rules."""
    outside: list[Parameter] = []
    form: list[Property] = []
    fields: list[Property] = []
    whole = False
    in_path = set(re.findall(r"{(\w+)", path))
    for name, told in parameters.items():
        annotation, _, default = told.partition(" = ")
        required = not default or _asks(default)
        kind = "array" if _LIST.search(annotation) else _type(annotation)
        if name in in_path:
            outside.append(Parameter(name=name, where="path", required=True, type=kind))
        elif _INJECTED.search(told):
            continue
        elif "UploadFile" in told or re.search(r"\bFile\(", told):
            kind = "array" if kind == "array" else "string"
            form.append(Property(name=name, type=kind, format="binary", required=required))
        elif re.search(r"\bForm\(", told):
            form.append(Property(name=name, type=kind, required=required))
        elif re.search(r"\bBody\(", told):
            fields.append(Property(name=name, type=kind, required=required))
        elif _SCALAR.search(annotation) or not annotation:
            outside.append(Parameter(name=name, where="query", required=required, type=kind))
        else:
            whole = True  # a model of the program's own, whose fields are not known here
    bodies = [Body(media_type="multipart/form-data", type="object", properties=tuple(form))] if form else []
    if fields or whole:
        bodies.append(Body(media_type="application/json", type="object", properties=tuple(fields)))
    return Operation(method=method.upper(), path=path, parameters=tuple(outside), bodies=tuple(bodies))


def _asks(default: str) -> bool:
    """Whether what stands as the default is no default: "File(...)", "File()" or "File(description='x')"."""
    first = default.partition("(")[2].partition(",")[0].strip(" )")
    return "(" in default and (first in {"", "..."} or ("=" in first and "default=" not in default))


def _type(annotation: str) -> str:
    found = _SCALAR.search(annotation)
    return _TYPES.get(found[0], "string") if found else ""
