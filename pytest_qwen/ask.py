"""From the marks of one test to one frozen request, or to the misuse that the test is failed with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

import pytest

from pytest_qwen import gpus
from pytest_qwen.bounds import Bound, Slo
from pytest_qwen.errors import Misuse, closest, explain
from pytest_qwen.markers import (
    MARKERS,
    SHARED_NAMES,
    Gpu,
    Limit,
    Marker,
    MaxAccuracyDrop,
    MaxE2eLatency,
    MaxErrorRate,
    MaxSlowdown,
    MaxTpot,
    MaxTtft,
    MaxUsdPerMtok,
    MinAccuracy,
    MinGoodput,
    MinPassAtK,
    MinStars,
    MinTokensPerSec,
    Model,
    RecordedAnswer,
    Sla,
    Workload,
)
from pytest_qwen.parsing import (
    SLO_METRICS,
    accuracy_bound,
    bound_of,
    other_side,
    parse,
    rated_bounds,
)
from pytest_qwen.presets import PRESETS
from pytest_qwen.workloads import check_workload

_GOOD_STARS = 4  # from which a sample counts as good, where `min_pass_at_k` does not say
_Merged = TypeVar("_Merged", Model, Workload, RecordedAnswer)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """What one test asks for.

    `versus` maps the `vs` of a slowdown or an accuracy drop to the model arguments of its other side.
    `price_per_hour_usd` is the price that a `max_usd_per_mtok` brought along. `rated` are the bounds
    on stars, `sample_stars` those from which a sample counts as good for pass@k. `answer` is the
    recorded answer. `counted` are the bounds on right answers.
    """

    gpu: Gpu | None = None
    model: Model = field(default_factory=Model)
    workload: Workload = field(default_factory=Workload)
    bounds: tuple[Bound, ...] = ()
    versus: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    price_per_hour_usd: float | None = None
    rated: tuple[Bound, ...] = ()
    sample_stars: int = _GOOD_STARS
    answer: RecordedAnswer = field(default_factory=RecordedAnswer)
    counted: tuple[Bound, ...] = ()

    @property
    def all_bounds(self) -> tuple[Bound, ...]:
        """Every bound that the test sets."""
        return (*self.bounds, *self.rated, *self.counted)


def read_marks(marks: Iterable[tuple[object, pytest.Mark]], *, uses_fixtures: bool) -> RunRequest:
    """The request of a test from its (node, mark) pairs, closest first, as `iter_markers_with_node` gives.

    For `model` and `workload` an argument that the closer mark leaves unset is taken from the outer one;
    for bounds and `gpu` the closest wins. Raises Misuse. A bare `gpu`, `model`, `workload` or `sla` on a
    test that uses none of our fixtures belongs to another project and is left alone.
    """
    parsed: list[tuple[object, Marker]] = []
    for node, mark in marks:
        if mark.name not in MARKERS:
            continue
        if mark.name in SHARED_NAMES and not mark.args and not mark.kwargs and not uses_fixtures:
            continue
        parsed.append((node, parse(mark)))
    gpu = next((m for _, m in parsed if isinstance(m, Gpu)), None)
    if gpu is not None:
        _check_gpu(gpu)
    workload = check_workload(_merged(Workload, [m for _, m in parsed if isinstance(m, Workload)]))
    limits = _limits(parsed)
    counts = _counts(parsed)
    samples = next((m for _, m in parsed if isinstance(m, MinPassAtK)), None)
    return RunRequest(
        gpu=gpu,
        model=_merged(Model, [m for _, m in parsed if isinstance(m, Model)]),
        workload=workload,
        bounds=_bounds(limits, workload),
        versus={
            str(bound_of(m).vs): other_side(m.vs)
            for m in limits
            if isinstance(m, MaxSlowdown) and isinstance(m.vs, Mapping)
        }
        | {str(accuracy_bound(m).vs): other_side(m.vs) for m in counts if isinstance(m, MaxAccuracyDrop)},
        price_per_hour_usd=next(
            (m.price_per_hour for m in limits if isinstance(m, MaxUsdPerMtok) and m.price_per_hour), None
        ),
        rated=_rated(parsed),
        sample_stars=samples.stars if samples else _GOOD_STARS,
        answer=_merged(RecordedAnswer, [m for _, m in parsed if isinstance(m, RecordedAnswer)]),
        counted=tuple(accuracy_bound(m) for m in counts),
    )


def _bounds(limits: tuple[Limit, ...], workload: Workload) -> tuple[Bound, ...]:
    """The bounds of a test. Under a load no request may fail unless the test says how many may.

    Raises Misuse for a `min_goodput` that no limit says what is good for.
    """
    bounds = tuple(bound_of(limit) for limit in limits)
    own = tuple(
        Slo(metric=bound.metric, limit=bound.limit, fraction=bound.fraction)
        for bound in bounds
        if bound.metric in SLO_METRICS.values()
    )
    good = [bound for bound in bounds if bound.marker == "min_goodput" and not bound.slos]
    if good and not own:
        raise Misuse(
            explain(
                "marker 'min_goodput': nothing says which requests are good",
                asked=str(good[0]),
                found="the test bounds neither TTFT, TPOT, inter-token nor end-to-end latency",
                next_step=f"use it like {MinGoodput.example}, or add @max_ttft(500)",
            )
        )
    bounds = tuple(replace(bound, slos=own) if bound in good else bound for bound in bounds)
    _check_arrivals(bounds, workload)
    loaded = workload.concurrency is not None or workload.request_rate is not None
    if loaded and not any(bound.marker == "max_error_rate" for bound in bounds):
        bounds += (bound_of(MaxErrorRate(limit=0.0)),)
    return bounds


def _check_arrivals(bounds: tuple[Bound, ...], workload: Workload) -> None:
    """No more requests can be good than arrive. Raises Misuse for a goodput above the rate of arrivals."""
    rate = workload.request_rate
    if rate is None:
        return
    for bound in bounds:
        if bound.marker == "min_goodput" and bound.limit > rate:
            raise Misuse(
                explain(
                    "marker 'min_goodput': more requests have to be good than arrive",
                    asked=f"{bound} with request_rate={rate:g}",
                    next_step="a higher request_rate, or a lower limit",
                )
            )


def _merged(kind: type[_Merged], marks: list[_Merged]) -> _Merged:
    """The closest mark, its unset arguments filled from the outer ones."""
    result = kind()
    for mark in reversed(marks):
        given = {f.name: getattr(mark, f.name) for f in fields(mark) if getattr(mark, f.name) is not None}
        result = replace(result, **given)
    return result


def _rated(parsed: list[tuple[object, Marker]]) -> tuple[Bound, ...]:
    """The bounds on stars: the closest mark's for each rating, and for pass@k, whatever its k."""
    chosen: dict[str, tuple[object, MinStars | MinPassAtK, Bound]] = {}
    for node, marker in parsed:
        if not isinstance(marker, MinStars | MinPassAtK):
            continue
        for bound in rated_bounds(marker):
            key = bound.metric if isinstance(marker, MinStars) else marker.name
            place, other, kept = chosen.setdefault(key, (node, marker, bound))
            same = kept == bound and (isinstance(marker, MinStars) or marker == other)
            if place is node and not same:
                raise _conflict(marker.name, kept, bound)
    ordered = sorted(chosen.values(), key=lambda one: isinstance(one[1], MinPassAtK))
    return tuple(bound for _, _, bound in ordered)


def _counts(parsed: list[tuple[object, Marker]]) -> tuple[MinAccuracy | MaxAccuracyDrop, ...]:
    """The marks on right answers that hold: the closest of each kind, task and other side."""
    chosen: dict[tuple[str, str, str | None], tuple[object, MinAccuracy | MaxAccuracyDrop]] = {}
    for node, marker in parsed:
        if not isinstance(marker, MinAccuracy | MaxAccuracyDrop):
            continue
        bound = accuracy_bound(marker)
        place, kept = chosen.setdefault((bound.marker, bound.metric, bound.vs), (node, marker))
        if place is node and kept != marker:
            raise _conflict(marker.name, accuracy_bound(kept), bound)
    return tuple(marker for _, marker in chosen.values())


def _check_gpu(gpu: Gpu) -> None:
    for name in gpu.names:
        gpus.check_name(name)


def _limits(parsed: list[tuple[object, Marker]]) -> tuple[Limit, ...]:
    """The bounds that hold: the closest of each kind and statistic; two different ones in one place clash."""
    chosen: dict[tuple[str, ...], tuple[object, Limit]] = {}
    for node, marker in [*parsed, *_preset_limits(parsed)]:
        if not isinstance(marker, Limit):
            continue
        key = _key(marker)
        if key in chosen and chosen[key][0] is node and chosen[key][1] != marker:
            raise _conflict(marker.name, bound_of(chosen[key][1]), bound_of(marker))
        chosen.setdefault(key, (node, marker))
    limits = tuple(marker for _, marker in chosen.values())
    _check_consistent(limits)
    return limits


def _key(marker: Limit) -> tuple[str, ...]:
    """What makes two bounds the same one: kind, statistic, scope, other side."""
    extra = (str(getattr(marker, name, "")) for name in ("stat", "scope", "vs"))
    return (marker.name, *extra)


def _preset_limits(parsed: list[tuple[object, Marker]]) -> list[tuple[object, Marker]]:
    found: list[tuple[object, Marker]] = []
    for _, marker in parsed:
        if not isinstance(marker, Sla):
            continue
        if marker.preset not in PRESETS:
            meant = closest(marker.preset, PRESETS)
            raise Misuse(
                explain(
                    f"marker 'sla': there is no preset {marker.preset!r}",
                    slip=f"did you mean {meant!r}?" if meant else None,
                    choices=PRESETS,
                )
            )
        explicit = {limit.name for _, limit in parsed if isinstance(limit, Limit)}
        found += [(marker, limit) for limit in PRESETS[marker.preset].limits if limit.name not in explicit]
    return found


def _conflict(name: str, first: Bound, second: Bound) -> Misuse:
    measured = first.judged in ("sequential", "observed")
    differ = "give them different statistics" if measured else "make two tests of them"
    return Misuse(
        explain(
            f"marker {name!r}: two bounds of the same kind conflict",
            asked=f"{first} and {second}",
            slip="one is on the function and one on its parameter: both count as the test's own",
            next_step=f"keep one of them, or {differ}",
        )
    )


def _check_consistent(limits: tuple[Limit, ...]) -> None:
    """Two bounds that no model could meet together: a first token that may come after the last one."""
    ttft = next((m for m in limits if isinstance(m, MaxTtft)), None)
    e2e = next((m for m in limits if isinstance(m, MaxE2eLatency)), None)
    if ttft and e2e and ttft.limit > e2e.limit:
        raise Misuse(
            explain(
                "bounds 'max_ttft' and 'max_e2e_latency' conflict",
                asked=f"{bound_of(ttft)} and {bound_of(e2e)}",
                found="the first token may come after the whole answer must be there",
                slip="both are in milliseconds; is one of them in seconds?",
            )
        )
    rate = next((m for m in limits if isinstance(m, MinTokensPerSec) and m.scope == "request"), None)
    tpot = next((m for m in limits if isinstance(m, MaxTpot)), None)
    if rate and tpot and rate.stat == tpot.stat and not 0.1 < rate.limit * tpot.limit / 1000 < 10:
        raise Misuse(
            explain(
                "bounds 'min_tokens_per_sec' and 'max_tpot' conflict",
                asked=f"{bound_of(rate)} and {bound_of(tpot)}",
                found=f"{rate.limit:g} tok/s is a TPOT of {1000 / rate.limit:g} ms, not {tpot.limit:g} ms",
                slip="TPOT is in milliseconds; is it given in seconds?",
            )
        )
