"""The options of an endpoint, checked, and the key out of its environment variable."""

from __future__ import annotations

import os

from pytest_qwen.engines import DEFAULT_KEY_ENV
from pytest_qwen.engines.base import LoadSpec
from pytest_qwen.errors import Misuse, closest, explain

_OPTIONS = ("url", "api", "key_env", "prompts", "body", "dialect")
_APIS, _PROMPTS = ("auto", "chat", "completions"), ("auto", "tokens", "text")


def options_of(spec: LoadSpec) -> dict[str, object]:
    """The options with their defaults. Raises Misuse for unknown ones and wrong values."""
    given = dict(spec.options)
    for name in given:
        if name not in _OPTIONS:
            near = closest(name, _OPTIONS)
            slip = f"did you mean {near!r}?" if near else None
            raise Misuse(explain("an endpoint has no such option", asked=name, slip=slip, choices=_OPTIONS))
    if not given.get("url"):
        raise Misuse(
            explain(
                "the engine 'endpoint' needs a URL", next_step="give --qwen-endpoint=https://HOST:PORT/v1"
            )
        )
    defaults = {"api": "auto", "prompts": "auto", "body": "", "dialect": "", "key_env": DEFAULT_KEY_ENV}
    options = {**defaults, **given}
    for name, choices in (("api", _APIS), ("prompts", _PROMPTS)):
        if options[name] not in choices:
            raise Misuse(explain(f"the option {name!r} is wrong", asked=repr(options[name]), choices=choices))
    return options


def key_in(name: str) -> str:
    """The key in an environment variable, "" for none. Raises Misuse for one that no header can hold."""
    key = os.environ.get(name, "").strip()
    if not all(0x20 < ord(char) < 0x7F for char in key):
        raise Misuse(
            explain("the API key holds characters that no key has", found=f"the environment variable {name}")
        )
    return key
