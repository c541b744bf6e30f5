"""How a program is run and set up: lifespan, settings, limits, and what is meant for development alone."""

from __future__ import annotations

import ast
import re

from pytest_qwen.sandbox.inside.analyse.nodes import Facts, argument, keyword, last, words
from pytest_qwen.sandbox.inside.analyse.trees import Trees

_NO_GRAD = {"no_grad", "inference_mode", "set_grad_enabled"}
_LOGGING = {"logging", "loguru", "structlog"}
_BOUNDED = {"Semaphore", "BoundedSemaphore", "CapacityLimiter"}
_QUEUES = {"Queue", "PriorityQueue", "LifoQueue", "JoinableQueue"}
_EXECUTORS = {"ThreadPoolExecutor", "ProcessPoolExecutor"}
_MOST = 50


def practice_facts(trees: Trees) -> Facts:
    """All facts of this module."""
    nodes = [node for _, node in trees.nodes]
    facts = {
        "on_event": [trees.place(call) for _, call, name in trees.calls() if name == "on_event"],
        "no_grad": [
            trees.place(one)
            for one in nodes
            if isinstance(one, ast.Attribute | ast.Name) and last(one) in _NO_GRAD
        ],
        "logging": [trees.place(one) for one in nodes if _imports_logging(one)],
        "configuration": [
            trees.place(one) | {"how": how} for one in nodes if (how := _configuration(trees, one))
        ],
        "uvicorn_runs": [
            trees.place(call) | {"arguments": {one.arg: words(one.value) for one in call.keywords if one.arg}}
            for _, call, _ in trees.calls()
            if words(call.func) == "uvicorn.run"
        ],
        "debug": [
            trees.place(call) | {"what": f"{words(call.func)}(debug=True)"}
            for _, call, _ in trees.calls()
            if _is_true(keyword(call, "debug"))
        ],
        "cors": [_cors(trees, call) for _, call, _ in trees.calls() if _adds_cors(call)],
        "bounds": [found for _, call, _ in trees.calls() if (found := _bound(trees, call))],
    }
    return {"lifespan": _lifespan(trees), **{name: found[:_MOST] for name, found in facts.items()}}


def _lifespan(trees: Trees) -> Facts | None:
    """Where the app or a router gets its lifespan."""
    for _, call, _ in trees.calls():
        given = keyword(call, "lifespan")
        if given is not None and not (
            isinstance(given, ast.Constant) and given.value in {None, "on", "off", "auto"}
        ):
            return trees.place(call)
    targets = (node for _, node in trees.every(ast.Attribute) if node.attr == "lifespan_context")
    return next((trees.place(node) for node in targets if isinstance(node.ctx, ast.Store)), None)


def _imports_logging(node: ast.AST) -> bool:
    if isinstance(node, ast.Import):
        return any(one.name.partition(".")[0] in _LOGGING for one in node.names)
    return isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in _LOGGING


def _configuration(trees: Trees, node: ast.AST) -> str | None:
    """How a value is taken from outside here: from the environment, or by a class of settings."""
    if isinstance(node, ast.ClassDef):
        return next((f"{node.name}({words(one)})" for one in node.bases if last(one) == "BaseSettings"), None)
    if isinstance(node, ast.Call) and re.fullmatch(r"(?:os\.)?(?:getenv|environ\.get)", words(node.func)):
        return words(node)[:80]
    if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load) and last(node.value) == "environ":
        return words(node)[:80]
    if isinstance(node, ast.Call) and last(node.func) == "Config" and _imports(trees, "starlette.config"):
        return words(node)[:80]
    return None


def _imports(trees: Trees, module: str) -> bool:
    return any(node.module == module for _, node in trees.every(ast.ImportFrom))


def _adds_cors(call: ast.Call) -> bool:
    added = (
        last(call.func) == "add_middleware"
        and last(argument(call, 0, "middleware_class")) == "CORSMiddleware"
    )
    return added or last(call.func) == "CORSMiddleware" or _wraps_cors(call)


def _wraps_cors(call: ast.Call) -> bool:
    """Middleware(CORSMiddleware, …), as it is given to the app's constructor."""
    return last(call.func) == "Middleware" and last(argument(call, 0, "cls")) == "CORSMiddleware"


def _cors(trees: Trees, call: ast.Call) -> Facts:
    origins = keyword(call, "allow_origins")
    meanings = [origins, *trees.meanings(origins)] if origins is not None else []
    texts = {text for one in meanings for item in getattr(one, "elts", [one]) for text in trees.strings(item)}
    pattern = trees.text(keyword(call, "allow_origin_regex"))
    given = keyword(call, "allow_credentials")
    credentials = given is not None and any(_is_true(one) for one in [given, *trees.meanings(given)])
    return trees.place(call) | {
        "wildcard": "*" in texts or pattern in {".*", "*"},
        "credentials": credentials,
    }


def _bound(trees: Trees, call: ast.Call) -> Facts | None:
    """A limit to the work that is done or waits at one time; `used` when its name occurs again."""
    name = last(call.func)
    limit = None
    if name in _EXECUTORS:
        limit = argument(call, 0, "max_workers")
    elif name in _BOUNDED:
        limit = argument(call, 0, "value") or keyword(call, "total_tokens") or ast.Constant(1)
    elif name in _QUEUES:
        limit = argument(call, 0, "maxsize")
    elif words(call.func) in {"uvicorn.run", "uvicorn.Config"}:
        limit = keyword(call, "limit_concurrency")
    if limit is None or (isinstance(limit, ast.Constant) and not limit.value):
        return None
    return trees.place(call) | {"what": words(call)[:80], "used": _is_used(trees, call)}


def _is_used(trees: Trees, call: ast.Call) -> bool:
    names = {name for name, values in trees.values.items() if call in values}
    loaded = (
        last(node) for _, node in trees.every(ast.Name, ast.Attribute) if isinstance(node.ctx, ast.Load)
    )
    return not names or any(name in names for name in loaded)


def _is_true(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Constant) and node.value is True
