"""The trees of all files of a program, and what a name may mean in them.

Names are followed without regard to scope and order: a value that some assignment gives a name may be meant
by that name everywhere. That is enough for a program of a few files.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from pytest_qwen.sandbox.inside.analyse.nodes import (
    FUNCTIONS,
    Facts,
    FunctionNode,
    argument,
    children,
    is_main_block,
    last,
    parameters,
)

_DEEPEST = 8  # names that are followed one after the other
_MOST = 50  # values of one name that are looked at
_ASKS_ONLY = {"isinstance", "issubclass", "cast", "TypeAdapter"}  # calls that do not run what they are given


class Trees:
    """The trees of all files; what was given which name; which function a name may mean."""

    def __init__(self, sources: dict[str, str], main: str) -> None:
        self.main = main
        self.sources = sources
        self.files = {path: ast.parse(text) for path, text in sources.items()}
        self.nodes: list[tuple[str, ast.AST]] = []
        self.classes: dict[str, ast.ClassDef] = {}
        self.values: dict[str, list[ast.expr]] = defaultdict(list)
        self._parent: dict[ast.AST, ast.AST] = {}
        self._path: dict[ast.AST, str] = {}
        self._named: dict[str, list[FunctionNode]] = defaultdict(list)  # a class stands for its __init__
        self._tops = {part for path in sources for part in PurePosixPath(path).with_suffix("").parts}
        for path, tree in self.files.items():
            for node in ast.walk(tree):
                self.nodes.append((path, node))
                self._path[node] = path
                self._parent |= dict.fromkeys(ast.iter_child_nodes(node), node)
                self._name(node)
        for _, node in self.nodes:
            self._bind(node)

    def every(self, *kinds: type[ast.AST]) -> Iterator[tuple[str, Any]]:
        """All nodes of some kinds with the path of their file."""
        return ((path, node) for path, node in self.nodes if isinstance(node, kinds))

    def calls(self) -> Iterator[tuple[str, ast.Call, str]]:
        """All calls with their path and the last name of what is called."""
        return ((path, node, last(node.func)) for path, node in self.every(ast.Call))

    def place(self, node: ast.AST) -> Facts:
        """Where a node stands."""
        return {"path": self._path[node], "line": getattr(node, "lineno", 1)}

    def around(self, node: ast.AST) -> Iterator[ast.AST]:
        """The nodes that a node stands in, inner ones first."""
        while node in self._parent:
            node = self._parent[node]
            yield node

    def function_of(self, node: ast.AST) -> FunctionNode | None:
        """The function that a node stands in."""
        return next((one for one in self.around(node) if isinstance(one, FUNCTIONS)), None)

    def at_import(self, node: ast.AST) -> bool:
        """Whether a node runs when its module is imported."""
        return not any(
            isinstance(one, (*FUNCTIONS, ast.ClassDef, ast.Lambda)) or is_main_block(one)
            for one in self.around(node)
        )

    def is_local(self, module: str, level: int = 0) -> bool:
        """Whether an imported module is one of the program's own files."""
        return level > 0 or module.partition(".")[0] in self._tops

    def called(self, node: ast.AST | None) -> list[FunctionNode]:
        """The program's functions that a name may mean: alone functions and classes, after a dot methods."""
        if not isinstance(node, (ast.Name, ast.Attribute)):
            return []
        found = self._named.get(last(node), [])
        if isinstance(node, ast.Attribute) and last(node.value) in self._tops:
            return found
        return [one for one in found if self._is_method(one) == isinstance(node, ast.Attribute)]

    def inside(self, function: FunctionNode, *, offloaded: bool) -> Iterator[ast.AST]:
        """The nodes that run with a function; with `offloaded` also dependencies and what goes to threads."""
        yield from children(function, offloaded=offloaded)
        if offloaded:
            yield from (node for node in ast.walk(function.args) if isinstance(node, ast.Call))

    def reach(self, function: FunctionNode, *, offloaded: bool) -> list[FunctionNode]:
        """The functions that run with this one, itself first; with `offloaded` also those it hands over."""
        seen, waiting = [function], [function]
        while waiting:
            for node in self.inside(waiting.pop(), offloaded=offloaded):
                for named in _run_by(node, offloaded=offloaded):
                    new = [found for found in self.called(named) if found not in seen]
                    seen += new
                    waiting += new
        return seen

    def text(self, node: ast.expr | None) -> str:
        """The one text that an expression stands for, the first of several, "" when none is known."""
        return min(self.strings(node), default="")

    def strings(self, node: ast.expr | None, depth: int = 0) -> set[str]:
        """The texts that an expression may stand for, through names and defaults."""
        found: set[str] = set()
        seen: set[ast.expr] = set()
        level = [node] if node is not None else []
        for _ in range(_DEEPEST):
            further: list[ast.expr] = []
            for one in (one for one in level if one not in seen):
                seen.add(one)
                if isinstance(one, ast.Constant):
                    found |= {one.value} if isinstance(one.value, str) else set()
                elif isinstance(one, ast.JoinedStr):
                    found |= self._joined(one.values, depth)
                elif isinstance(one, ast.BinOp) and isinstance(one.op, ast.Add):
                    found |= self._joined([one.left, one.right], depth)
                else:
                    further += self.meanings(one)
            level = further
        return found

    def meanings(self, node: ast.expr) -> list[ast.expr]:
        """The expressions that an expression may stand for, one step further."""
        if isinstance(node, ast.BoolOp):
            return node.values
        if isinstance(node, ast.IfExp):
            return [node.body, node.orelse]
        if isinstance(node, (ast.Await, ast.FormattedValue)):
            return [node.value]
        if isinstance(node, ast.Call):
            return self._results(node)
        return [one for one in self.values.get(last(node), [])[:_MOST] if one is not node]

    def _results(self, call: ast.Call) -> list[ast.expr]:
        """What a call gives: os.getenv("X", "default"), Field("default"), str(x), an own function."""
        name = last(call.func)
        if name in {"getenv", "get", "setdefault", "config", "pop"}:
            found = argument(call, 1, "default")
        elif name in {"strip", "rstrip", "lower"} and isinstance(call.func, ast.Attribute):
            found = call.func.value
        elif name in {"Field", "field", "str", "Path"}:
            found = argument(call, 0, "default")
        else:
            inside = (node for one in self.called(call.func) for node in children(one))
            return [node.value for node in inside if isinstance(node, ast.Return) and node.value is not None]
        return [found] if found is not None else []

    def _joined(self, parts: list[ast.expr], depth: int) -> set[str]:
        """The text of parts put together, where each of them stands for one text."""
        if depth > _DEEPEST:
            return set()
        found = [self.strings(part, depth + 1) for part in parts[:_DEEPEST]]
        known = found and all(len(one) == 1 for one in found)
        return {"".join(next(iter(one)) for one in found)} if known else set()

    def _is_method(self, function: FunctionNode) -> bool:
        return isinstance(self._parent.get(function), ast.ClassDef) and function.name != "__init__"

    def _name(self, node: ast.AST) -> None:
        if isinstance(node, FUNCTIONS):
            self._named[node.name].append(node)
        elif isinstance(node, ast.ClassDef):
            self.classes[node.name] = node
            made = [one for one in node.body if isinstance(one, FUNCTIONS) and one.name == "__init__"]
            self._named[node.name] += made

    def _bind(self, node: ast.AST) -> None:
        """Note what an assignment, default, dictionary, `with` or call of an own function gives a name."""
        if isinstance(node, ast.Assign):
            for target in node.targets:
                self._give(target, node.value)
        elif isinstance(node, (ast.AnnAssign, ast.NamedExpr)) and node.value is not None:
            self._give(node.target, node.value)
        elif isinstance(node, ast.withitem) and node.optional_vars is not None:
            self._give(node.optional_vars, node.context_expr)
        elif isinstance(node, FUNCTIONS):
            self._bind_parameters(node)
        elif isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant):
                    self.values[str(key.value)].append(value)
        elif isinstance(node, ast.Call):
            self._bind_call(node)

    def _give(self, target: ast.AST, value: ast.expr) -> None:
        if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
            for name, one in zip(target.elts, value.elts, strict=False):
                self._give(name, one)
        elif last(target):
            self.values[last(target)].append(value)

    def _bind_parameters(self, function: FunctionNode) -> None:
        for arg, default in parameters(function):
            injected = [
                one for one in ast.walk(arg) if isinstance(one, ast.Call) and last(one.func) == "Depends"
            ]
            self.values[arg.arg] += [*([default] if default is not None else []), *injected]

    def _bind_call(self, call: ast.Call) -> None:
        own = self.called(call.func)
        for function in own:
            for (arg, _), value in zip(parameters(function), call.args, strict=False):
                self.values[arg.arg].append(value)
        if own or last(call.func) in self.classes or last(call.func) in {"dict", "update"}:
            for one in call.keywords:
                self.values[one.arg or ""].append(one.value)


def _run_by(node: ast.AST, *, offloaded: bool) -> Iterator[ast.AST]:
    """What may run with a node: what it calls; with `offloaded` also what a call is given, and properties."""
    if isinstance(node, ast.Call):
        yield node.func
        if offloaded and last(node.func) not in _ASKS_ONLY:
            yield from (*node.args, *(one.value for one in node.keywords))
    elif offloaded and isinstance(node, ast.Attribute):
        yield node
