"""Checks of a CRUD API: one item's life from creation to deletion, as it was seen."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pytest_qwen.checks.findings import failed, passed
from pytest_qwen.checks.reading import all_meet, brief, named, server, why_missing, why_silent
from pytest_qwen.exchanges import Exchange
from pytest_qwen.observations import Evidence
from pytest_qwen.scorecards import Finding

_REFUSALS = {"bad.id": 404, "bad.method": 405}


def creates(evidence: Evidence) -> Finding:
    """A valid item gives 201 with an identifier."""
    made = evidence.exchanges.get("create.0")
    if made is None:
        return why_missing(evidence, "creating an item")
    if made.status != 201:
        return failed(f"{brief(made)}: 201 was asked for")
    return passed(f"{made} with an id") if evidence.facts.get("id") else failed(f"{brief(made)}: no id in it")


def reads_back(evidence: Evidence) -> Finding:
    """What was created is read back field for field."""
    return _shows(evidence, "read.0", "first", "the item is read back as it was sent")


def fills_in_defaults(evidence: Evidence) -> Finding:
    """An item created with a title alone has the defaults for the rest."""
    return _shows(evidence, "create.2", "bare", "what was not given has its default")


def lists(evidence: Evidence) -> Finding:
    """Every item is in the list, the oldest first, and the deleted one no more afterwards."""
    before, after = (evidence.exchanges.get(name) for name in ("list.0", "list.1"))
    if before is None or after is None:
        return why_missing(evidence, "the list")
    sent, found = evidence.facts["sent"], _items(_json(before))
    titles = [item.get("title") for item in found if isinstance(item, Mapping)]
    if before.status != 200 or titles != [sent[name]["title"] for name in ("first", "second", "bare")]:
        return failed(f"{brief(before)}: not the three items that were created, in their order")
    if any(_holds(item, sent["patched"]) for item in _items(_json(after))):
        return failed(f"{brief(after)}: the deleted item is still in it")
    return passed("the list holds what is there, in its order, and nothing else")


def filters(evidence: Evidence) -> Finding:
    """A list of what is done holds that and nothing else."""
    seen = evidence.exchanges.get("filter.0")
    if seen is None:
        return why_missing(evidence, "a filtered list")
    found = _items(_json(seen))
    if seen.status != 200 or len(found) != 1 or not _holds(found[0], evidence.facts["sent"]["changed"]):
        return failed(f"{brief(seen)}: {len(found)} items, one is done")
    return passed("?done=true gives the one item that is done")


def updates(evidence: Evidence) -> Finding:
    """An item that is replaced is read back as replaced, field for field."""
    return _changed(evidence, "update.0", "read.1", "changed")


def patches(evidence: Evidence) -> Finding:
    """An item of which one field is changed keeps the others."""
    return _changed(evidence, "patch.0", "read.2", "patched")


def deletes(evidence: Evidence) -> Finding:
    """A deleted item gives 204, and 404 from then on for reading, changing and deleting it."""
    gone = evidence.exchanges.get("delete.0")
    if gone is None:
        return why_missing(evidence, "deleting an item")
    if gone.status != 204:
        return failed(f"{brief(gone)}: 204 was asked for")
    return all_meet(named(evidence, "gone."), lambda one: one.status == 404, "deleted items are 404")


def never_breaks(evidence: Evidence) -> Finding:
    """No bad input and no missing item gives a 5xx."""
    seen = named(evidence, "bad.", "gone.")
    if not seen:
        return why_missing(evidence, "bad input")
    return all_meet(
        seen, lambda one: one.status is not None and one.status < 500, f"{len(seen)} bad requests, no 5xx"
    )


def refuses(evidence: Evidence) -> Finding:
    """Bad input is refused with the status that was asked for: 404 for a missing item, else 422."""
    seen = named(evidence, "bad.")
    if not seen:
        return why_missing(evidence, "bad input")
    return all_meet(
        seen, lambda one: one.status == _REFUSALS.get(one.name, 422), f"{len(seen)} bad requests, all refused"
    )


def numbers_apart(evidence: Evidence) -> Finding:
    """Eight items created at once get eight identifiers."""
    seen = named(evidence, "parallel.")
    if not seen:
        return why_missing(evidence, "items at once")
    wrong = [brief(one) for one in seen if not one.ok]
    if wrong:
        return failed("; ".join(wrong))
    ids = {str(item.get("id")) for one in seen if isinstance(item := _json(one), Mapping)}
    return (
        passed("eight at once, eight ids")
        if len(ids) == len(seen)
        else failed(f"{len(ids)} ids for {len(seen)}")
    )


def stays_alive(evidence: Evidence) -> Finding:
    """After everything it still answers and was never restarted."""
    main = server(evidence, "main")
    last = named(evidence, "after.")
    silent = why_silent(evidence)
    if silent:
        return silent
    if main is None or not main.steady or not last:
        return failed("the process ended or was restarted during the calls")
    return all_meet(last, lambda one: one.ok, "still answers, never restarted")


def offers_its_operations(evidence: Evidence) -> Finding:
    """Create, list, read, replace, change and delete are in the document."""
    api = evidence.facts.get("api")
    if api is None:
        return why_silent(evidence) or why_missing(evidence, "the OpenAPI document")
    offered = {(one["method"], "{" in one["path"]) for one in api.get("operations", ())}
    wanted = {
        "create": {("POST", False)},
        "list": {("GET", False)},
        "read": {("GET", True)},
        "replace": {("PUT", True)},
        "change": {("PATCH", True)},
        "delete": {("DELETE", True)},
    }
    missing = [name for name, ways in wanted.items() if not ways & offered]
    return (
        failed(f"no operation to {', '.join(missing)}")
        if missing
        else passed("all six operations are offered")
    )


def errors_say_why(evidence: Evidence) -> Finding:
    """A missing item's 404 carries a message."""
    seen = [one for one in named(evidence, "gone.") if one.status == 404]
    if not seen:
        return (
            why_missing(evidence, "a missing item")
            if not named(evidence, "gone.")
            else failed("no 404 was seen")
        )
    return all_meet(seen, lambda one: bool(one.body.strip()), "every 404 says why")


def _json(seen: Exchange) -> Any:
    try:
        return json.loads(seen.body)
    except (ValueError, RecursionError):
        return None


def _holds(found: Any, sent: Mapping[str, object]) -> bool:
    """Whether an item has every field that was sent, with its value."""
    return isinstance(found, Mapping) and all(found.get(name) == value for name, value in sent.items())


def _items(found: Any) -> Sequence[Any]:
    """The items of a list, which may be wrapped in an object."""
    if isinstance(found, Mapping):
        found = next((value for value in found.values() if isinstance(value, list)), [])
    return found if isinstance(found, list) else []


def _shows(evidence: Evidence, name: str, sent: str, good: str) -> Finding:
    """Whether an answer has what was sent under that name."""
    seen = evidence.exchanges.get(name)
    if seen is None:
        return why_missing(evidence, "an item")
    wanted = evidence.facts["sent"][sent]
    if not seen.ok or not _holds(_json(seen), wanted):
        return failed(f"{brief(seen)}: not {json.dumps(wanted)}")
    return passed(good)


def _changed(evidence: Evidence, change: str, read: str, sent: str) -> Finding:
    made = evidence.exchanges.get(change)
    if made is not None and not made.ok:
        return failed(brief(made))
    return _shows(evidence, read, sent, f"{made.method if made else 'the change'} is kept, field for field")
