"""Small readings of single nodes of a Python tree."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any

Facts = dict[str, Any]
FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)

# Calls that hand work to a thread or a process, so that the event loop goes on.
OFFLOADS = {"run_in_executor", "to_thread", "run_in_threadpool", "run_sync", "wrap_future", "sync_to_async"}
_TEXT_CHARACTERS = 160


def last(node: ast.AST | None) -> str:
    """The last name of an expression: "c" of a.b.c, of x["c"] and of awaiting it; "" where there is none."""
    if isinstance(node, ast.Await):
        node = node.value
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return node.attr
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
        return str(node.slice.value)
    return ""


def words(node: ast.AST | None) -> str:
    """The source text of a node, cut."""
    if node is None:
        return ""
    try:
        return ast.unparse(node)[:_TEXT_CHARACTERS]
    except RecursionError:
        return "…"


def keyword(call: ast.Call, name: str) -> ast.expr | None:
    """The value of a keyword argument."""
    return next((one.value for one in call.keywords if one.arg == name), None)


def argument(call: ast.Call, position: int, name: str) -> ast.expr | None:
    """The value of an argument given by position or by name."""
    return call.args[position] if len(call.args) > position else keyword(call, name)


def parameters(function: FunctionNode) -> list[tuple[ast.arg, ast.expr | None]]:
    """The parameters of a function with their defaults, without self and cls."""
    args = function.args
    usual = [*args.posonlyargs, *args.args]
    defaults = [None] * (len(usual) - len(args.defaults)) + list(args.defaults)
    every = [*zip(usual, defaults, strict=True), *zip(args.kwonlyargs, args.kw_defaults, strict=True)]
    return [(arg, default) for arg, default in every if arg.arg not in {"self", "cls"}]


def children(node: ast.AST, *, offloaded: bool = True) -> Iterator[ast.AST]:
    """What runs when the body of `node` runs; functions and classes defined in it and annotations do not.

    Without `offloaded`, what is handed to a thread or process is left out too; but an argument that is itself
    a call, other than partial(), runs before it is handed over.
    """
    stack: list[ast.AST] = list(getattr(node, "body", [])) if isinstance(node, FUNCTIONS) else [node]
    while stack:
        one = stack.pop()
        if isinstance(one, (*FUNCTIONS, ast.ClassDef)):
            continue
        yield one
        if isinstance(one, ast.AnnAssign):
            stack += [one.target, *([one.value] if one.value is not None else [])]
        elif not offloaded and isinstance(one, ast.Call) and last(one.func) in OFFLOADS:
            stack += [arg for arg in one.args if isinstance(arg, ast.Call) and last(arg.func) != "partial"]
        else:
            stack += ast.iter_child_nodes(one)


def imported(node: ast.AST) -> list[str]:
    """The modules that an import statement names."""
    if isinstance(node, ast.Import):
        return [one.name for one in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) else []


def is_main_block(node: ast.AST) -> bool:
    """Whether it is `if __name__ == "__main__"`."""
    return isinstance(node, ast.If) and isinstance(node.test, ast.Compare) and "__main__" in words(node.test)
