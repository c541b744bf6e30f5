"""Parses a document that nobody vouches for, within limits, and finds what its local references point to."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

MOST_BYTES = 2 << 20
DEEPEST = 64
MOST_NODES = 100_000
MOST_OPERATIONS = 200
# A longer one points nowhere: to follow one of a megabyte again and again would take minutes.
_LONGEST_REFERENCE = 1000
METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
# Strings are passed over as a whole, one without an end up to the end of the text; possessive, so linear.
_TOKEN = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[\[{\]},]', re.DOTALL)


class Refused(Exception):
    """The document is none, or goes beyond a limit; the text says why."""


def parse(text: str) -> Mapping[str, Any]:
    """The root of an OpenAPI 3 document. Raises Refused."""
    _check_size(text)
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        raise Refused("not JSON") from None
    if not isinstance(data, dict) or not str(data.get("openapi", "")).startswith("3."):
        raise Refused("not an OpenAPI 3 document")
    return data


def _check_size(text: str) -> None:
    """Raises Refused for a text that is too large, deep or fine-grained to be parsed."""
    if len(text) > MOST_BYTES or len(text.encode("utf-8", "surrogatepass")) > MOST_BYTES:
        raise Refused(f"larger than {MOST_BYTES} bytes")
    depth = nodes = 0
    for token in _TOKEN.finditer(text):
        start = text[token.start()]
        if start in "[{":
            depth += 1
        elif start in "]}":
            depth -= 1
        nodes += start in "[{,"
        if depth > DEEPEST:
            raise Refused(f"nested deeper than {DEEPEST} levels")
        if nodes > MOST_NODES:
            raise Refused(f"more than {MOST_NODES} values")


def at(root: Mapping[str, Any], reference: str) -> object:
    """What a local reference ("#/components/schemas/Answer") points to; None when there is nothing."""
    node: object = root
    if len(reference) > _LONGEST_REFERENCE:
        return None
    for token in reference[2:].split("/"):
        key = unquote(token).replace("~1", "/").replace("~0", "~")
        if not isinstance(node, Mapping) or key not in node:
            return None
        node = node[key]
    return node


def mapping(value: object) -> Mapping[str, Any]:
    """The value if it is an object, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def items(value: object) -> list[Any]:
    """The value if it is an array, else an empty one."""
    return value if isinstance(value, list) else []
