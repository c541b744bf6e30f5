"""What a test leaves behind: its records, and the properties that other reports show."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import pytest

from pytest_qwen.ask import RunRequest
from pytest_qwen.fixture_makers import ACCURACY, BESIDE, RATINGS
from pytest_qwen.ledger import describe
from pytest_qwen.records import RunRecord
from pytest_qwen.reports.junit import user_properties
from pytest_qwen.reports.loads_ import search_properties
from pytest_qwen.settling import OTHER_VERDICTS
from pytest_qwen.workshop import RUNS, Workshop

if TYPE_CHECKING:
    from pytest_qwen.run import Run
    from pytest_qwen.verdicts import Verdict


def records_of(
    shop: Workshop, item: pytest.Item, request: RunRequest | None, *, outcome: str, reason: str
) -> list[RunRecord]:
    """The records of a test that has ended; `request` is None where its marks could not be read."""
    runs: list[Run] = item.stash.get(RUNS, [])
    verdicts: list[Verdict] = item.stash.get(OTHER_VERDICTS, [])
    return describe(
        nodeid=item.nodeid,
        outcome=outcome,
        reason=reason,
        request=request,
        runs=runs,
        bench=shop.bench,
        rated=_rated_facts(item),
        star_verdicts=verdicts,
        graded=item.stash[ACCURACY].graded if ACCURACY in item.stash else (),
        beside=item.stash.get(BESIDE, None),
    )


def properties_of(item: pytest.Item, records: Iterable[RunRecord]) -> list[tuple[str, str | int | float]]:
    """What JUnit files and other plugins' reports show of a test: name and value."""
    found = [pair for record in records for pair in user_properties(record)]
    found += [pair for record in records for pair in search_properties(record.searches)]
    if BESIDE in item.stash:
        from pytest_qwen.reports.laws_ import law_properties
        from pytest_qwen.reports.published_ import standing_properties

        beside = item.stash[BESIDE]
        found += [*standing_properties(beside.standings), *law_properties(beside.laws)]
    if RATINGS in item.stash:
        from pytest_qwen.reports.star_rows import star_properties

        found += star_properties([one.scorecard for one in item.stash[RATINGS].rated])
    return found


def _rated_facts(item: pytest.Item) -> list[Mapping[str, Any]]:
    if RATINGS not in item.stash:
        return []
    from pytest_qwen.grading import facts_of

    return facts_of(item.stash[RATINGS].rated)
