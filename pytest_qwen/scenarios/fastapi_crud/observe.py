"""Runs a generated to-do API once and walks one item through its life."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from pytest_qwen.exchanges import Call, Exchange
from pytest_qwen.openapi import Document, NotReadable, find_health, read_document
from pytest_qwen.records import plain
from pytest_qwen.scenarios.base import Seen, Trial
from pytest_qwen.scenarios.deeper import look_deeper
from pytest_qwen.scenarios.starting import another_stub, launch_of
from pytest_qwen.serving import Serving

COLLECTION = "/todos"
FIRST = {"title": "buy milk", "description": "two litres", "done": False}
SECOND = {"title": "call home", "description": "on Sunday", "done": False}
BARE = {"title": "only a title", "description": None, "done": False}
CHANGED = {"title": "buy oat milk", "description": "one litre", "done": True}
PATCHED = {**CHANGED, "title": "buy rice milk"}
SENT = {"first": FIRST, "second": SECOND, "bare": BARE, "changed": CHANGED, "patched": PATCHED}
_JSON = (("Content-Type", "application/json"), ("Accept", "application/json"))
_NOWHERE = "987654321"


def observe(trial: Trial, seen: Seen) -> None:
    """Fill `seen` with all that the rubric reads."""
    stubs: tuple[str, ...] = ()
    started = time.monotonic()
    while True:
        with Serving(trial.sandbox, launch_of(trial, stubs=stubs)) as serving:
            if serving.ready():
                _ask(seen, serving)
                serving.steady()
            seen.servers["main"] = serving.server()
            if seen.servers["main"].alive_after and not trial.brief:
                _end(seen, serving)
        stub = another_stub(trial, seen, stubs)
        if stub is None:
            break
        stubs = (*stubs, stub)
        seen.forget()
    seen.facts["notes"] = [f"run with an empty stub instead of {name!r}" for name in stubs]
    seen.timings_s["main"] = time.monotonic() - started
    look_deeper(trial, seen, launch_of(trial, stubs=stubs))


def _ask(seen: Seen, serving: Serving) -> None:
    probe = serving.probe
    seen.exchanges |= probe.batch(
        [Call(name="openapi", method="GET", path="/openapi.json")], keep_bytes=2 << 20
    )
    document = read_document(seen.exchanges["openapi"].body)
    seen.facts["api"] = {"error": document.reason} if isinstance(document, NotReadable) else plain(document)
    if isinstance(document, Document):
        _ask_health(seen, serving, document)
    seen.exchanges |= probe.batch([_send("create.0", "POST", COLLECTION, FIRST)])
    identifier = id_of(seen.exchanges["create.0"])
    seen.facts |= {"id": identifier, "sent": SENT}
    if identifier is not None:
        seen.exchanges |= probe.batch(_life(identifier), at_once=1)
    seen.exchanges |= probe.batch(_bad(), at_once=1)
    seen.exchanges |= probe.batch(
        [_send(f"parallel.{i}", "POST", COLLECTION, {**SECOND, "title": f"task {i}"}) for i in range(8)]
    )
    seen.exchanges |= probe.batch([_send("after.0", "GET", COLLECTION)])


def _ask_health(seen: Seen, serving: Serving, document: Document) -> None:
    health = find_health(document)
    if health is not None:
        seen.exchanges |= serving.probe.batch([Call(name="health", method="GET", path=health.path)])


def _life(identifier: str) -> list[Call]:
    """One item read, listed, changed, deleted, and looked for again."""
    item = f"{COLLECTION}/{identifier}"
    return [
        _send("create.1", "POST", COLLECTION, SECOND),
        _send("create.2", "POST", COLLECTION, {"title": BARE["title"]}),
        _send("read.0", "GET", item),
        _send("list.0", "GET", COLLECTION),
        _send("update.0", "PUT", item, CHANGED),
        _send("read.1", "GET", item),
        _send("filter.0", "GET", f"{COLLECTION}?done=true"),
        _send("patch.0", "PATCH", item, {"title": PATCHED["title"]}),
        _send("read.2", "GET", item),
        _send("delete.0", "DELETE", item),
        _send("gone.read", "GET", item),
        _send("gone.update", "PUT", item, CHANGED),
        _send("gone.patch", "PATCH", item, {"done": True}),
        _send("gone.delete", "DELETE", item),
        _send("list.1", "GET", COLLECTION),
    ]


def _bad() -> list[Call]:
    """Input that has to be refused."""
    return [
        _send("bad.missing", "POST", COLLECTION, {}),
        _send("bad.type", "POST", COLLECTION, {"title": ["not", "text"], "done": "perhaps"}),
        _send("bad.null", "POST", COLLECTION, {"title": None}),
        _send("bad.blank", "POST", COLLECTION, {"title": ""}),
        _send("bad.long", "POST", COLLECTION, {"title": "x" * 201}),
        Call(name="bad.empty", method="POST", path=COLLECTION, headers=_JSON),
        Call(name="bad.json", method="POST", path=COLLECTION, headers=_JSON, body=(b'{"title": ',)),
        Call(name="bad.form", method="POST", path=COLLECTION, body=(b"title=x",)),
        _send("bad.id", "GET", f"{COLLECTION}/{_NOWHERE}"),
        _send("bad.method", "DELETE", COLLECTION),
    ]


def _end(seen: Seen, serving: Serving) -> None:
    serving.probe.begin([_send("term.request", "GET", COLLECTION)])
    seen.exchanges |= serving.probe.finish()
    exit_s, exit_code = serving.terminate(10.0)
    seen.facts["term"] = {"exit_s": exit_s, "exit_code": exit_code}


def _send(name: str, method: str, path: str, value: Mapping[str, object] | None = None) -> Call:
    body = () if value is None else (json.dumps(value).encode(),)
    return Call(name=name, method=method, path=path, headers=_JSON, body=body)


def id_of(created: Exchange) -> str | None:
    """The identifier that a created item was given; None where the answer has none."""
    item = item_of(created)
    found = item.get("id") if isinstance(item, Mapping) else None
    return str(found) if isinstance(found, int | str) and not isinstance(found, bool) else None


def item_of(seen: Exchange) -> Any:
    """The JSON of an answer; None when it is none."""
    try:
        return json.loads(seen.body)
    except (ValueError, RecursionError):
        return None
