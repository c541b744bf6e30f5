"""What a JUnit file says of a test: properties with scalar values."""

from __future__ import annotations

import math

from pytest_qwen.records import RunRecord
from pytest_qwen.reports.figures import device_label
from pytest_qwen.verdicts import Verdict

Scalar = str | int | float


def user_properties(record: RunRecord) -> list[tuple[str, Scalar]]:
    """The pairs for pytest's `user_properties`; what is unknown or infinite is left out.

    `qwen.gpu`, `qwen.model`, `qwen.engine`, `qwen.optimize`, and for each verdict `qwen.<mark>.<figure>`,
    with the percentile between them where it is not the median: `qwen.max_ttft.p95.estimate`, and the profile
    and dimension of stars: `qwen.min_stars.run.overall.estimate`.
    """
    found: list[tuple[str, Scalar]] = []
    if record.spec:
        found.append(("qwen.gpu", device_label(record)))
        found += [(f"qwen.{name}", str(record.spec.get(name))) for name in ("model", "engine", "optimize")]
    for verdict in record.verdicts:
        found += _of_verdict(verdict)
    return found


def _of_verdict(verdict: Verdict) -> list[tuple[str, Scalar]]:
    bound = verdict.bound
    parts = ["qwen", bound.marker, *([bound.stat] if bound.stat != "median" else [])]
    parts += bound.metric.split() if bound.judged in ("rated", "counted") else []
    prefix = ".".join([*parts, *([f"vs-{bound.vs}"] if bound.vs else [])])
    figures: dict[str, Scalar | None] = {
        "verdict": verdict.outcome.value,
        "limit": bound.limit,
        "estimate": verdict.estimate,
        "low": verdict.low,
        "high": verdict.high,
        "ceiling": verdict.ceiling,
        "n": verdict.n,
        "unit": bound.unit,
        "reason": str(verdict.reason) or None,
    }
    return [
        (f"{prefix}.{name}", value)
        for name, value in figures.items()
        if value is not None and not (isinstance(value, float) and not math.isfinite(value))
    ]
