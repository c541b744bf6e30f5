"""The record of one test: everything needed to report it, and to judge it again without a GPU."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

from pytest_qwen.bounds import Bound, Slo
from pytest_qwen.correctness import Graded, Item
from pytest_qwen.engines.base import Loaded, LoadSpec
from pytest_qwen.errors import Misuse, explain
from pytest_qwen.evidence import Measurement, Round, Window
from pytest_qwen.laws import Law, Term
from pytest_qwen.levels import Highest, Level
from pytest_qwen.outcomes import Fault, Outcome
from pytest_qwen.standing import Standing
from pytest_qwen.streams import Client, Stream
from pytest_qwen.verdicts import Verdict

VERSION = "pytest-qwen-record/1"
RUN_VERSION = "pytest-qwen-run/1"
# The journal holds one record a line while a run is going on; the run file replaces it at the end.
JOURNAL_NAME = "records.jsonl"
RUN_NAME = "records.json"

_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """One answer of a model: what was asked in which way, what came out. Times in milliseconds.

    `prompt` is None when the prompt was random tokens; a chat is flattened to "role: content" paragraphs.
    """

    prompt_kind: Literal["text", "chat", "random"]
    prompt: str | None
    text: str
    prompt_tokens: int
    output_tokens: int
    finish_reason: str
    ttft_ms: float | None = None
    e2e_ms: float | None = None
    decode_tokens_per_sec: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """One test on one loaded model.

    `outcome`, `reason` and `fault` are the test's, not a bound's. `started` is UTC in ISO 8601. The mappings
    are plain, as `plain` makes them, so that a record equals itself after a round trip. `rated` holds the
    "evidence" and the "scorecard" of each rated answer (see `quality_records`). `standings` are published
    figures beside ours, `laws` what was fitted to the test's points, `graded` right and wrong answers,
    `searches` the highest loads that were looked for.
    Judging needs `bounds`, `measurements`, `alpha` and, to show them, `ceilings`.
    """

    nodeid: str
    outcome: Literal["passed", "failed", "skipped", "error"]
    started: str
    reason: str = ""
    fault: Fault | None = None
    gpu_asked: str = "auto"
    device: Mapping[str, Any] = field(default_factory=dict)
    spec: Mapping[str, Any] = field(default_factory=dict)
    loaded: Mapping[str, Any] = field(default_factory=dict)
    workload: Mapping[str, Any] = field(default_factory=dict)
    alpha: float = 0.01
    ceilings: Mapping[str, float] = field(default_factory=dict)
    bounds: tuple[Bound, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    measurements: tuple[Measurement, ...] = ()
    generations: tuple[Generation, ...] = ()
    rated: tuple[Mapping[str, Any], ...] = ()
    standings: tuple[Standing, ...] = ()
    laws: tuple[Law, ...] = ()
    searches: tuple[Highest, ...] = ()
    graded: tuple[Graded, ...] = ()
    plan: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def load_spec(self) -> LoadSpec:
        """The spec as the value it was made from."""
        options = tuple((name, _hashable(value)) for name, value in self.spec.get("options") or ())
        return build(LoadSpec, self.spec, options=options)

    def load_result(self) -> Loaded:
        """What loading gave, as the value it was made from."""
        return build(Loaded, self.loaded, applied=tuple(self.loaded.get("applied") or ()))

    def measurement_for(self, bound: Bound) -> Measurement | None:
        """The measurement that the bound is judged on, None when nothing was measured.

        That is the last one; a slowdown needs the last one that was compared with another side, and every
        other bound prefers one that was not.
        """
        compared = bound.metric == "slowdown_ratio"
        alike = [m for m in self.measurements if bool(m.values("slowdown_ratio")) == compared]
        return next(reversed(alike or self.measurements), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunHeader:
    """What is true of a whole run. `started` and `ended` are UTC in ISO 8601."""

    tool_version: str
    command: tuple[str, ...]
    machine: Mapping[str, Any]
    started: str
    ended: str
    python: str
    pytest: str


def plain(value: object) -> Any:
    """`value` as dict, list, str, int, float, bool and None alone; it crosses JSON and execnet unchanged.

    A number that is not finite becomes None. Text that UTF-8 cannot hold is escaped.
    """
    if isinstance(value, Mapping):
        return {plain(str(key)): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if is_dataclass(value):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    return _plain_scalar(value)


def _plain_scalar(value: object) -> str | int | float | bool | None:
    """Subclasses (enums, NumPy numbers) become the type itself: execnet takes nothing else."""
    if type(value) is float and math.isfinite(value):  # a load's record holds a time for every chunk
        return value
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value) if math.isfinite(value) else None
    return str(value).encode("utf-8", "backslashreplace").decode("utf-8")


def to_json(record: RunRecord) -> dict[str, Any]:
    """The record as plain data, with its version.

    An infinite end of a verdict's interval becomes null beside an estimate that is not null.
    """
    return {"version": VERSION, **plain(record)}


def from_json(data: object) -> RunRecord:
    """The record that `to_json` made; fields that this version does not know are ignored.

    Raises Misuse for another version, and for data that is no record.
    """
    if not isinstance(data, Mapping) or data.get("version") != VERSION:
        found = f"version {data.get('version')!r}" if isinstance(data, Mapping) else type(data).__name__
        raise Misuse(
            explain(
                "this is not a record that this version can read",
                found=found,
                slip="it was written by another version of pytest-qwen, or is another kind of file",
                choices=[VERSION],
            )
        )
    try:
        return _record(data)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        problem = f"a field of the record is missing or malformed: {type(error).__name__}: {error}"
        raise Misuse(explain(problem, asked=str(data.get("nodeid")))) from error


def load_records(path: Path, *, on_warning: Callable[[str], None] = warnings.warn) -> tuple[RunRecord, ...]:
    """The records of a report folder, or of one of its two kinds of record file.

    A folder's journal wins over its run file: it is there only while a run is not finished, so it is the
    newer one. A journal whose last line was cut off gives the lines before it and tells `on_warning`. Raises
    Misuse when there is nothing, and for what cannot be read, saying where and what could be.
    """
    file = path
    if path.is_dir():
        file = path / JOURNAL_NAME if (path / JOURNAL_NAME).exists() else path / RUN_NAME
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise Misuse(
            explain(
                "there are no records to read",
                asked=str(path),
                found=f"{file.name}: {error.strerror or error}",
                next_step="name a folder that a run with --qwen-report=DIR has written",
            )
        ) from error
    return _journal(file, text, on_warning) if file.suffix == ".jsonl" else _run_file(file, text)


def _run_file(file: Path, text: str) -> tuple[RunRecord, ...]:
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise _corrupt(file, error.lineno, error.msg, kept=0) from error
    if not isinstance(data, Mapping) or data.get("version") != RUN_VERSION:
        raise _corrupt(file, 1, f"this is no run file of version {RUN_VERSION}", kept=0)
    found: list[RunRecord] = []
    for number, item in enumerate(data.get("records") or (), start=1):
        try:
            found.append(from_json(item))
        except Misuse as error:
            raise Misuse(f"{file}: record {number} ({len(found)} before it are readable): {error}") from error
    return tuple(found)


def _journal(file: Path, text: str, on_warning: Callable[[str], None]) -> tuple[RunRecord, ...]:
    found: list[RunRecord] = []
    lines = text.split("\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            found.append(from_json(json.loads(line)))
        except json.JSONDecodeError as error:
            if number < len(lines):  # a whole line ends with a newline: only the last one can be cut off
                raise _corrupt(file, number, error.msg, kept=len(found)) from error
            on_warning(f"{file}: line {number} was cut off; the {len(found)} records before it were read")
        except Misuse as error:
            raise Misuse(f"{file}: line {number} ({len(found)} before it are readable): {error}") from error
    return tuple(found)


def _corrupt(file: Path, line: int, problem: str, *, kept: int) -> Misuse:
    return Misuse(
        explain(
            f"{file} is damaged at line {line}: {problem}",
            found=f"{kept} records before it are readable",
            slip="the file was cut off or edited",
        )
    )


def _record(data: Mapping[str, Any]) -> RunRecord:
    return build(
        RunRecord,
        data,
        fault=None if data.get("fault") is None else Fault(data["fault"]),
        bounds=tuple(_bound(item) for item in data.get("bounds") or ()),
        verdicts=tuple(_verdict(item) for item in data.get("verdicts") or ()),
        measurements=tuple(_measurement(item) for item in data.get("measurements") or ()),
        generations=_each(Generation, data.get("generations")),
        rated=tuple(data.get("rated") or ()),
        standings=_each(Standing, data.get("standings")),
        laws=tuple(_law(item) for item in data.get("laws") or ()),
        searches=tuple(_search(item) for item in data.get("searches") or ()),
        graded=tuple(build(Graded, one, items=_each(Item, one["items"])) for one in data.get("graded") or ()),
        notes=tuple(data.get("notes") or ()),
    )


def _bound(data: Mapping[str, Any]) -> Bound:
    return build(Bound, data, slos=_each(Slo, data.get("slos")))


def _law(data: Mapping[str, Any]) -> Law:
    return build(Law, data, terms=_each(Term, data["terms"]), residuals=tuple(data["residuals"]))


def _search(data: Mapping[str, Any]) -> Highest:
    return build(Highest, data, levels=tuple(_level(item) for item in data["levels"]))


def _level(data: Mapping[str, Any]) -> Level:
    verdicts = tuple(_verdict(item) for item in data["verdicts"])
    return build(Level, data, verdicts=verdicts, figures=_known(data["figures"]))


def _verdict(data: Mapping[str, Any]) -> Verdict:
    low, high = data["low"], data["high"]
    if data["estimate"] is not None:
        low, high = (-math.inf if low is None else low), (math.inf if high is None else high)
    bound = _bound(data["bound"])
    return build(Verdict, data, bound=bound, outcome=Outcome(data["outcome"]), low=low, high=high)


def _measurement(data: Mapping[str, Any]) -> Measurement:
    return build(
        Measurement,
        data,
        rounds=tuple(_round(item) for item in data["rounds"]),
        observed=_known(data["observed"]),
        hints=tuple(data["hints"]),
    )


def _round(data: Mapping[str, Any]) -> Round:
    return build(
        Round,
        data,
        token_ms=tuple(data["token_ms"]),
        metrics=_known(data["metrics"]),
        window=None if data["window"] is None else _window(data["window"]),
        violations=tuple(data["violations"]),
        streams=tuple(
            build(Stream, one, chunk_ms=tuple(one["chunk_ms"])) for one in data.get("streams") or ()
        ),
        client=None if data.get("client") is None else build(Client, data["client"]),
    )


def _window(data: Mapping[str, Any]) -> Window:
    tenants = data["co_tenants"]
    return build(
        Window,
        data,
        throttle_reasons=tuple(data["throttle_reasons"]),
        co_tenants=None if tenants is None else tuple(tenants),
        violations=tuple(data["violations"]),
    )


def _known(metrics: Mapping[str, float | None]) -> dict[str, float]:
    """Without the metrics that were not finite: one that could not be computed is absent."""
    return {name: value for name, value in metrics.items() if value is not None}


def build(cls: type[_Value], data: Mapping[str, Any], **converted: object) -> _Value:
    """An instance from the fields it knows; `converted` wins over `data`."""
    names = [f.name for f in fields(cast("Any", cls))]
    return cls(**{name: data[name] for name in names if name in data} | converted)


def _each(cls: type[_Value], items: Iterable[Mapping[str, Any]] | None) -> tuple[_Value, ...]:
    return tuple(build(cls, item) for item in items or ())


def _hashable(value: Any) -> Any:
    """Lists as tuples again, at any depth."""
    return tuple(_hashable(item) for item in value) if isinstance(value, list) else value
