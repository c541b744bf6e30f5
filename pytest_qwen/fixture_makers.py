"""What each fixture gives to a test, made from the session's workshop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import pytest

from pytest_qwen.errors import Misuse, explain
from pytest_qwen.llm import Llm
from pytest_qwen.showing import as_outcome
from pytest_qwen.workshop import Workshop, request_of

if TYPE_CHECKING:
    from pytest_qwen.accuracy import Accuracy
    from pytest_qwen.beside import Beside, Laws, Published
    from pytest_qwen.comparing import Comparison
    from pytest_qwen.finetuning import FineTune
    from pytest_qwen.grading import Ratings
    from pytest_qwen.planning import Plan
    from pytest_qwen.sandbox.base import Sandbox
    from pytest_qwen.stars import Rate

# What a test rated, set beside and counted: read when its body has passed.
RATINGS: pytest.StashKey[Ratings] = pytest.StashKey()
BESIDE: pytest.StashKey[Beside] = pytest.StashKey()
ACCURACY: pytest.StashKey[Accuracy] = pytest.StashKey()


class Makers:
    """The makers of one test's fixtures, each by its fixture's name; what cannot be had fails or skips it."""

    def __init__(self, shop: Workshop, item: pytest.Item) -> None:
        self._shop = shop
        self._item = item

    def llm(self) -> Llm:
        """The test's model, leased."""
        with as_outcome(proving=self._shop.proving(self._item)):
            return Llm(self._shop.open(self._item))

    def load(self) -> Callable[..., Llm]:
        """What loads by call; its errors reach the test as they are."""

        def load(model: str | None = None, *, check_fit: bool = True, **arguments: Any) -> Llm:
            overrides = {**_checked_model_arguments(arguments), **({"id": model} if model else {})}
            return Llm(self._shop.open(self._item, overrides, check_fit=check_fit))

        return load

    def compare(self) -> Callable[..., Comparison]:
        """What sets the test's model against a variant of it, round by round."""

        def compare(vs: Mapping[str, Any], **arguments: Any) -> Comparison:
            mine = self._shop.open(self._item, _checked_model_arguments(arguments))
            if self._shop.settings.replay:
                return mine.compare(mine.engine)  # as recorded: there is no other side to load
            if mine.baseline is not None:
                raise Misuse(_COMPARED_TWICE)
            overrides = {**arguments, **_checked_model_arguments(vs)}
            other = self._shop.bench.open(request_of(self._item), overrides, keep=mine.spec)
            return mine.compare(other.engine)

        return compare

    def finetune(self) -> FineTune:
        """What measures optimiser steps. Raises Misuse for a mark that asks for a quantised base."""
        from pytest_qwen.finetuning import FineTune, check_base

        request, replay = request_of(self._item), self._shop.settings.replay
        with as_outcome(proving=self._shop.proving(self._item)):
            check_base(request.model.quantization)
            return FineTune(
                lambda overrides: self._shop.open(self._item, overrides),
                lambda overrides: None if replay else self._shop.bench.spec_for(request, overrides),
                available_bytes=None if replay else self._shop.bench.memory_bytes,
                alpha=self._shop.settings.alpha,
            )

    def rate(self) -> Rate:
        """What rates programs. The sandbox is looked for at once: without one the body need not run."""
        from pytest_qwen.grading import live, replayed
        from pytest_qwen.stars import Rate

        shop, item, request = self._shop, self._item, request_of(self._item)
        with as_outcome(proving=shop.proving(item)):
            if shop.settings.replay:
                recorded = shop.ledger.rated(item.nodeid)
                ratings = replayed(recorded, item.nodeid, strict=shop.settings.strict)
            else:
                shop.grader.rater(request.answer.scenario)
                ratings = live(shop.grader)
        item.stash[RATINGS] = ratings
        return Rate(ratings, request, item.path.parent)

    def accuracy(self) -> Accuracy:
        """What counts right answers; both sides of a drop are checked before anything is loaded."""
        from pytest_qwen.accuracy import Accuracy, LiveGrading, RecordedGrading, check_sides

        shop, item = self._shop, self._item
        grading: LiveGrading | RecordedGrading
        if shop.settings.replay:
            # the run with what was loaded is in the record too, and is reported again
            recorded = shop.ledger.graded(item.nodeid)
            grading = RecordedGrading(item.nodeid, recorded, lambda: shop.opened(item))
        else:
            request = request_of(item)
            with as_outcome():
                check_sides(
                    request.counted,
                    lambda vs: shop.bench.spec_for(request, request.versus[vs] if vs else None),
                )
            grading = LiveGrading(
                lambda: shop.opened(item),
                lambda vs: shop.bench.open(request, request.versus[vs]),
                lambda: shop.grader.sandbox("guest-slim"),
            )
        made = Accuracy(grading, item.path.parent, alpha=shop.settings.alpha)
        return item.stash.setdefault(ACCURACY, made)

    def sandbox(self) -> Sandbox:
        """The run's sandbox."""
        with as_outcome(proving=self._shop.proving(self._item)):
            return self._shop.grader.sandbox()

    def published(self) -> Published:
        """What sets a figure of ours beside a published one, of the card that it was measured on."""
        from pytest_qwen.beside import Published

        with as_outcome():
            recorded = self._shop.ledger.card_of(self._item.nodeid) if self._shop.settings.replay else None
            target = self._shop.bench.target
        card = recorded or (target.spec.alias if target.spec else target.label)
        return Published(card, self._beside().standings)

    def law(self) -> Laws:
        """What fits and keeps laws."""
        from pytest_qwen.beside import Laws

        return Laws(self._beside().laws)

    def plan(self) -> Plan:
        """What physics says of the test's model on this run's card."""
        from pytest_qwen.planning import plan_for

        with as_outcome():
            return plan_for(request_of(self._item), self._shop.bench)

    def _beside(self) -> Beside:
        """What the test set beside its figures, shared by `published` and `law`."""
        from pytest_qwen.beside import Beside

        return self._item.stash.setdefault(BESIDE, Beside())


def _checked_model_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Model arguments given by call, checked as the mark's are. Raises Misuse."""
    from pytest_qwen.parsing import parse

    parse(pytest.mark.model(**arguments).mark)
    return dict(arguments)


_COMPARED_TWICE = explain(
    "one test can be compared with one other side",
    asked="compare(...) in a test with max_slowdown(vs='baseline')",
    next_step="make two tests of it",
)
