"""The requests that client code of an answer would make, read from its tree."""

from __future__ import annotations

import ast
import json
from urllib.parse import urlsplit

from pytest_qwen.sandbox.inside.analyse.nodes import Facts, argument, keyword, last, words
from pytest_qwen.sandbox.inside.analyse.trees import Trees

_METHODS = {"get", "post", "put", "patch", "delete", "head", "options"}
_MOST = 10


def request_facts(source: str, origin: str) -> list[Facts]:
    """Calls such as requests.post(url, files=…), client.get("/health"), httpx.request("POST", url)."""
    trees = Trees({origin: source}, origin)
    found = []
    for _, call, name in trees.calls():
        method, at = (name, 0) if name in _METHODS else (trees.text(argument(call, 0, "method")), 1)
        if method.lower() not in _METHODS or not isinstance(call.func, ast.Attribute):
            continue
        url = _url(trees, argument(call, at, "url"))
        if url:
            found.append(_request(trees, call, method.upper(), url) | {"origin": origin})
    return found[:_MOST]


def _url(trees: Trees, node: ast.expr | None) -> str:
    """The target of a URL; that of f"{BASE}/predict" where the base is not known is what follows it."""
    texts = sorted(text for text in trees.strings(node) if text.startswith(("http://", "https://", "/")))
    if texts:
        parts = urlsplit(texts[0])
        return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    rest = node.values[-1] if isinstance(node, ast.JoinedStr) and node.values else None
    told = rest.value if isinstance(rest, ast.Constant) else ""
    return told if isinstance(told, str) and told.startswith("/") else ""


def _request(trees: Trees, call: ast.Call, method: str, url: str) -> Facts:
    json_body = _meaning(trees, keyword(call, "json"))
    data = _meaning(trees, keyword(call, "data") or keyword(call, "content"))
    fields = [_file(trees, name, value) for name, value in _items(trees, keyword(call, "files"))]
    if isinstance(data, ast.Dict):
        fields += [
            {"name": name, "kind": "text", "value": trees.text(value), "content_type": None}
            for name, value in _items(trees, data)
        ]
    headers = [[name, trees.text(value)] for name, value in _items(trees, keyword(call, "headers"))]
    body = None if json_body is None else _json(json_body)
    if body is None and data is not None and not isinstance(data, ast.Dict):
        dumped = (
            argument(data, 0, "obj") if isinstance(data, ast.Call) and last(data.func) == "dumps" else None
        )
        body = (
            _json(_meaning(trees, dumped) or dumped)
            if dumped is not None
            else trees.text(data) or words(data)
        )
    return {"method": method, "path": url, "headers": headers, "fields": fields, "body": body}


def _json(node: ast.expr) -> str:
    """A literal as JSON; the source text of what is none."""
    try:
        return json.dumps(ast.literal_eval(node))
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return words(node)


def _meaning(trees: Trees, node: ast.expr | None) -> ast.expr | None:
    """What a name was given, the node itself when it is no name."""
    if node is None or not last(node):
        return node
    return next(iter(trees.values.get(last(node), [])), node)


def _items(trees: Trees, node: ast.expr | None) -> list[tuple[str, ast.expr]]:
    """The entries of a dictionary, or of a list of pairs as it may stand for one."""
    node = _meaning(trees, node)
    if isinstance(node, ast.Dict):
        return [(trees.text(key), value) for key, value in zip(node.keys, node.values, strict=True)]
    pairs = [
        one.elts for one in getattr(node, "elts", []) if isinstance(one, ast.Tuple) and len(one.elts) == 2
    ]
    return [(trees.text(name), value) for name, value in pairs]


def _file(trees: Trees, name: str, value: ast.expr) -> Facts:
    """A part with a file: an open file, bytes, or a tuple of file name, content and content type."""
    value = _meaning(trees, value) or value
    parts = value.elts if isinstance(value, ast.Tuple) else []
    kind = trees.text(parts[2]) if len(parts) > 2 else None
    shown = trees.text(parts[0]) if parts else words(value)
    return {"name": name, "kind": "file", "value": shown, "content_type": kind or None}
