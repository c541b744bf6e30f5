"""Loads, and searches for the highest one: tables for terminal and markdown page, JUnit properties."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean
from textwrap import wrap

from pytest_qwen.evidence import Measurement, Round
from pytest_qwen.levels import UNITS, Highest, Level
from pytest_qwen.metrics import is_slice, samples_needed
from pytest_qwen.records import RunRecord
from pytest_qwen.reports.figures import number
from pytest_qwen.reports.junit import Scalar
from pytest_qwen.reports.markdown import escaped, table
from pytest_qwen.reports.terminal import short_name
from pytest_qwen.reports.text import columns, speak
from pytest_qwen.streaming import (
    failures_in_words,
    longest_gap_ms,
    middle_quantile,
    output_tokens,
    request_values,
)
from pytest_qwen.streams import Stream

# Columns of a load. Percentiles are over all requests of the steady state, and only shown where there are
# enough of them; the longest gap, like failures, is of every request that ended.
LOAD_HEAD = (
    "test", "load", "requests", "failed", "req/s", "tok/s", "full tok/s",
    "TTFT p50/p95/p99 ms", "TPOT p50/p95/p99 ms", "longest gap ms", "client",
)  # fmt: skip
LEVEL_HEAD = ("level", "requests", "req/s", "tok/s", "TTFT ms", "TPOT ms", "longest gap ms", "bounds")
_PERCENTILES = (0.5, 0.95, 0.99)


def load_rows(records: Iterable[RunRecord]) -> list[tuple[str, ...]]:
    """A row for every load that was measured as such; the levels of a search have a table of their own."""
    return [
        (short_name(record.nodeid), _asked(record, measurement), *_cells(measurement))
        for record in records
        for place, measurement in enumerate(record.measurements)
        if any(map(is_slice, measurement.rounds)) and place not in searched(record)
    ]


def searched(record: RunRecord) -> set[int]:
    """The places of the measurements that are levels of a search."""
    return {level.measurement for search in record.searches for level in search.levels}


def _asked(record: RunRecord, measurement: Measurement) -> str:
    """The load in the words of its mark; by what was on its way at once where the mark does not say it."""
    users, rate = record.workload.get("concurrency"), record.workload.get("request_rate")
    if users is not None:
        return f"{users} users"
    if rate is not None:
        return f"{number(rate)} req/s"
    held = [seen.client.in_flight for seen in measurement.rounds if seen.client is not None]
    return f"about {max(1, round(fmean(held)))} at once"


def _cells(measurement: Measurement) -> tuple[str, ...]:
    timed = [seen for seen in measurement.rounds if is_slice(seen) and seen.kind == "round"]
    steady = [stream for seen in timed for stream in seen.streams]
    ended = [stream for seen in measurement.rounds for stream in seen.streams]
    seconds, tokens = sum(seen.seconds for seen in timed), output_tokens(steady)
    done = sum(stream.complete for stream in steady)
    return (
        str(len(ended)),
        failures_in_words(ended) or "0",
        number(done / seconds if seconds else None),
        number(tokens / seconds if tokens and seconds else None),
        number(measurement.observed.get("full_output_tokens_per_sec")),
        _percentiles("ttft_ms", steady),
        _percentiles("tpot_ms", steady),
        number(longest_gap_ms(ended)),
        _client(timed),
    )


def _percentiles(metric: str, streams: Sequence[Stream]) -> str:
    """The percentiles that there are enough requests for, "-" for one that there are not."""
    values = request_values(metric, streams) or ()
    shown = [
        number(middle_quantile(values, share)) if len(values) >= samples_needed(share) else "-"
        for share in _PERCENTILES
    ]
    return "/".join(shown) if values else ""


def _client(rounds: Sequence[Round]) -> str:
    """What the client says of itself, at its worst: the share of the load that it held, its lag."""
    clients = [seen.client for seen in rounds if seen.client is not None]
    if not clients:
        return ""
    held = min((one.held_ratio for one in clients if one.held_ratio is not None), default=None)
    lag = max((one.lag_p99_ms for one in clients if one.lag_p99_ms is not None), default=None)
    shown = [] if held is None else [f"held {held:.1%}".replace("%", " %")]
    return ", ".join([*shown, *([] if lag is None else [f"lag {number(lag)} ms"])])


def loads_text(rows: Sequence[Sequence[str]], *, width: int, unicode: bool) -> str:
    """The table where it fits the terminal, else one paragraph a load."""
    spoken = [[speak(cell, unicode=unicode) for cell in row] for row in rows]
    whole = columns(LOAD_HEAD, spoken, words=2)
    if max(map(len, whole.splitlines())) <= width:
        return whole
    lines = []
    for row in spoken:
        lines.append(f"{row[0]}: {row[1]}, {row[2]} requests, failed {row[3]}")
        shown = [f"{name} {cell}" for name, cell in zip(LOAD_HEAD[4:], row[4:], strict=True) if cell]
        lines += wrap("; ".join(shown), width, initial_indent="    ", subsequent_indent="    ")
    return "\n".join(lines)


def loads_section(rows: Sequence[Sequence[str]]) -> str:
    """The table in markdown."""
    return table(LOAD_HEAD, rows)


def searches_of(records: Iterable[RunRecord]) -> list[tuple[str, Highest]]:
    """Every search with the test that made it."""
    return [(short_name(record.nodeid), search) for record in records for search in record.searches]


def searches_text(searches: Iterable[tuple[str, Highest]], *, unicode: bool) -> str:
    """What each search found, and its levels from the lowest to the highest."""
    parts = []
    for test, search in searches:
        rows = [[speak(cell, unicode=unicode) for cell in row] for row in _level_rows(search)]
        title = speak(f"{test}: {search}", unicode=unicode)
        parts.append(f"{title}\n{columns(LEVEL_HEAD, rows, words=1)}")
    return "\n\n".join(parts)


def searches_section(searches: Iterable[tuple[str, Highest]]) -> str:
    """The same in markdown."""
    return "\n\n".join(
        f"{escaped(f'{test}: {search}')}\n\n{table(LEVEL_HEAD, _level_rows(search))}"
        for test, search in searches
    )


def _level_rows(search: Highest) -> list[tuple[str, ...]]:
    ordered = sorted(search.levels, key=lambda one: one.level)
    return [_level_row(level, UNITS[search.kind]) for level in ordered]


def _level_row(level: Level, unit: str) -> tuple[str, ...]:
    names = ("requests_per_sec", "output_tokens_per_sec", "ttft_ms", "tpot_ms", "longest_gap_ms")
    missed = [f"{v.bound.marker}: {v.outcome}" for v in level.verdicts if v.outcome.value != "PASS"]
    return (
        f"{number(level.level)} {unit}",
        str(level.requests),
        *(number(level.figures.get(name)) for name in names),
        "met" if level.met else ", ".join(missed),
    )


def search_properties(searches: Iterable[Highest]) -> list[tuple[str, Scalar]]:
    """`qwen.highest.<kind>` and why the search stopped."""
    found: list[tuple[str, Scalar]] = []
    for search in searches:
        name = f"qwen.highest.{search.kind}"
        found += [] if search.value is None else [(name, search.value)]
        found.append((f"{name}.stopped", search.stopped))
    return found
