"""From a mark as it was written to its marker's checked values, and from a limit to its bound."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields
from typing import Any

import pytest

from pytest_qwen.bounds import BOUND_KINDS, Bound, Slo, fraction_of
from pytest_qwen.errors import Misuse, closest, explain
from pytest_qwen.markers import (
    DTYPES,
    MARKERS,
    Limit,
    Marker,
    MaxAccuracyDrop,
    MaxSlowdown,
    MinAccuracy,
    MinGoodput,
    MinPassAtK,
    MinStars,
    MinTokensPerSec,
    Statistical,
    usage,
)
from pytest_qwen.scorecards import DIMENSIONS

RATINGS = ("overall", *DIMENSIONS)


def parse(mark: pytest.Mark) -> Marker:
    """The marker's values, checked.

    Raises Misuse for an unknown or missing argument, a wrong type or a value out of range.
    """
    kind = MARKERS[mark.name]
    given = dict(mark.kwargs)
    if kind.variadic:
        given[kind.variadic] = tuple(mark.args)
    else:
        if len(mark.args) > len(kind.positional):
            raise _misuse(kind, mark, f"takes at most {len(kind.positional)} positional argument(s)")
        for name, value in zip(kind.positional, mark.args, strict=False):
            if name in given:
                raise _misuse(kind, mark, f"argument {name!r} is given twice")
            given[name] = value
    known = {spec.name: spec for spec in fields(kind)}
    for name in given:
        if name not in known:
            raise _unknown_argument(kind, mark, name, known)
    for name, spec in known.items():
        if name not in given and spec.default is MISSING:
            raise _misuse(kind, mark, f"argument {name!r} is missing")
    checked = {name: _checked(kind, mark, name, known[name].metadata, value) for name, value in given.items()}
    return kind(**checked)


def parse_arguments(name: str, given: Mapping[str, Any]) -> Marker:
    """The values of arguments that a call takes as the mark of that name does. Raises Misuse."""
    return parse(getattr(pytest.mark, name)(**given).mark)


def _written(mark: pytest.Mark) -> str:
    """The mark as the user wrote it."""
    parts = [repr(value) for value in mark.args] + [f"{k}={v!r}" for k, v in mark.kwargs.items()]
    return f"@{mark.name}({', '.join(parts)})"


def _misuse(kind: type[Marker], mark: pytest.Mark, problem: str, *, slip: str | None = None) -> Misuse:
    return Misuse(
        explain(
            f"marker {kind.name!r}: {problem}",
            asked=_written(mark),
            slip=slip,
            next_step=f"use it like {kind.example}",
            choices=[usage(kind)],
        )
    )


def _unknown_argument(kind: type[Marker], mark: pytest.Mark, name: str, known: Iterable[str]) -> Misuse:
    meant = closest(name, known)
    slip = f"did you mean {meant!r}?" if meant else None
    return _misuse(kind, mark, f"unknown argument {name!r}", slip=slip)


def _checked(
    kind: type[Marker], mark: pytest.Mark, name: str, metadata: Mapping[str, Any], value: Any
) -> Any:
    """The value in its canonical type; Misuse when it is not what the argument takes."""
    wanted, choices = metadata["kind"], metadata["choices"]
    if value is None and kind.__dataclass_fields__[name].default is None:
        return None
    if wanted == "choice":
        if value in choices:
            return value
        meant = difflib.get_close_matches(str(value), choices, n=1)
        slip = f"did you mean {meant[0]!r}?" if meant else None
        raise _misuse(kind, mark, f"{name}={value!r} is none of {', '.join(choices)}", slip=slip)
    problem = _VALUE_PROBLEMS[wanted](value)
    if problem:
        raise _misuse(kind, mark, f"{name}={value!r} {problem}", slip=_slip_of(wanted, value))
    return tuple(value) if wanted == "names" else float(value) if wanted in _REAL else value


def _slip_of(wanted: str, value: Any) -> str | None:
    """The likely slip behind a wrong value."""
    if isinstance(value, str) and wanted in _REAL | {"positive int", "int", "stars"}:
        return "a number in quotes"
    if wanted in {"share", "part", "ratio"} and isinstance(value, int | float) and 1 <= value <= 100:
        return f"a percentage; write {value / 100:g}"
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value  # noqa: PLR0124 - NaN


def _stat_problem(value: Any) -> str | None:
    try:
        fraction_of(value)
    except (ValueError, TypeError):
        return "is not 'median' or a percentile from 'p50' to 'p99.9'"
    return None


_REAL = {"positive", "non-negative", "share", "part", "ratio"}
_VALUE_PROBLEMS: dict[str, Any] = {
    "text": lambda v: None if isinstance(v, str) and v else "is not a non-empty string",
    "names": lambda v: None if all(isinstance(n, str) for n in v) else "are not all GPU names in quotes",
    "flag": lambda v: None if isinstance(v, bool) else "is not True or False",
    "int": lambda v: None if isinstance(v, int) and not isinstance(v, bool) else "is not a whole number",
    "positive int": lambda v: (
        None if isinstance(v, int) and not isinstance(v, bool) and v > 0 else "is not a whole number above 0"
    ),
    "stars": lambda v: (
        None
        if isinstance(v, int) and not isinstance(v, bool) and 0 <= v <= 5
        else "is not a whole number of stars from 0 to 5"
    ),
    "positive": lambda v: None if _is_number(v) and 0 < v < float("inf") else "is not a number above 0",
    "non-negative": lambda v: (
        None if _is_number(v) and 0 <= v < float("inf") else "is not a number from 0 up"
    ),
    "share": lambda v: None if _is_number(v) and 0 < v <= 1 else "is not a share above 0 and up to 1",
    "ratio": lambda v: None if _is_number(v) and 0 <= v <= 1 else "is not a share from 0 to 1",
    "part": lambda v: None if _is_number(v) and 0 < v < 1 else "is not a share above 0 and under 1",
    "precision": lambda v: (
        None
        if v and isinstance(v, str | Mapping)
        else "is neither a precision such as 'bf16' nor a mapping of model arguments"
    ),
    "mapping": lambda v: None if isinstance(v, Mapping) else "is not a mapping of option names to values",
    "stat": _stat_problem,
    "versus": lambda v: (
        None
        if v == "baseline" or (isinstance(v, Mapping) and v)
        else "is neither 'baseline' nor a mapping of model arguments such as {'optimize': 'eager'}"
    ),
}


def rated_bounds(marker: MinStars | MinPassAtK) -> tuple[Bound, ...]:
    """The bounds on stars that a mark sets, one for each rating it names. Raises Misuse for none."""
    if isinstance(marker, MinPassAtK):
        metric, limits, unit = f"pass@{marker.k}", {"": marker.limit}, "ratio"
    else:
        metric, unit = marker.profile, "stars"
        limits = {name: value for name in RATINGS if (value := getattr(marker, name)) is not None}
    if not limits:
        raise Misuse(
            explain(
                "marker 'min_stars': no least number of stars is given",
                asked=f"@{marker.name}()",
                next_step=f"use it like {marker.example}",
                choices=[usage(type(marker))],
            )
        )
    return tuple(
        Bound(
            marker=marker.name,
            metric=f"{metric} {name}".rstrip(),
            direction="at least",
            limit=float(limit),
            unit="star" if unit == "stars" and limit == 1 else unit,
            judged="rated",
        )
        for name, limit in limits.items()
    )


def accuracy_bound(marker: MinAccuracy | MaxAccuracyDrop) -> Bound:
    """The bound on right answers that a mark sets; its metric is the task, "" for every one of the test."""
    return Bound(
        marker=marker.name,
        metric=marker.task or "",
        direction="at most" if isinstance(marker, MaxAccuracyDrop) else "at least",
        limit=marker.limit,
        unit="ratio",
        judged="counted",
        vs=_versus(marker.vs) if isinstance(marker, MaxAccuracyDrop) else None,
    )


def other_side(vs: str | Mapping[str, Any]) -> dict[str, Any]:
    """Model arguments of a bound's other side: those given, or those of a precision by its name.

    Raises Misuse for an argument that the `model` mark does not have or take.
    """
    if not isinstance(vs, str):
        parse(pytest.mark.model(**{str(name): value for name, value in vs.items()}).mark)
        return dict(vs)
    dtype = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}.get(vs, vs)
    return {"dtype": dtype, "quantization": None} if dtype in DTYPES else {"quantization": vs}


def _versus(given: Mapping[str, Any] | str) -> str:
    """The other side of a comparison in words."""
    return given if isinstance(given, str) else ",".join(f"{name}={value}" for name, value in given.items())


# The arguments of `min_goodput`, and the metric that each limits.
SLO_METRICS = {"ttft": "ttft_ms", "tpot": "tpot_ms", "itl": "itl_ms", "e2e": "e2e_latency_ms"}


def bound_of(marker: Limit) -> Bound:
    """The bound that a parsed bound marker sets; a `min_goodput` has the limits that it names itself."""
    given: dict[str, Any] = {}
    if isinstance(marker, MinTokensPerSec) and marker.scope == "system":
        given["metric"] = "output_tokens_per_sec"
    if isinstance(marker, MaxSlowdown):
        given["vs"] = _versus(marker.vs)
    if isinstance(marker, MinGoodput):
        given["slos"] = _slos(marker)
    stat = marker.stat if isinstance(marker, Statistical) else "median"
    return BOUND_KINDS[marker.name].bound(marker.limit, stat, **given)


def _slos(marker: MinGoodput) -> tuple[Slo, ...]:
    """The limits of a good request that the mark names."""
    given = ((metric, getattr(marker, name)) for name, metric in SLO_METRICS.items())
    return tuple(Slo(metric=metric, limit=limit) for metric, limit in given if limit is not None)
