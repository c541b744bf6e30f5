"""The session's records: gathered from every test, journaled as they come, written and shown at the end."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal, cast

from pytest_qwen import __version__
from pytest_qwen.ask import RunRequest
from pytest_qwen.beside import Beside
from pytest_qwen.bounds import Bound
from pytest_qwen.correctness import Graded
from pytest_qwen.errors import Misuse, Unavailable, explain
from pytest_qwen.evidence import Measurement
from pytest_qwen.outcomes import Fault, Outcome
from pytest_qwen.quality_records import scorecard_from_json
from pytest_qwen.records import Generation, RunHeader, RunRecord, from_json, load_records, plain
from pytest_qwen.replay import ReplayRun
from pytest_qwen.reports.laws_ import laws_text
from pytest_qwen.reports.loads_ import load_rows, loads_text, searched, searches_of, searches_text
from pytest_qwen.reports.published_ import published_text
from pytest_qwen.reports.stars import stars_table
from pytest_qwen.reports.terminal import short_name, summary
from pytest_qwen.reports.writer import Writer
from pytest_qwen.settings import Settings
from pytest_qwen.target import Target
from pytest_qwen.verdicts import Verdict

if TYPE_CHECKING:
    from pytest_qwen.bench import Bench
    from pytest_qwen.run import Answer, Run


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Calibrated:
    """One test's rounds in several fresh processes."""

    nodeid: str
    bounds: Sequence[Bound]
    measurements: Sequence[Measurement]


class Ledger:
    """What a session leaves behind. Only the xdist controller, or a session without xdist, has one filled."""

    def __init__(self, settings: Settings, command: Iterable[str]) -> None:
        self.records: list[RunRecord] = []
        self.bounds_asked = 0
        self.bounds_skipped = 0
        self.verdicts_given = 0
        self._settings = settings
        self._command = tuple(command)
        self._started = _now()
        self._calibrated: list[_Calibrated] = []
        self._problems: list[str] = []
        self._written: list[str] = []

    @cached_property
    def _writer(self) -> Writer | None:
        return Writer(self._settings.report) if self._settings.report else None

    @cached_property
    def _replayed(self) -> Mapping[str, list[RunRecord]]:
        return _by_test(load_records(self._settings.replay)) if self._settings.replay else {}

    @cached_property
    def _baseline(self) -> Mapping[str, list[RunRecord]]:
        return _by_test(load_records(self._settings.baseline)) if self._settings.baseline else {}

    def prepare(self) -> None:
        """Make the report folder and read the stored runs now. Raises Misuse for what cannot work later."""
        _ = self._replayed, self._baseline
        if self._writer:
            self._writer.prepare()

    def add(self, found: Iterable[Mapping[str, Any]]) -> None:
        """Take the records of one test, in plain form, and journal them at once."""
        for data in found:
            record = from_json(data)
            self.records.append(record)
            self.bounds_asked += len(record.bounds)
            if record.outcome == "skipped" and not record.verdicts:
                self.bounds_skipped += len(record.bounds)
            self.verdicts_given += sum(v.outcome != Outcome.NO_VERDICT for v in record.verdicts)
            if self._writer:
                self._writer.append(record)

    def replay(self, nodeid: str, request: RunRequest, index: int) -> ReplayRun:
        """The recorded run number `index` of a test. Raises Misuse when there is none."""
        of_test = self._replayed.get(nodeid, [])
        stored = [r for r in of_test if r.spec]
        if of_test and all(r.outcome == "skipped" and not r.spec for r in of_test):
            raise Unavailable(f"skipped when it was recorded: {of_test[-1].reason}")
        if index >= len(stored):
            raise Misuse(
                explain(
                    "this test is not in the records that are judged again",
                    asked=nodeid,
                    found=f"{len(self._replayed)} test(s) in {self._settings.replay}",
                    slip="the test was renamed, skipped or not selected when the records were made",
                )
            )
        return ReplayRun(stored[index], request, alpha=self._settings.alpha)

    def rated(self, nodeid: str) -> Sequence[Mapping[str, Any]]:
        """The evidence of every answer that a recorded test rated, in order."""
        return [one["evidence"] for record in self._replayed.get(nodeid, []) for one in record.rated]

    def graded(self, nodeid: str) -> Sequence[Graded]:
        """Every task that a recorded test evaluated, on both sides, in order."""
        return [one for record in self._replayed.get(nodeid, []) for one in record.graded]

    def card_of(self, nodeid: str) -> str | None:
        """The card that a recorded test's published figures stood beside, None when it had none."""
        found = (one.gpu for record in self._replayed.get(nodeid, []) for one in record.standings)
        return next(found, None)

    def baseline_of(self, nodeid: str, target: Target) -> Measurement:
        """What the baseline run measured for a test on an equal device. Raises Misuse when there is none."""
        if self._settings.baseline is None:
            raise Misuse(
                explain(
                    "max_slowdown compares with a baseline, and none was given",
                    asked=nodeid,
                    next_step="--qwen-baseline=DIR, a folder that an earlier --qwen-report=DIR wrote",
                    choices=["--qwen-baseline=DIR", "max_slowdown(1.05, vs={'optimize': 'eager'})"],
                )
            )
        of_test = self._baseline.get(nodeid, [])
        stored = [r for r in of_test if r.measurements and r.measurements[-1].clean_rounds]
        here = identity(target)
        alike = [r for r in stored if all(r.device.get(name) == value for name, value in here.items())]
        if not alike:
            found = "; ".join(str(dict(r.device)) for r in stored) or "no measurement of this test"
            raise Misuse(
                explain(
                    "the baseline has nothing to compare this test with",
                    asked=f"{nodeid} on {here}",
                    found=found,
                    slip="another card, power limit or driver: only equal devices can be compared",
                )
            )
        return alike[-1].measurements[-1]

    def calibrated(self, nodeid: str, bounds: Sequence[Bound], measured: Sequence[Measurement]) -> None:
        """Keep one test's calibration for the table at the end."""
        self._calibrated.append(_Calibrated(nodeid=nodeid, bounds=bounds, measurements=measured))

    def finish(self, target_label: str) -> None:
        """Write the files; what cannot be written is a line in the summary, never an exception."""
        if self._writer:
            written = self._writer.finish(self.records, self._header(target_label))
            self._written += [str(path) for path in written.paths]
            self._problems += written.problems

    def sections(self, *, width: int) -> Iterable[tuple[str, str]]:
        """Titles and texts for the end of the terminal output."""
        # a test that skipped before it measured is in pytest's own summary, with its reason
        told = [record for record in self.records if record.verdicts or record.outcome != "skipped"]
        if any(record.bounds for record in told):
            yield "qwen: bounds and verdicts", summary(told, width=width, unicode=self._unicode)
        loads = load_rows(told)
        if loads:
            yield "qwen: loads", loads_text(loads, width=width, unicode=self._unicode)
        searches = searches_of(told)
        if searches:
            yield "qwen: highest loads", searches_text(searches, unicode=self._unicode)
        cards = [scorecard_from_json(one["scorecard"]) for record in told for one in record.rated]
        if cards:
            yield "qwen: stars", stars_table(cards, width=width, unicode=self._unicode)
        laws = [law for record in self.records for law in record.laws]
        if laws:
            yield "qwen: fitted laws", laws_text(laws, width=width, unicode=self._unicode)
        standings = [standing for record in self.records for standing in record.standings]
        if standings:
            shown = published_text(standings, width=width, unicode=self._unicode)
            yield "qwen: published figures beside ours", shown
        remarks = [
            f"{short_name(record.nodeid)}: {hint}"
            for record in told
            for place, measurement in enumerate(record.measurements)
            for hint in measurement.hints
            if place not in searched(record)  # those are in the search's own table
        ]
        if remarks:
            yield "qwen: remarks", "\n".join(dict.fromkeys(remarks))
        for one in self._calibrated:
            from pytest_qwen.calibration import calibration_text

            yield (
                f"qwen: calibration of {one.nodeid}",
                calibration_text(one.bounds, one.measurements, alpha=self._settings.alpha),
            )
        if self._written or self._problems:
            yield "qwen: report", "\n".join([*self._written, *self._problems])

    @property
    def _unicode(self) -> bool:
        return (getattr(sys.stdout, "encoding", None) or "").lower().startswith("utf")

    def _header(self, target_label: str) -> RunHeader:
        return RunHeader(
            tool_version=__version__,
            command=("pytest", *self._command),
            machine={"target": target_label, "platform": platform.platform(), "host_cpus": _cpus()},
            started=self._started,
            ended=_now(),
            python=platform.python_version(),
            pytest=version("pytest"),
        )


def _cpus() -> int | None:
    import os

    return os.cpu_count()


def _by_test(records: Iterable[RunRecord]) -> dict[str, list[RunRecord]]:
    found: dict[str, list[RunRecord]] = {}
    for record in records:
        found.setdefault(record.nodeid, []).append(record)
    return found


def identity(target: Target) -> dict[str, Any]:
    """What must be equal for two measurements to be comparable: the card itself, not its name in a test."""
    if not target.devices:
        return {"alias": target.spec.alias if target.spec else None}
    device = target.devices[0]
    return {
        "alias": device.spec.alias if device.spec else None,
        "name": device.name,
        "memory_bytes": device.memory_bytes,
        "power_limit_w": device.power_limit_w,
        "driver": device.driver,
        "mig": device.mig,
    }


def describe(
    *,
    nodeid: str,
    outcome: str,
    reason: str,
    request: RunRequest | None,
    runs: Sequence[Run],
    bench: Bench,
    rated: Sequence[Mapping[str, Any]] = (),
    star_verdicts: Sequence[Verdict] = (),
    graded: Sequence[Graded] = (),
    beside: Beside | None = None,
) -> list[RunRecord]:
    """The records of one test: one a loaded model, or a single one when none was loaded.

    What was rated, and the verdicts on it, are in the first; so is what was set beside the measurements.
    """
    beside = beside or Beside()
    request = request or RunRequest()
    common = {
        "nodeid": nodeid,
        "outcome": cast(Literal["passed", "failed", "skipped", "error"], outcome),
        "started": _now(),
        "reason": reason,
        "gpu_asked": bench.settings.gpu,
        "workload": plain(request.workload),
        "alpha": bench.settings.alpha,
    }
    if not runs:
        fault = {"skipped": Fault.MACHINE, "error": Fault.USER}.get(outcome)
        if rated:
            fault = Fault.MODEL if outcome == "failed" else None
        return [
            RunRecord(
                **common,
                fault=fault,
                bounds=request.all_bounds,
                verdicts=tuple(star_verdicts),
                rated=tuple(rated),
                standings=tuple(beside.standings),
                laws=tuple(beside.laws),
            )
        ]
    fault = Fault.MODEL if outcome == "failed" else None
    return [
        RunRecord(
            **common,
            fault=fault,
            device=_device_of(run, bench),
            spec=plain(run.spec),
            loaded={**plain(run.loaded), "config": None},
            ceilings=run.ceilings,
            bounds=request.all_bounds if run is runs[0] else (),
            verdicts=(*run.verdicts, *(star_verdicts if run is runs[0] else ())),
            rated=tuple(rated) if run is runs[0] else (),
            standings=tuple(beside.standings) if run is runs[0] else (),
            laws=tuple(beside.laws) if run is runs[0] else (),
            graded=tuple(graded) if run is runs[0] else (),
            measurements=tuple(run.measurements),
            searches=tuple(run.searches),
            generations=tuple(_generation(answer) for answer in run.answers),
            plan=bench.plan_facts(request, run.spec),
        )
        for run in runs
    ]


def _device_of(run: Run, bench: Bench) -> dict[str, Any]:
    if isinstance(run, ReplayRun):
        return dict(run.record.device)
    return {**identity(bench.target), "label": bench.target.label}


def _generation(answer: Answer) -> Generation:
    asked = answer.request
    chat = "\n\n".join(f"{m.role}: {m.content}" for m in asked.messages or ())
    kind: Literal["text", "chat", "random"] = (
        "chat" if asked.messages else "text" if asked.prompt is not None else "random"
    )
    return Generation(
        prompt_kind=kind,
        prompt=asked.prompt if kind == "text" else chat or None,
        text=answer.text,
        prompt_tokens=answer.prompt_tokens,
        output_tokens=answer.output_tokens,
        finish_reason=answer.finish_reason,
        ttft_ms=answer.ttft_ms,
        e2e_ms=answer.e2e_ms,
        decode_tokens_per_sec=answer.tokens_per_sec,
    )
