"""Where a program loads its models, under which ids, by which names they go, and where they are called."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable

from pytest_qwen.sandbox.inside.analyse.nodes import (
    FUNCTIONS,
    OFFLOADS,
    Facts,
    argument,
    keyword,
    last,
    words,
)
from pytest_qwen.sandbox.inside.analyse.trees import Trees

_LOADERS = {"pipeline", "from_pretrained"}
_NO_MODEL = re.compile(r"Processor|Extractor|Tokenizer|Config")
# Calls that give back the model that they are called on or with.
_KEEPS = {"to", "eval", "cuda", "cpu", "half", "float", "compile", "Depends", "requires_grad_"}
_INFERS = {"predict", "forward", "generate", "__call__"}
_ONCE = {"lru_cache", "cache", "cached", "alru_cache", "singleton", "cached_property"}
_ROUNDS = 8


class Models:
    """What in the trees loads a model or calls one."""

    def __init__(self, trees: Trees) -> None:
        self.trees = trees
        self.names: dict[str, str] = {}  # name → "pipeline" or "direct"
        for _ in range(_ROUNDS):
            if not self._learn():
                break

    def is_loader(self, node: ast.AST) -> bool:
        """Whether a call makes a pipeline or loads something pretrained."""
        if not isinstance(node, ast.Call):
            return False
        if handed_loader(node) is not None or last(node.func) == "from_pretrained":
            return True
        told = keyword(node, "task") or keyword(node, "model")
        return last(node.func) == "pipeline" and (
            told is not None or bool(self.trees.strings(argument(node, 0, "task")))
        )

    def loads_model(self, node: ast.AST) -> bool:
        """Whether a call loads a model, not just its processor."""
        loader = handed_loader(node) or getattr(node, "func", None)
        return self.is_loader(node) and not _NO_MODEL.search(words(loader))

    def is_inference(self, node: ast.AST) -> bool:
        """Whether a node is a call of a model."""
        if not isinstance(node, ast.Call) or self.is_loader(node):
            return False
        if isinstance(node.func, ast.Call):  # get_model()(image)
            return self._kind(node.func) is not None
        if isinstance(node.func, ast.Attribute) and node.func.attr in _INFERS and self._kind(node.func.value):
            return True
        return last(node.func) in self.names and not self.trees.called(node.func)

    def kind_called(self, call: ast.Call) -> str | None:
        """Whether a call of a model is one of a "pipeline", or "direct" one."""
        if last(call.func) in self.names:
            return self.names[last(call.func)]
        return self._kind(call.func.value if isinstance(call.func, ast.Attribute) else call.func)

    def hands_over(self, call: ast.Call) -> bool:
        """Whether what a call hands to a thread or process is the work of a model."""
        for node in (one for arg in call.args for one in ast.walk(arg)):
            if self.is_inference(node) or (isinstance(node, ast.expr) and self._kind(node)):
                return True
            for function in self.trees.called(node):
                reached = self.trees.reach(function, offloaded=True)
                if any(
                    self.is_inference(n) for one in reached for n in self.trees.inside(one, offloaded=True)
                ):
                    return True
        return False

    def loads_once(self, call: ast.AST) -> bool:
        """Whether a load stands behind a cache or a test that it was done before."""
        for node in self.trees.around(call):
            if isinstance(node, ast.If) and _asks_for_presence(node.test):
                return True
            if isinstance(node, FUNCTIONS):
                cached = any(last(getattr(one, "func", one)) in _ONCE for one in node.decorator_list)
                return cached or any(_returns_early(one) for one in ast.walk(node))
        return True

    def facts(self) -> Facts:
        """Every load, every handing over to a thread, every direct call of a model."""
        loads, offloads, direct = [], [], []
        for _, call, name in self.trees.calls():
            if self.is_loader(call):
                loads.append(self._load(call))
            if name in OFFLOADS:
                over = {"call": words(call.func), "inference": self.hands_over(call)}
                offloads.append(self.trees.place(call) | over)
            if self.is_inference(call) and self.kind_called(call) == "direct":
                direct.append(self.trees.place(call) | {"call": words(call.func)})
        ids = sorted({one for load in loads for one in load["ids"]})
        return {"loads": loads, "model_ids": ids, "offloads": offloads, "direct_inference": direct}

    def _load(self, call: ast.Call) -> Facts:
        handed = handed_loader(call)
        args = call.args[call.args.index(handed) + 1 :] if handed is not None else call.args
        via = last(handed) or last(call.func)
        by_name = keyword(call, "model") or keyword(call, "pretrained_model_name_or_path")
        by_place = args[1:2] if via == "pipeline" else args[:1]
        function = self.trees.function_of(call)
        return self.trees.place(call) | {
            "via": via,
            "ids": sorted(self.trees.strings(by_name or next(iter(by_place), None))),
            "model": self.loads_model(call),
            "function": function.name if function else "",
            "once": self.loads_once(call),
        }

    def _learn(self) -> bool:
        """One more step along the names; False when nothing new was found."""
        before = len(self.names)
        for name, values in list(self.trees.values.items()):
            self._note(name, values)
        for _, node in self.trees.every(ast.Return, ast.Yield):
            function = self.trees.function_of(node)
            if function is not None and node.value is not None:
                self._note(function.name, [node.value])
        return len(self.names) > before

    def _note(self, name: str, values: Iterable[ast.expr]) -> None:
        kind = next((kind for value in values if (kind := self._kind(value))), None)
        if kind:
            self.names.setdefault(name, kind)

    def _kind(self, node: ast.expr | None, depth: int = 0) -> str | None:
        """Which kind of model an expression is; None when it is none, as far as can be seen."""
        if node is None or depth > _ROUNDS:
            return None
        if isinstance(node, ast.Await):
            return self._kind(node.value, depth + 1)
        if isinstance(node, ast.Call):
            return self._kind_made(node, depth)
        return None if self.trees.called(node) else self.names.get(last(node))

    def _kind_made(self, call: ast.Call, depth: int) -> str | None:
        """Which kind of model a call gives back."""
        name = last(call.func)
        if self.loads_model(call):
            return "pipeline" if "pipeline" in {name, last(handed_loader(call))} else "direct"
        if self.trees.called(call.func):
            return self.names.get(name)
        if name in OFFLOADS or name == "Depends":
            return next((self.names.get(last(one)) for one in call.args if self.trees.called(one)), None)
        if name not in _KEEPS:
            return None
        inner = call.func.value if isinstance(call.func, ast.Attribute) else None
        return self._kind(inner, depth + 1) or self._kind(argument(call, 0, "model"), depth + 1)


def handed_loader(call: ast.AST) -> ast.expr | None:
    """The loader that a call gets as an argument, to be called elsewhere: to_thread(pipeline, "task")."""
    if not isinstance(call, ast.Call) or last(call.func) not in OFFLOADS | {"partial", "submit"}:
        return None
    return next((one for one in call.args if not isinstance(one, ast.Call) and last(one) in _LOADERS), None)


def _asks_for_presence(test: ast.expr) -> bool:
    """Whether a test asks if something is there already: `x is None`, `not x`, `key not in x`."""
    if isinstance(test, ast.Compare):
        return any(isinstance(op, (ast.Is, ast.IsNot, ast.In, ast.NotIn)) for op in test.ops)
    if isinstance(test, ast.BoolOp):
        return any(_asks_for_presence(one) for one in test.values)
    return isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not)


def _returns_early(node: ast.AST) -> bool:
    """Whether it is `if x is not None: return x`: what was made before is given back."""
    if not isinstance(node, ast.If):
        return False
    asked = {last(one) for one in ast.walk(node.test)} - {""}
    given = [one.value for one in node.body if isinstance(one, ast.Return) and one.value is not None]
    return any(last(one) in asked for value in given for one in ast.walk(value))
