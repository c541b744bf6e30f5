"""Finds out, when an endpoint is loaded, what answers there and how it wants to be asked."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pytest_qwen import data
from pytest_qwen.engines import SERVED_MODEL
from pytest_qwen.engines.answers import AnswerReader, status_text, stream_of
from pytest_qwen.engines.asking import Asked, Lengths, Manner, Route, ask
from pytest_qwen.engines.base import Request
from pytest_qwen.engines.dialects import (
    DIALECTS,
    TELLING,
    VERSION_ROUTES,
    Dialect,
    by_owner,
    tells,
    version_in,
)
from pytest_qwen.engines.endpoint_faults import Contact, fault, unknown_model, which_model, wrong_url
from pytest_qwen.engines.http_exchange import Exchange
from pytest_qwen.engines.http_stream import HttpClient
from pytest_qwen.engines.texts import Calibration, calibrated
from pytest_qwen.errors import EngineFault, Misuse, QwenError, explain
from pytest_qwen.streams import Stream

_PROBE_TOKENS = 4
_ATTEMPTS = 3
# Lists and versions are there at once; the first request may have to wait until a model is loaded for it
# (Ollama, transformers serve).
_FACTS_S, _FIRST_S = 15.0, 600.0
_FEW, _MANY = 16, 64  # words of the two prompts that tell how words are counted


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a test may say about an endpoint; "auto" is found out."""

    api: str = "auto"
    prompts: str = "auto"
    dialect: str = ""
    extra: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What answers there: how to ask it, its version, whether it counts tokens and shows metrics."""

    contact: Contact
    manner: Manner
    version: str = ""
    usage: bool = True
    metrics: str | None = None


async def discover(client: HttpClient, contact: Contact, options: Options) -> Found:
    """Ask the server what it is and has, then try the smallest requests until one is taken.

    Raises Unavailable, Misuse, ModelUnusable and EngineFault, each in words.
    """
    client.silence_s = _FACTS_S
    models, server = await _models(client, contact)
    contact = replace(contact, models=tuple(str(model["id"]) for model in models))
    dialect, version = await _dialect(client, models, server, options)
    contact = replace(contact, model=_model(contact, models, dialect))
    entry = next((model for model in models if model["id"] == contact.model), {})
    manner = Manner(
        model=contact.model,
        dialect=dialect,
        counts=dialect.usage_option,
        extra=options.extra,
        vocabulary=_vocabulary(entry, contact.model),
        longest=_int(entry.get("max_model_len")),
    )
    client.silence_s = _FIRST_S
    manner, usage = await _probed(client, contact, manner, options)
    client.silence_s = _FACTS_S
    page = await client.fetch("GET", dialect.metrics) if dialect.metrics else None
    shows = page is not None and page.failure is None and page.framer.status == 200
    return Found(
        contact=contact,
        manner=manner,
        version=version,
        usage=usage,
        metrics=dialect.metrics if shows else None,
    )


async def _models(client: HttpClient, contact: Contact) -> tuple[list[Mapping[str, Any]], str]:
    """What /v1/models lists, and the Server header. A server without that list may still have a model."""
    exchange = await client.fetch("GET", "/v1/models")
    framer = exchange.framer
    if exchange.failure is not None:
        state, detail = exchange.failure
        raise wrong_url(contact, detail) if state == "malformed" else fault(contact, state, detail)
    listed = _object(exchange.body).get("data")
    if framer.status == 200 and isinstance(listed, list):
        rows: list[Mapping[str, Any]] = [
            row for row in listed if isinstance(row, dict) and isinstance(row.get("id"), str)
        ]
        return rows, framer.headers.get("server", "")
    if framer.status in (401, 403, 429) or framer.status >= 500:
        raise fault(contact, "http-error", status_text(exchange), framer.status)
    if framer.status in (404, 405, 501) and _object(exchange.body) and contact.model != SERVED_MODEL:
        return [], framer.headers.get("server", "")
    kind = framer.headers.get("content-type", "something without a content type")
    raise wrong_url(contact, status_text(exchange) if framer.status != 200 else f"HTTP 200 with {kind}")


def _model(contact: Contact, models: Sequence[Mapping[str, Any]], dialect: Dialect) -> str:
    """The server's name of the asked model, or its only one. Raises ModelUnusable and Misuse."""
    if contact.model == SERVED_MODEL:
        own = [str(model["id"]) for model in models if not model.get("parent")]  # adapters have a parent
        if len(own) != 1:
            raise which_model(contact)
        return own[0]
    for name in (contact.model, f"{contact.model}:latest"):  # Ollama lists names with their tags
        if name in contact.models:
            return name
    if contact.models and dialect.listed:
        raise unknown_model(contact)
    return contact.model


async def _dialect(
    client: HttpClient, models: list[Mapping[str, Any]], server: str, options: Options
) -> tuple[Dialect, str]:
    """The kind of server and its version, as far as it tells."""
    if options.dialect:
        if options.dialect not in DIALECTS:
            raise Misuse(explain("there is no such kind of server", asked=options.dialect, choices=DIALECTS))
        dialect = DIALECTS[options.dialect]
    else:
        known = by_owner(models, server)
        dialect = known if known is not None else await _told(client)
    if dialect.name not in VERSION_ROUTES:
        return dialect, ""
    route, name = VERSION_ROUTES[dialect.name]
    exchange = await client.fetch("GET", route)
    return dialect, version_in(exchange.body, name) if exchange.framer.status == 200 else ""


async def _told(client: HttpClient) -> Dialect:
    """The kind that one of the telling routes shows; "unknown" when none does."""
    for route, name, field in TELLING:
        exchange = await client.fetch("GET", route)
        if exchange.failure is None and exchange.framer.status == 200 and tells(exchange.body, field):
            return DIALECTS[name]
    return DIALECTS["unknown"]


async def _probed(
    client: HttpClient, contact: Contact, manner: Manner, options: Options
) -> tuple[Manner, bool]:
    """The first manner that the server takes a tiny request in; and whether it counted its tokens."""
    first: QwenError | None = None
    for tried in _manners(manner, options):
        exchange, stream = await _patiently(client, _tiny(tried))
        if stream.complete:
            usage = stream.state == "ok"
            return await with_words(client, contact, tried, _text_routes(tried)), usage
        error = fault(contact, stream.state, stream.detail, exchange.framer.status)
        first = first or (wrong_url(contact, stream.detail) if _no_route(exchange, error) else error)
        if exchange.framer.status not in (400, 404, 405, 413, 415, 422, 500, 501):
            raise error
    raise first or wrong_url(contact, "nothing could be tried")


async def _patiently(client: HttpClient, asked: Asked) -> tuple[Exchange, Stream]:
    """One request, and again if the server failed at it: one that fails now and then is to be measured, and
    in the manner that it takes. Only here, where nothing is timed, is a request sent again."""
    for left in reversed(range(_ATTEMPTS)):
        exchange, stream = await one(client, asked)
        failed = stream.state == "cut" or (stream.state == "http-error" and exchange.framer.status >= 500)
        if not failed or not left:
            break
    return exchange, stream


def _no_route(exchange: Exchange, error: QwenError) -> bool:
    """Whether the path itself is unknown there, and not the model."""
    return exchange.framer.status in (404, 405) and isinstance(error, EngineFault)


def _manners(manner: Manner, options: Options) -> list[Manner]:
    """What is tried, the best first: token ids, then text; with the server's extra fields, then without."""
    routes: list[tuple[Route, str]] = []
    if options.api != "chat" and options.prompts != "text" and manner.dialect.token_prompts:
        routes.append(("completions", "tokens"))
    if options.prompts != "tokens":
        routes += [("chat", "text")] if options.api != "completions" else []
        routes += [("completions", "text")] if options.api != "chat" else []
    if not routes:
        raise Misuse(
            explain(
                "this server takes no prompts of token ids that way",
                asked=f"prompts={options.prompts!r}, api={options.api!r}",
                found=f"a server of kind {manner.dialect.name!r}",
                slip="token ids go to the route of text completions alone",
            )
        )
    only: Route | None = (
        None if options.api == "auto" else ("chat" if options.api == "chat" else "completions")
    )
    with_route = [
        replace(manner, route=route, prompts="tokens" if kind == "tokens" else "text", only=only)
        for route, kind in routes
    ]
    plain = [replace(tried, fixes=False) for tried in with_route]
    bare = [replace(tried, counts=False) for tried in plain] if manner.counts else []
    extras = with_route if manner.dialect.fixed is not None else []
    return [*extras, *plain, *bare]


def _tiny(manner: Manner, words: int = 8, tokens: int = _PROBE_TOKENS) -> Asked:
    """The smallest request that tells whether a manner is taken."""
    request = Request(prompt_tokens=words, output_tokens=tokens, ignore_eos=True)
    plain = replace(manner, words={manner.route: Calibration()})
    return ask(plain, request, f"probe {words}", lengths=Lengths(prompt=words, output=tokens))


def _text_routes(manner: Manner) -> tuple[Route, ...]:
    """Where prompts of words may go: nowhere for a server that takes token ids alone."""
    return (manner.route,) if manner.prompts == "text" else ()


async def with_words(client: HttpClient, contact: Contact, manner: Manner, routes: Sequence[Route]) -> Manner:
    """The manner with words calibrated for the routes, where the server counts prompts at all."""
    found = dict(manner.words)
    for route in routes:
        counted = []
        for words in (_FEW, _MANY):
            asking = replace(manner, route=route, prompts="text")
            exchange, stream = await one(client, _tiny(asking, words, tokens=1))
            if not stream.complete:
                raise fault(contact, stream.state, stream.detail, exchange.framer.status)
            counted.append((words, stream.prompt_tokens or 0))
        if counted[0][1] and counted[1][1]:
            found[route] = calibrated(counted[0], counted[1])
    return replace(manner, words=found)


async def one(client: HttpClient, asked: Asked) -> tuple[Exchange, Stream]:
    """One streamed request and its answer."""
    exchange = await client.fetch("POST", asked.path, asked.body)
    return exchange, stream_of(exchange, AnswerReader(), start_ns=exchange.sent_ns, asked_tokens=asked.tokens)


def _vocabulary(entry: Mapping[str, Any], model: str) -> int | None:
    """How many token ids the model has, from the server (llama.cpp) or from its shipped configuration."""
    meta = entry.get("meta")
    told = _int(meta.get("n_vocab")) if isinstance(meta, Mapping) else None
    if told:
        return told
    shape = data.find_shape(model)
    return None if shape is None else shape.vocab


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _int(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
