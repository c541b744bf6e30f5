"""What each kind of server adds to the common protocol, as a table of values; and how it shows its kind."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """One kind of server.

    `fixed` are the body fields that make an answer exactly as long as asked, with the number of tokens where
    "{n}" stands, None where there is no way; `fresh` those that keep a prompt from being found in a prefix
    cache, with something new where "{salt}" stands. `token_prompts` says whether the route of text
    completions takes token ids, `usage_option` whether a stream is asked for its counts (a server that
    refuses the field sends them anyway). `listed` is False where a model can be asked for that is not in the
    list. `tokenize` is the route that counts tokens and the field that the text goes into; `metrics` the one
    with Prometheus' text; `sleep` is whether it has vLLM's routes to sleep and wake.
    """

    name: str
    fixed: Mapping[str, Any] | None = None
    fresh: Mapping[str, Any] = field(default_factory=dict)
    token_prompts: bool = False
    usage_option: bool = True
    listed: bool = True
    tokenize: tuple[str, str] | None = None
    metrics: str | None = None
    sleep: bool = False


# vllm, llama-cpp and transformers were run; the others follow their servers' documents and were not.
_UNTIL_LENGTH = {"ignore_eos": True, "min_tokens": "{n}"}
_SALTED = {"cache_salt": "{salt}"}
DIALECTS = {
    dialect.name: dialect
    for dialect in (
        Dialect(
            name="vllm",
            fixed=_UNTIL_LENGTH,
            fresh=_SALTED,
            token_prompts=True,
            tokenize=("/tokenize", "prompt"),
            metrics="/metrics",
            sleep=True,
        ),
        Dialect(
            name="sglang",
            fixed=_UNTIL_LENGTH,
            fresh=_SALTED,
            token_prompts=True,
            tokenize=("/tokenize", "prompt"),
            metrics="/metrics",
        ),
        Dialect(name="tensorrt-llm", fixed=_UNTIL_LENGTH, token_prompts=True, metrics="/prometheus/metrics"),
        Dialect(name="tgi", tokenize=("/tokenize", "inputs"), metrics="/metrics"),
        Dialect(
            name="llama-cpp",
            fixed={"ignore_eos": True},
            fresh={"cache_prompt": False},
            token_prompts=True,
            tokenize=("/tokenize", "content"),
            metrics="/metrics",
        ),
        Dialect(name="ollama"),
        Dialect(
            name="transformers",
            fixed={"generation_config": '{"max_new_tokens": {n}, "min_new_tokens": {n}}'},
            usage_option=False,
            listed=False,
        ),
        Dialect(name="unknown"),
    )
}
_OWNERS = {
    "vllm": "vllm",
    "sglang": "sglang",
    "tensorrt_llm": "tensorrt-llm",
    "llamacpp": "llama-cpp",
    "library": "ollama",
}


def by_owner(models: list[Mapping[str, Any]], server_header: str) -> Dialect | None:
    """The kind that the list of models, or the answer's Server header, tells of."""
    owners = {str(model.get("owned_by", "")).lower() for model in models}
    for owner, name in _OWNERS.items():
        if owner in owners:
            return DIALECTS[name]
    return DIALECTS["llama-cpp"] if server_header.lower() == "llama.cpp" else None


# Routes that tell of a kind, with what must be in the answer.
TELLING: tuple[tuple[str, str, str], ...] = (
    ("/info", "tgi", "docker_label"),
    ("/api/version", "ollama", "version"),
    ("/props", "llama-cpp", "build_info"),
    ("/openapi.json", "transformers", "/load_model"),
)
VERSION_ROUTES: Mapping[str, tuple[str, str]] = {
    "vllm": ("/version", "version"),
    "sglang": ("/get_server_info", "version"),
    "tensorrt-llm": ("/version", "version"),
    "tgi": ("/info", "version"),
    "llama-cpp": ("/props", "build_info"),
    "ollama": ("/api/version", "version"),
}


def fixed_fields(dialect: Dialect, tokens: int) -> dict[str, Any]:
    """The body fields that make an answer exactly `tokens` long; none where there is no way."""
    return {} if dialect.fixed is None else {k: _filled(v, tokens) for k, v in dialect.fixed.items()}


def fresh_fields(dialect: Dialect, salt: str) -> dict[str, Any]:
    """The body fields that keep a prompt out of the prefix cache; none where there is no way."""
    return {name: salt if value == "{salt}" else value for name, value in dialect.fresh.items()}


def _filled(value: Any, tokens: int) -> Any:
    if value == "{n}":
        return tokens
    return value.replace("{n}", str(tokens)) if isinstance(value, str) else value


def tells(body: bytes, field: str) -> bool:
    """Whether a route's answer is a JSON object with that field, or an API description with that path."""
    try:
        told = json.loads(body)
    except ValueError:
        return False
    return isinstance(told, dict) and (field in told or field in (told.get("paths") or ()))


def version_in(body: bytes, field: str) -> str:
    """The version in a route's answer, "" for none."""
    try:
        told = json.loads(body)
    except ValueError:
        return ""
    found = told.get(field) if isinstance(told, dict) else None
    return found[:60] if isinstance(found, str) else ""
