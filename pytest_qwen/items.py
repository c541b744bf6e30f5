"""What a collected test asks of us: its marks read once, its fixtures, its place in the order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import pytest

from pytest_qwen import MARK_NAMES
from pytest_qwen.errors import Misuse, explain

if TYPE_CHECKING:
    from pytest_qwen.ask import RunRequest
    from pytest_qwen.bounds import Bound

# What a test asks for, or the misuse that it is failed with; absent on a test that is none of ours.
REQUEST: pytest.StashKey[RunRequest | Misuse] = pytest.StashKey()
# Fixtures through which something is measured; `plan` and `gpu` only tell.
MEASURING = frozenset({"llm", "load", "compare", "finetune"})
# The fixture through which optimiser steps are, and the bounds that are judged on them, alone or too.
TRAINING = frozenset({"finetune"})
_OF_STEPS = frozenset({"max_step_time"})
_OF_BOTH = frozenset({"max_vram", "max_load_time", "max_slowdown"})
_HOME = "pytest_qwen.plugin"
# The fixture through which answers are rated.
RATING = frozenset({"rate"})
# The fixture through which right answers are counted.
COUNTING = frozenset({"accuracy"})
_FIXTURES = MEASURING | RATING | COUNTING | {"plan", "gpu", "sandbox", "published", "law"}


def read(item: pytest.Item) -> bool:
    """Keep the test's request or misuse in its stash; False for a test that has nothing to do with us."""
    from pytest_qwen.ask import read_marks

    uses = ours(item)
    try:
        request = read_marks(item.iter_markers_with_node(), uses_fixtures=bool(uses))
        steps = tuple(bound for bound in request.bounds if bound.marker in _OF_STEPS)
        speeds = tuple(bound for bound in request.bounds if bound.marker not in _OF_STEPS | _OF_BOTH)
        for bounds, wanted, example in (
            (request.bounds, MEASURING, "llm"),
            (steps, TRAINING, "finetune"),
            (speeds, MEASURING - TRAINING, "llm"),
            (request.rated, RATING, "rate"),
            (request.counted, COUNTING, "accuracy"),
        ):
            if bounds and not wanted & uses:
                raise Misuse(_without_fixture(bounds, wanted, example))
        item.stash[REQUEST] = request
    except Misuse as misuse:
        item.stash[REQUEST] = misuse
        return True
    if not uses and request.gpu is None:
        del item.stash[REQUEST]
        return False
    return True


def ours(item: pytest.Item) -> set[str]:
    """Which of our fixtures the test takes; a fixture or parameter of its own by such a name is not ours."""
    definitions = getattr(getattr(item, "_fixtureinfo", None), "name2fixturedefs", {})
    if not definitions:
        return set()
    named = [name for name in _FIXTURES if name in definitions]
    return {name for name in named if definitions[name][-1].func.__module__ == _HOME}


def may_be_ours(item: pytest.Item, marked: dict[object, bool]) -> bool:
    """Whether a test has a mark or a fixture of ours; `marked` remembers what was seen of its parents.

    Asked of every test of every session that has this plugin, so it has to be quick.
    """
    parent = item.parent
    if parent not in marked:
        above = parent.iter_markers() if parent is not None else ()
        marked[parent] = any(mark.name in MARK_NAMES for mark in above)
    own = item.own_markers
    return marked[parent] or (own and any(mark.name in MARK_NAMES for mark in own)) or bool(ours(item))


def grouped(items: list[pytest.Item], keys: Mapping[pytest.Item, str | None]) -> list[pytest.Item]:
    """The items in order, but each test that loads moved up behind the first one with an equal load."""
    groups: dict[str, list[pytest.Item]] = {}
    for item in items:
        key = keys.get(item)
        groups.setdefault(item.nodeid if key is None else f"load {key}", []).append(item)
    return [item for group in groups.values() for item in group]


def _without_fixture(bounds: Iterable[Bound], wanted: Iterable[str], example: str) -> str:
    """The message of a bound on a test that takes no fixture of ours that could meet it."""
    return explain(
        "a bound was set on a test that measures nothing",
        asked="; ".join(str(bound) for bound in bounds),
        found="the test function takes none of the fixtures that this bound is judged on",
        slip=f"the argument {example!r} is missing: def test_it({example}): ...",
        choices=sorted(wanted),
    )
