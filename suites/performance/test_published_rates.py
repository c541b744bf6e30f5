"""The published decode rates as lower bounds, on the published card and on every card with more bandwidth.

A published rate that physics forbids is not a bound: it is skipped with the arithmetic (and counted among the
impossible ones by `suites/planning`).
"""

import pytest

from pytest_qwen import gpu, min_tokens_per_sec, model, workload
from pytest_qwen.bounds import BOUND_KINDS, Bound
from pytest_qwen.gpus import CATALOGUE
from pytest_qwen.physics import refusal
from pytest_qwen.published import Row, load_tables
from pytest_qwen.statistics import percentile


def published_rates() -> list[Row]:
    """Measured rows of one model on one card at batch 1, one for each pair: the first table that has it."""
    found: dict[tuple[str, str], Row] = {}
    for table in load_tables():
        for row in table.rows:
            if {"model", "gpu", "tokens_per_sec", "seconds"} <= set(row.fields) and row.setup is not None:
                found.setdefault((row["model"], row["gpu"]), row)
    return list(found.values())


def as_fast(alias: str) -> list[str]:
    """The card itself and every card of at least its bandwidth."""
    least = CATALOGUE[alias].bandwidth_gb_per_sec or 0
    faster = [a for a, spec in CATALOGUE.items() if (spec.bandwidth_gb_per_sec or 0) >= least]
    return [alias, *(name for name in faster if name != alias)]


def case(row: Row):
    """One published row as a test's parameters and marks."""
    rate = row.span("tokens_per_sec").low
    kind = BOUND_KINDS["min_tokens_per_sec"]
    bound = Bound(
        marker=kind.marker, metric=kind.metric, direction=kind.direction, limit=rate, unit=kind.unit
    )
    forbidden = refusal(bound, row.setup)
    marks = [gpu(*as_fast(row["gpu"])), model(row["model"], dtype=row.dtype), min_tokens_per_sec(rate)]
    if forbidden:
        marks = [gpu(row["gpu"]), pytest.mark.skip(reason=f"published, but {forbidden.splitlines()[0]}")]
    name = f"{row['model'].split('/')[-1]}-{row['gpu']}"
    return pytest.param(row, id=name, marks=marks)


@pytest.mark.parametrize("row", [case(row) for row in published_rates()])
@model(optimize="eager", max_model_len=256)
@workload(prompt_tokens=64, output_tokens=64)
def test_published_rate(llm, published, row):
    """Reproduces the published figure with eager decoding, which is what the publication measured."""
    rates = llm.measure().values("decode_tokens_per_sec")
    if rates:
        published(row.document, row.table, row.name, tokens_per_sec=percentile(rates, 0.5))
