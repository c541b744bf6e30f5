"""What happens once a test's body has passed: its bounds are judged, and a verdict may fail or skip it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_qwen.engines import TRAINING
from pytest_qwen.errors import Misuse, explain
from pytest_qwen.fixture_makers import ACCURACY, RATINGS
from pytest_qwen.run import failure_text, nothing_measured
from pytest_qwen.showing import skipped
from pytest_qwen.workshop import RUNS, Workshop, request_of

if TYPE_CHECKING:
    from pytest_qwen.run import Run
    from pytest_qwen.verdicts import Verdict

# Verdicts that no run holds: on the stars of programs and on right answers.
OTHER_VERDICTS: pytest.StashKey[list[Verdict]] = pytest.StashKey()
_CALIBRATION_ROUNDS = 20


def settle(shop: Workshop, item: pytest.Item) -> None:
    """Judge the test's bounds; a failed or missing verdict fails the test in its own words."""
    request = request_of(item)
    runs = item.stash.get(RUNS, [])
    if shop.settings.calibrate and request.bounds and runs and not _trained(runs[0]):
        _calibrate(shop, item, runs[0])
    verdicts = [verdict for run in runs for verdict in run.settle()]
    if runs and not shop.settings.replay:
        verdicts += _slowdowns(shop, item, runs[0])
    verdicts += _other_verdicts(item)
    if request.bounds and not verdicts:
        raise Misuse(nothing_measured(request.bounds))
    text = failure_text(verdicts, no_verdict_fails=shop.settings.no_verdict == "fail")
    if text:
        pytest.fail(text, pytrace=False)
    unsure = failure_text(verdicts, no_verdict_fails=True)
    if unsure:
        raise skipped(unsure)


def _other_verdicts(item: pytest.Item) -> list[Verdict]:
    """Judge the test's bounds on stars and on accuracy. Raises Misuse when it rated or counted nothing."""
    request = request_of(item)
    item.stash[OTHER_VERDICTS] = found = []
    if RATINGS in item.stash:
        found += item.stash[RATINGS].settle(request.rated, sample_stars=request.sample_stars)
    if ACCURACY in item.stash:
        found += item.stash[ACCURACY].settle(request.counted)
    return found


def _slowdowns(shop: Workshop, item: pytest.Item, run: Run) -> list[Verdict]:
    """Judge each `max_slowdown` against another configuration, loaded beside the test's own."""
    request = request_of(item)
    found = []
    for bound in request.bounds:
        if bound.marker == "max_slowdown" and bound.vs != "baseline":
            if _trained(run):
                raise Misuse(_NOT_COMPARED)
            other = shop.bench.open(request, request.versus[bound.vs or ""], keep=run.spec)
            run.compare(other.engine, (bound,))
            found.append(run.verdicts[-1])
    return found


def _calibrate(shop: Workshop, item: pytest.Item, run: Run) -> None:
    """Repeat the test's rounds in fresh processes; judging waits for the table at the end."""
    measured = [run.fixed_rounds(_CALIBRATION_ROUNDS)]
    for _ in range(1, shop.settings.calibrate):
        shop.bench.evict()
        again = shop.bench.open(request_of(item))
        again.answers, again.baseline = run.answers, run.baseline
        measured.append(again.fixed_rounds(_CALIBRATION_ROUNDS))
    shop.ledger.calibrated(item.nodeid, request_of(item).bounds, measured)
    raise skipped("calibrated: no verdict, see the table at the end")


def _trained(run: Run) -> bool:
    """Whether the run is of optimiser steps, which no generated workload can stand in for."""
    return run.spec.engine == TRAINING


_NOT_COMPARED = explain(
    "a fine-tuning step is compared with another by two calls, not by max_slowdown(vs={...})",
    asked="max_slowdown(vs={...}) on a test that fine-tunes",
    next_step='a = finetune("lora"); b = finetune("qlora"); assert b.step_time_s < 2 * a.step_time_s',
)
