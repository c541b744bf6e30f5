"""Which app a program makes, how its module is started, and what it imports."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import PurePosixPath

from pytest_qwen.sandbox.inside.analyse.nodes import FUNCTIONS, Facts, imported, is_main_block, last, words
from pytest_qwen.sandbox.inside.analyse.trees import Trees

_FRAMEWORKS = {"fastapi", "starlette", "flask", "quart", "litestar", "sanic"}
_FIRST = ("main", "app", "api")


def program_facts(trees: Trees) -> Facts:
    """The app, the block that starts it, the imports."""
    blocks = [node for _, node in trees.every(ast.If) if is_main_block(node)]
    return {
        "app": app_facts(trees),
        "main_block": trees.place(blocks[0]) if blocks else None,
        "imports": import_facts(trees),
    }


def app_facts(trees: Trees) -> Facts | None:
    """The app object: `app`, then `api`, then the only one there is, then a factory; the main file first."""
    first = [path for path in trees.files if PurePosixPath(path).stem in _FIRST]
    first.sort(key=lambda path: (path.count("/"), _FIRST.index(PurePosixPath(path).stem)))
    for path in dict.fromkeys([trees.main, *first, *trees.files]):
        found = _app_in(trees, path)
        if found is not None:
            return found | _module_of(trees, path)
    return None


def _app_in(trees: Trees, path: str) -> Facts | None:
    made = _made_at_import(trees, path)
    instances = [name for name, (_, value) in made.items() if _framework(trees, value)]
    named = [name for name in ("app", "api") if name in instances or (name == "app" and name in made)]
    for name in named or (instances if len(instances) == 1 else []):
        node, value = made[name]
        call = value if isinstance(value, ast.Call) else None
        arguments = {one.arg: words(one.value) for one in call.keywords if one.arg} if call else {}
        app = {
            "name": name,
            "kind": "instance",
            "framework": _framework(trees, value),
            "arguments": arguments,
        }
        return app | trees.place(node)
    for node in trees.files[path].body:
        if isinstance(node, FUNCTIONS) and node.name in {"create_app", "get_app"}:
            kinds = [_framework(trees, one) for one in ast.walk(node) if isinstance(one, ast.Call)]
            kind = next(filter(None, kinds), None)
            return {"name": node.name, "kind": "factory", "framework": kind, "arguments": {}} | trees.place(
                node
            )
    return None


def _made_at_import(trees: Trees, path: str) -> dict[str, tuple[ast.AST, ast.expr | None]]:
    """The names that a module has after its import and what gave them; None for an app of another module."""
    made: dict[str, tuple[ast.AST, ast.expr | None]] = {}
    for node in filter(trees.at_import, ast.walk(trees.files[path])):
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                made.setdefault(last(target), (node, node.value))
        elif isinstance(node, ast.ImportFrom) and trees.is_local(node.module or "", node.level):
            imported_names = {one.asname or one.name for one in node.names}
            made |= dict.fromkeys(imported_names & {"app"}, (node, None))
    return made


def _framework(trees: Trees, value: ast.AST | None, depth: int = 0) -> str | None:
    """The framework whose app an expression makes, itself or through a function of the program."""
    if not isinstance(value, ast.Call) or depth > 3:
        return None
    name = last(value.func).lower()
    if name in _FRAMEWORKS:
        return name
    inner = [one for function in trees.called(value.func) for one in ast.walk(function)]
    return next(filter(None, (_framework(trees, one, depth + 1) for one in inner)), None)


def _module_of(trees: Trees, path: str) -> Facts:
    """How the module is named for the server, and the folder that its imports count from."""
    pure = PurePosixPath(path)
    others = [PurePosixPath(other) for other in trees.files]
    beside = {other.stem for other in others if other.parent == pure.parent}
    from_root = {other.with_suffix("").parts[0] for other in others}
    absolute = (node for node in trees.files[path].body if not getattr(node, "level", 0))
    wanted = {module.split(".")[0] for node in absolute for module in imported(node)}
    directory = str(pure.parent) if wanted & beside - from_root else ""
    return {"directory": directory, "module": ".".join(pure.relative_to(directory).with_suffix("").parts)}


def import_facts(trees: Trees) -> list[Facts]:
    """Every import, which kind it is, and whether the program can do without it."""
    found = []
    for _, node in trees.nodes:
        for module in imported(node):
            top = module.split(".")[0]
            kind = "stdlib" if top in sys.stdlib_module_names else "third-party"
            kind = "local" if trees.is_local(module, getattr(node, "level", 0)) else kind
            guarded = any(_catches_import(one) for one in trees.around(node))
            found.append({"module": module, "top": top, "kind": kind, "guarded": guarded} | trees.place(node))
    return found


def _catches_import(node: ast.AST) -> bool:
    if isinstance(node, ast.If):
        return last(node.test) == "TYPE_CHECKING"
    if not isinstance(node, ast.Try):
        return False
    caught = [words(one.type) for one in node.handlers]
    return any(not one or re.search(r"ImportError|ModuleNotFoundError|\bException\b", one) for one in caught)
