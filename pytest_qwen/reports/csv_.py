"""The run as a table for spreadsheets: one row a record, the same columns in every run."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable

from pytest_qwen.records import RunRecord
from pytest_qwen.reports.figures import bound_text, device_label, figures_of

# New columns go to the end: readers may count on the order.
COLUMNS = (
    "model",
    "gpu",
    "attention",
    "optimize",
    "tokens_generated",
    "tokens_per_sec",
    "time_s",
    "ttft_ms",
    "model_memory_gb",
    "gpu_free_gb",
    "load_s",
    "verdicts",
    "outcome",
    "reason",
    "engine",
    "dtype",
    "quantization",
    "weights",
    "started",
    "nodeid",
    "concurrency",
    "request_rate",
    "requests_per_sec",
    "system_tokens_per_sec",
    "error_ratio",
    "longest_gap_ms",
)


def csv_text(records: Iterable[RunRecord]) -> str:
    """The text of `summary.csv`; an empty cell is unknown. Figures are unrounded, in the column's unit."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_row(record) for record in records)
    return text.getvalue()


def _row(record: RunRecord) -> dict[str, object]:
    spec, figures = record.spec, figures_of(record)
    verdicts = "; ".join(
        f"{v.outcome} {bound_text(v.bound)}" + (f" ({v.reason})" if v.reason else "") for v in record.verdicts
    )
    return {
        "model": spec.get("model"),
        "gpu": device_label(record),
        "attention": spec.get("attention"),
        "optimize": spec.get("optimize"),
        "tokens_generated": figures.tokens_generated,
        "tokens_per_sec": figures.tokens_per_sec,
        "time_s": figures.time_s,
        "ttft_ms": figures.ttft_ms,
        "model_memory_gb": figures.model_memory_gb,
        "gpu_free_gb": figures.gpu_free_gb,
        "load_s": figures.load_s,
        "verdicts": verdicts,
        "outcome": record.outcome,
        "reason": record.reason,
        "engine": spec.get("engine"),
        "dtype": spec.get("dtype"),
        "quantization": spec.get("quantization"),
        "weights": spec.get("weights"),
        "started": record.started,
        "nodeid": record.nodeid,
        "concurrency": record.workload.get("concurrency"),
        "request_rate": record.workload.get("request_rate"),
        "requests_per_sec": figures.requests_per_sec,
        "system_tokens_per_sec": figures.system_tokens_per_sec,
        "error_ratio": figures.error_ratio,
        "longest_gap_ms": figures.longest_gap_ms,
    }
