"""A test run on stored evidence: its answers and measurements come from a record, nothing is loaded."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import cast

from pytest_qwen.ask import RunRequest
from pytest_qwen.bounds import Bound
from pytest_qwen.comparing import Comparison
from pytest_qwen.engines.base import Engine, Request
from pytest_qwen.errors import Misuse, explain
from pytest_qwen.evidence import Measurement
from pytest_qwen.judge import judge
from pytest_qwen.levels import Highest, Kind, Level
from pytest_qwen.load_search import Range, judged_again
from pytest_qwen.measure import Limits, Observer
from pytest_qwen.metrics import RoundContext
from pytest_qwen.records import Generation, RunRecord
from pytest_qwen.run import Answer, Conditions, Run
from pytest_qwen.searching import bounds_of_levels, level_shown
from pytest_qwen.verdicts import Verdict


class ReplayRun(Run):
    """A run whose engine is a record. Raises Misuse when the test asks for what was not recorded."""

    def __init__(self, record: RunRecord, request: RunRequest, *, alpha: float) -> None:
        super().__init__(
            request=request,
            spec=record.load_spec(),
            engine=cast(Engine, None),  # every method that would use it is replaced below
            loaded=record.load_result(),
            observer=_NOBODY,
            conditions=Conditions(alpha=alpha, limits=Limits(), ceilings_of=lambda _seen: record.ceilings),
            observed={},
        )
        self.record = record
        self._left = list(record.generations)
        self._judged_on: Measurement | None = None  # the level that a search has found

    def generate(self, request: Request, on_token: Callable[[str], None] | None = None) -> Answer:
        """The next recorded answer."""
        if not self._left:
            raise _not_recorded(self.record, f"answer {len(self.record.generations) + 1} of this test")
        answer = _answer(self._left.pop(0), request)
        if on_token:
            on_token(answer.text)
        self.answers.append(answer)
        return answer

    def measure(self, request: Request | None = None) -> Measurement:  # noqa: ARG002 - as recorded
        """The recorded measurements in their order; the last one again for a body that asks for more."""
        if not self.record.measurements:
            raise _not_recorded(self.record, "a measurement")
        found = self.record.measurements[min(len(self.measurements), len(self.record.measurements) - 1)]
        self.measurements.append(found)
        return found

    def highest(
        self,
        request: Request,  # noqa: ARG002 - as recorded
        kind: Kind,
        asked: Range,  # noqa: ARG002
        *,
        budget_s: float | None = None,  # noqa: ARG002
    ) -> Highest:
        """The next recorded search, every level judged again by the bounds that the test has now."""
        place = len(self.searches)
        if place >= len(self.record.searches) or self.record.searches[place].kind != kind:
            raise _not_recorded(self.record, f"a search for the highest {kind}")
        recorded = self.record.searches[place]
        bounds = bounds_of_levels(self)
        found = judged_again(recorded, [self._judged_again(level, bounds) for level in recorded.levels])
        shown = level_shown(found)
        self.measurements += [self.record.measurements[level.measurement] for level in found.levels]
        self._judged_on = self.record.measurements[shown.measurement]
        self.searches.append(found)
        return found

    def _judged_again(self, level: Level, bounds: Sequence[Bound]) -> Level:
        """A recorded level with the verdicts of these bounds, against the ceilings that it had then."""
        ceilings = {v.bound.metric: v.ceiling for v in level.verdicts if v.ceiling is not None}
        measurement = self.record.measurements[level.measurement]
        verdicts = [judge(bound, measurement, alpha=self.alpha, ceilings=ceilings) for bound in bounds]
        return replace(level, verdicts=tuple(verdicts))

    def compare(self, other: Engine, bounds: Sequence[Bound] = ()) -> Comparison:  # noqa: ARG002 - as recorded
        """The recorded comparison."""
        found = next((m for m in self.record.measurements if m.values("slowdown_ratio")), None)
        if found is None:
            raise _not_recorded(self.record, "a comparison")
        self.measurements.append(found)
        return Comparison.of(found, found, alpha=self._conditions.alpha)

    def settle(self) -> Sequence[Verdict]:
        """Judge every bound that the test has now on what was measured then."""
        for bound in self.request.bounds:
            measurement = self._judged_on or self.record.measurement_for(bound)
            if measurement is None:
                raise _not_recorded(self.record, f"a measurement for {bound}")
            self.verdicts.append(self.judge(bound, measurement))
        return self.verdicts


def _answer(stored: Generation, request: Request) -> Answer:
    return Answer(
        text=stored.text,
        texts=(stored.text,),
        prompt_tokens=stored.prompt_tokens,
        output_tokens=stored.output_tokens,
        finish_reason=stored.finish_reason,
        ttft_ms=stored.ttft_ms or 0.0,
        e2e_ms=stored.e2e_ms or 0.0,
        tokens_per_sec=stored.decode_tokens_per_sec,
        request=request,
    )


def _not_recorded(record: RunRecord, what: str) -> Misuse:
    return Misuse(
        explain(
            f"{what} is not in the record",
            asked=record.nodeid,
            found=f"{len(record.generations)} answer(s), {len(record.measurements)} measurement(s)",
            slip="the test's body has changed since it was recorded",
            next_step="run it again with --qwen-report=DIR",
        )
    )


_NOBODY = Observer(
    watch=lambda: nullcontext(SimpleNamespace(window=None)),
    clock_s=time.monotonic,
    context=lambda _request, _trace: RoundContext(),
)
