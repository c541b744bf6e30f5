"""From a request of ours to the HTTP body that one server understands. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pytest_qwen.engines.base import Message, Request
from pytest_qwen.engines.dialects import Dialect, fixed_fields, fresh_fields
from pytest_qwen.engines.texts import Calibration, token_ids, words
from pytest_qwen.errors import Misuse, explain

Route = Literal["chat", "completions"]
Prompts = Literal["tokens", "text"]
PATHS: Mapping[Route, str] = {"chat": "/v1/chat/completions", "completions": "/v1/completions"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How one server wants to be asked, as found out when it was loaded.

    `route` is the one for what may go either way, `prompts` how prompts of a given length are made;
    `words` turns a length into words, by route. `fixes` says whether answers can be made as long as asked.
    """

    model: str
    dialect: Dialect
    route: Route = "chat"
    prompts: Prompts = "text"
    only: Route | None = None
    counts: bool = True
    fixes: bool = True
    extra: Mapping[str, Any] = field(default_factory=dict)
    words: Mapping[Route, Calibration] = field(default_factory=dict)
    vocabulary: int | None = None
    longest: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One HTTP request to be sent, and what it asks for; `messages` is the conversation that it goes on."""

    path: str
    body: bytes
    tokens: int
    messages: tuple[Message, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """How long a prompt of random tokens is, how many of them all prompts share, how much shall come out."""

    prompt: int
    output: int
    shared: int = 0


def ask(
    manner: Manner,
    request: Request,
    key: object,
    *,
    lengths: Lengths | None = None,
    history: tuple[Message, ...] = (),
    salt: str = "",
) -> Asked:
    """The body for one request; random prompts follow from `key`, with `lengths` in place of the request's.

    `history` is what was said before, in a conversation of several turns. With a `salt` that no other request
    has the prompt is not found in a prefix cache, where the server offers that.
    """
    asked = _worded(manner, request, key, lengths, history)
    if not (salt and manner.fixes and manner.dialect.fresh):
        return asked
    more = json.dumps(fresh_fields(manner.dialect, salt)).encode()
    return replace(asked, body=asked.body[:-1] + b", " + more[1:])


def _worded(
    manner: Manner, request: Request, key: object, lengths: Lengths | None, history: tuple[Message, ...]
) -> Asked:
    """The body without a salt."""
    lengths = lengths or Lengths(prompt=request.prompt_tokens or 0, output=request.output_tokens)
    if request.prompt_tokens is not None and manner.prompts == "tokens" and not history:
        ids = _random_ids(manner, lengths, key)
        return _asked(manner, request, "completions", {"prompt": ids}, lengths.output)
    messages, route = _said(manner, request, key, lengths, history)
    if route == "chat":
        turns = [{"role": message.role, "content": message.content} for message in messages]
        return _asked(manner, request, route, {"messages": turns}, lengths.output, messages)
    text = "\n".join(message.content for message in messages)
    return _asked(manner, request, route, {"prompt": text}, lengths.output, messages)


def _random_ids(manner: Manner, lengths: Lengths, key: object) -> list[int]:
    shared = min(lengths.shared, lengths.prompt - 1)
    common = token_ids(shared, "shared", manner.vocabulary) if shared > 0 else []
    return common + token_ids(lengths.prompt - len(common), key, manner.vocabulary)


def _said(
    manner: Manner, request: Request, key: object, lengths: Lengths, history: tuple[Message, ...]
) -> tuple[tuple[Message, ...], Route]:
    """The conversation so far with what is asked now, and the route that it goes."""
    if request.messages is not None:
        return (*history, *request.messages), manner.only or "chat"
    if request.prompt is not None:
        route: Route = manner.only or (
            "chat" if request.template and manner.route == "chat" else "completions"
        )
        return (*history, Message(role="user", content=request.prompt)), route
    route = manner.route
    calibration = manner.words.get(route, Calibration())
    # what was said before brought the template's tokens already
    overhead = Calibration(per_word=calibration.per_word) if history else calibration
    shared = overhead.words_for(lengths.shared) if lengths.shared and not history else 0
    own = overhead.words_for(lengths.prompt) - shared
    text = " ".join(filter(None, (words(shared, "shared") if shared else "", words(max(1, own), key))))
    return (*history, Message(role="user", content=text)), route


def _asked(
    manner: Manner,
    request: Request,
    route: Route,
    prompt: Mapping[str, Any],
    tokens: int,
    messages: tuple[Message, ...] = (),
) -> Asked:
    body: dict[str, Any] = {
        "model": manner.model,
        **prompt,
        "stream": True,
        "max_tokens": tokens,
        "temperature": request.temperature,
    }
    if manner.counts:
        body["stream_options"] = {"include_usage": True}
    if request.top_p != 1.0:
        body["top_p"] = request.top_p
    if request.stop:
        body["stop"] = list(request.stop)
    if request.temperature > 0:
        body["seed"] = request.seed
    if request.ignore_eos and manner.fixes:
        body |= fixed_fields(manner.dialect, tokens)
    body |= manner.extra
    return Asked(path=PATHS[route], body=json.dumps(body).encode(), tokens=tokens, messages=messages)


def one_prompt(request: Request) -> None:
    """Raises Misuse unless the request has exactly one kind of prompt."""
    kinds = ("prompt", "messages", "prompt_tokens")
    given = [name for name in kinds if getattr(request, name) is not None]
    if len(given) != 1:
        raise Misuse(
            explain(
                "a request needs exactly one kind of prompt",
                found=", ".join(given) or "none",
                choices=kinds,
            )
        )


def extra_fields(text: str) -> dict[str, Any]:
    """The option `body`, JSON text of an object. Raises Misuse."""
    try:
        found = json.loads(text or "{}")
    except ValueError as error:
        raise Misuse(explain("the option 'body' is no JSON", asked=text, found=str(error))) from error
    if not isinstance(found, dict):
        raise Misuse(explain("the option 'body' is no JSON object", asked=text, slip='want {"field": value}'))
    ours: Sequence[str] = ("model", "stream", "prompt", "messages", "max_tokens")
    taken = [name for name in ours if name in found]
    if taken:
        raise Misuse(explain("the option 'body' sets what the workload decides", found=", ".join(taken)))
    return found
