"""The functions that answer requests: their routes, their parameters, what they do with the model."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import PurePosixPath
from typing import Any

from pytest_qwen.sandbox.inside.analyse.models import Models
from pytest_qwen.sandbox.inside.analyse.nodes import (
    FUNCTIONS,
    OFFLOADS,
    Facts,
    FunctionNode,
    argument,
    keyword,
    last,
    parameters,
    words,
)
from pytest_qwen.sandbox.inside.analyse.trees import Trees

_METHODS = {"get", "post", "put", "patch", "delete", "head", "options", "trace"}
_IMAGE = re.compile(r"UploadFile|\bFile\(|\bbytes\b|image|img|photo|base64", re.IGNORECASE)
_MOST_HANDLERS = 100


def handlers_facts(trees: Trees, models: Models) -> Facts:
    """Every handler, and every route in the form that a document can be made of."""
    handlers, routes = [], []
    for function, found in list(_routes_of(trees).items())[:_MOST_HANDLERS]:
        handlers.append(_handler(trees, models, function, found))
        told = {arg.arg: _parameter(arg, default) for arg, default in parameters(function)}
        routes += [[method, path, told] for method, path in found]
    return {"handlers": handlers, "routes": routes}


def _parameter(arg: ast.arg, default: ast.expr | None) -> str:
    """A parameter as it stands in the source, without its name: "UploadFile = File(...)"."""
    return words(arg.annotation) + (f" = {words(default)}" if default is not None else "")


def _routes_of(trees: Trees) -> dict[FunctionNode, list[list[str]]]:
    """The functions that answer requests, with method and path of each of their routes."""
    prefixes = _prefixes(trees)
    found: dict[FunctionNode, list[list[str]]] = defaultdict(list)
    for path, function in trees.every(*FUNCTIONS):
        for call in function.decorator_list:
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute):
                prefix = prefixes.get((path, last(call.func.value)), "")
                found[function] += _routes(trees, call, call.func.attr, prefix)
    for path, call, name in trees.calls():
        if name in {"add_api_route", "add_route"}:
            router = call.func.value if isinstance(call.func, ast.Attribute) else None
            for function in trees.called(argument(call, 1, "endpoint")):
                found[function] += _routes(trees, call, "route", prefixes.get((path, last(router)), ""))
    return {function: routes for function, routes in found.items() if routes}


def _routes(trees: Trees, call: ast.Call, name: str, prefix: str) -> list[list[str]]:
    texts = sorted(
        text for text in trees.strings(argument(call, 0, "path")) if not text or text.startswith("/")
    )
    listed = keyword(call, "methods")
    many = [text for one in getattr(listed, "elts", []) for text in sorted(trees.strings(one))] or ["GET"]
    methods = [name] if name in _METHODS else many if name in {"api_route", "route"} else []
    return [[method.upper(), prefix + text] for method in methods for text in texts[:1]]


def _prefixes(trees: Trees) -> dict[tuple[str, str], str]:
    """The prefix of every router, by its file and name there: its own and that with which it is included."""
    own: dict[tuple[str, str], str] = {}
    for path, node in trees.every(ast.Assign):
        if isinstance(node.value, ast.Call) and last(node.value.func) in {"APIRouter", "Blueprint"}:
            given = keyword(node.value, "prefix") or keyword(node.value, "url_prefix")
            own[path, last(node.targets[0])] = trees.text(given)
    for path, call, name in trees.calls():
        if name == "include_router" and call.args:
            added = trees.text(keyword(call, "prefix"))
            for key in [key for key in own if _means(trees, path, call.args[0], key)]:
                own[key] = added + own[key]
    return own


def _means(trees: Trees, path: str, router: ast.expr, key: tuple[str, str]) -> bool:
    """Whether an expression in one file means the router of that file and name."""
    stem = PurePosixPath(key[0]).stem
    if isinstance(router, ast.Attribute):
        return last(router.value) == stem and router.attr == key[1]
    for node in trees.files[path].body:
        for one in node.names if isinstance(node, ast.ImportFrom) else []:
            if isinstance(node, ast.ImportFrom) and (one.asname or one.name) == last(router):
                return (node.module or "").split(".")[-1] == stem and one.name == key[1]
    return key == (path, last(router))


def _handler(trees: Trees, models: Models, function: FunctionNode, routes: list[list[str]]) -> Facts:
    """What a handler takes, gives back, and does with the model."""
    told = [
        {"name": arg.arg, "annotation": words(arg.annotation), "default": words(default)}
        for arg, default in parameters(function)
    ]
    decorators = [one for one in function.decorator_list if isinstance(one, ast.Call)]
    model = next((found for one in decorators if (found := keyword(one, "response_model"))), None)
    return trees.place(function) | {
        "name": function.name,
        "async": isinstance(function, ast.AsyncFunctionDef),
        "routes": routes,
        "parameters": told,
        "returns": words(function.returns) or None,
        "response_model": words(model) or None,
        "docstring": ast.get_docstring(function) is not None,
        "takes_image": any(_IMAGE.search(" ".join(one.values())) for one in told),
        "reach": [
            trees.place(one) | {"end": one.end_lineno} for one in trees.reach(function, offloaded=True)
        ],
        **_work(trees, models, function),
    }


def _work(trees: Trees, models: Models, function: FunctionNode) -> dict[str, list[Facts]]:
    """The calls that matter in a handler and in all that it calls or hands over."""
    in_loop = {
        node for one in trees.reach(function, offloaded=False) for node in trees.inside(one, offloaded=False)
    }
    work: dict[str, list[Facts]] = {"inference": [], "offloads": [], "loads": []}
    for one in trees.reach(function, offloaded=True):
        for node in trees.inside(one, offloaded=True):
            if not isinstance(node, ast.Call):
                continue
            call: dict[str, Any] = trees.place(node) | {"call": words(node.func)}
            if models.is_inference(node):
                work["inference"].append(call | {"offloaded": node not in in_loop})
            elif last(node.func) in OFFLOADS:
                work["offloads"].append(call)
            if models.loads_model(node):
                found = trees.place(node) | {"direct": one is function, "once": models.loads_once(node)}
                work["loads"].append(found)
    return work
