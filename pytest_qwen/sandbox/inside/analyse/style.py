"""How a program is written: what is documented and annotated, what is long, said twice, or left out."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator

from pytest_qwen.sandbox.inside.analyse.nodes import FUNCTIONS, Facts, FunctionNode, last, parameters, words
from pytest_qwen.sandbox.inside.analyse.trees import Trees

_SAME_LINES = 10
_MOST = 50
# Inner classes that hold settings of a framework; nobody uses them by name.
_FRAMEWORK_SETTINGS = {"Config", "Meta"}
# What a sentence looks like to the parser, where it can read it at all.
_WORDS = (ast.Name, ast.Constant, ast.Compare, ast.BinOp, ast.Tuple, ast.Attribute)
_LONGEST = 20
_UNFINISHED = re.compile(
    r"(?-i:\bTODO\b)|your (?:code|implementation|logic) (?:goes )?here|rest of (?:the|your) code"
    r"|^\s*#\s*\.\.\.\s*$",
    re.IGNORECASE,
)
_HARNESS = re.compile(r"pytest[-_]qwen", re.IGNORECASE)
_TEST_FILE = re.compile(r"(?:^|/)(?:tests?/|test_[^/]*\.py$|[^/]*_test\.py$|conftest\.py$)")


def style_facts(trees: Trees) -> Facts:
    """All facts of this module; files with tests of the program's own are left out of the counts."""
    public = [
        one for path in trees.files if not _TEST_FILE.search(path) for one in _public(trees.files[path])
    ]
    functions = [_length(trees, node) for _, node in trees.every(*FUNCTIONS)]
    return {
        "docstrings": _docstrings(trees, public),
        "annotations": _annotations(trees, [one for one in public if isinstance(one, FUNCTIONS)]),
        "functions": sorted(functions, key=lambda one: -one["lines"])[:_LONGEST],
        "duplicates": _duplicates(trees),
        "stubs": (_empty_bodies(trees) + _unfinished(trees) + _dangling(trees))[:_MOST],
        "bare_excepts": [
            trees.place(node) | {"reraises": any(isinstance(one, ast.Raise) for one in ast.walk(node))}
            for _, node in trees.every(ast.ExceptHandler)
            if node.type is None
        ][:_MOST],
        "prints": [trees.place(call) for _, call, _ in trees.calls() if words(call.func) == "print"][:_MOST],
        "harness_names": _harness_names(trees),
    }


def _public(body: ast.AST) -> Iterator[FunctionNode | ast.ClassDef]:
    """Functions and classes of a module, and methods of its classes, that are for others to use."""
    for node in getattr(body, "body", []):
        own = isinstance(node, (*FUNCTIONS, ast.ClassDef)) and not node.name.startswith("_")
        if own and node.name not in _FRAMEWORK_SETTINGS:
            yield node
            yield from _public(node) if isinstance(node, ast.ClassDef) else ()


def _docstrings(trees: Trees, public: list[FunctionNode | ast.ClassDef]) -> Facts:
    missing = [node for node in public if not ast.get_docstring(node)]
    return {
        "modules": [
            {"path": path, "has": bool(ast.get_docstring(tree))} for path, tree in trees.files.items()
        ],
        "public": len(public),
        "documented": len(public) - len(missing),
        "missing": [trees.place(node) | {"name": node.name} for node in missing[:_MOST]],
    }


def _annotations(trees: Trees, functions: list[FunctionNode]) -> Facts:
    """How many parameters and returns of public functions are annotated, *args and **kwargs left out."""
    wanted = [(node, arg.arg, arg.annotation) for node in functions for arg, _ in parameters(node)]
    wanted += [(node, "return", node.returns) for node in functions]
    missing = [(node, name) for node, name, annotation in wanted if annotation is None]
    shown = [trees.place(one) | {"name": f"{one.name}: {name}"} for one, name in missing[:_MOST]]
    return {
        "total": len(wanted),
        "annotated": len(wanted) - len(missing),
        "missing": shown,
    }


def _length(trees: Trees, node: FunctionNode) -> Facts:
    """The lines of a function from its `def` to its end, without its docstring."""
    lines = (node.end_lineno or node.lineno) - node.lineno + 1
    if ast.get_docstring(node) is not None:
        lines -= (node.body[0].end_lineno or 0) - node.body[0].lineno + 1
    return trees.place(node) | {"name": node.name, "lines": lines}


def _duplicates(trees: Trees) -> list[Facts]:
    """Places where ten or more lines in a row, without blank ones and comments, stand a second time."""
    lines = [
        (path, number, text.strip())
        for path, source in trees.sources.items()
        for number, text in enumerate(source.splitlines(), 1)
        if text.strip() and not text.strip().startswith("#")
    ]
    first: dict[tuple[str, ...], int] = {}
    found: list[Facts] = []
    at = 0
    while at + _SAME_LINES <= len(lines):
        path, number, _ = lines[at]
        window = tuple(text for _, _, text in lines[at : at + _SAME_LINES])
        before = first.setdefault(window, at)
        whole = lines[at + _SAME_LINES - 1][0] == path
        if before + _SAME_LINES > at or not whole:
            at += 1
            continue
        same = _SAME_LINES
        while (
            at + same < len(lines) and before + same < at and lines[at + same][2] == lines[before + same][2]
        ):
            same += 1
        other, other_line, _ = lines[before]
        found.append(
            {"path": path, "line": number, "other_path": other, "other_line": other_line, "lines": same}
        )
        at += same
    return found[:_MOST]


def _empty_bodies(trees: Trees) -> list[Facts]:
    """Functions that do nothing, unless they are there to be overridden."""
    found = []
    for _, node in trees.every(*FUNCTIONS):
        body = node.body[1:] if ast.get_docstring(node) is not None else node.body
        around = next((one for one in trees.around(node) if isinstance(one, ast.ClassDef)), None)
        bases = {last(base) for base in around.bases} if around else set()
        decorators = {last(getattr(one, "func", one)) for one in node.decorator_list}
        meant = decorators & {"abstractmethod", "overload"} or bases & {"Protocol", "ABC"}
        if not meant and all(_does_nothing(one) for one in body):
            found.append(trees.place(node) | {"what": f"the body of {node.name} does nothing"})
    return found


def _does_nothing(node: ast.stmt) -> bool:
    if isinstance(node, ast.Raise):
        return "NotImplemented" in words(node.exc)
    empty = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and node.value.value is ...
    return isinstance(node, ast.Pass) or empty


def _unfinished(trees: Trees) -> list[Facts]:
    return [
        {"path": path, "line": number, "what": f"says {found[0].strip()!r}"}
        for path, source in trees.sources.items()
        for number, text in enumerate(source.splitlines(), 1)
        if (found := _UNFINISHED.search(text))
    ]


def _dangling(trees: Trees) -> list[Facts]:
    """A last statement that is no statement but words: a name, a comparison, a text."""
    found = []
    for tree in trees.files.values():
        node = tree.body[-1] if len(tree.body) > 1 else None
        if isinstance(node, ast.Expr) and isinstance(node.value, _WORDS):
            found.append(trees.place(node) | {"what": f"dangling text at the end: {words(node)[:40]}"})
    return found


def _harness_names(trees: Trees) -> list[Facts]:
    """Texts and imports that name the program that tests this one."""
    found: dict[tuple[str, int], Facts] = defaultdict(dict)
    for _, node in trees.every(ast.Constant, ast.Import, ast.ImportFrom, ast.Name, ast.Attribute):
        text = str(node.value) if isinstance(node, ast.Constant) else words(node)
        if _HARNESS.search(text):
            place = trees.place(node)
            found[place["path"], place["line"]] = place | {"text": text[:80]}
    return list(found.values())[:_MOST]
