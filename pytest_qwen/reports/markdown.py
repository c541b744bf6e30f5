"""The run as markdown: a page for every answer of a model, and a page that sums the run up."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime

from pytest_qwen.records import Generation, RunHeader, RunRecord
from pytest_qwen.reports.figures import device_label, grouped, heading_of, number, setting, totals, versions
from pytest_qwen.reports.terminal import Row, rows_of
from pytest_qwen.reports.text import speak

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_BACKTICKS = re.compile(r"`+")
_SPECIAL = re.compile(r"([\\`*_\[\]<>|])")


def answer_pages(records: Iterable[RunRecord]) -> Iterator[tuple[str, str]]:
    """File name and text of a page for each answer: `Qwen3-8B__20260301_120005.md`, time in UTC.

    Answers of the same model and second get _2, _3 and so on.
    """
    taken: set[str] = set()
    for record in records:
        for generation in record.generations:
            stem = base = f"{_file_name(record)}__{_stamp(record.started)}"
            count = 1
            while stem.lower() in taken:  # some file systems do not tell upper case from lower
                count += 1
                stem = f"{base}_{count}"
            taken.add(stem.lower())
            yield f"{stem}.md", answer_text(record, generation)


def answer_text(record: RunRecord, generation: Generation) -> str:
    """One answer: what made it, what was asked, and the text as it came."""
    prompt = "random tokens" if generation.prompt is None else fenced(generation.prompt)
    model = str(record.spec.get("model") or "unknown model")
    facts = table(("", ""), _facts(record, generation))
    return (
        f"# {escaped(model)}\n\n{facts}\n\n## Prompt\n\n{prompt}\n\n## Answer\n\n{fenced(generation.text)}\n"
    )


def report_text(records: Sequence[RunRecord], header: RunHeader) -> str:
    """The text of `report.md`: the run, then a table for each configuration."""
    facts = [
        ("command", " ".join(header.command)),
        ("started", header.started),
        ("ended", header.ended),
        *((name, str(value)) for name, value in header.machine.items()),
        ("versions", f"pytest-qwen {header.tool_version}, pytest {header.pytest}, Python {header.python}"),
    ]
    parts = ["# pytest-qwen report", table(("", ""), facts), escaped(totals(records)) + "."]
    for group in grouped(records):
        title, about = heading_of(group[0])
        rows = [_cells(row) for record in group for row in rows_of(record)]
        if rows:
            confidence = f"{100 * (1 - group[0].alpha):g} % interval"
            names = ("test", "bound", "measured", confidence, "n", "ceiling", "verdict", "reason")
            parts += [f"## {escaped(title)}", *([escaped(about)] if about else []), table(names, rows)]
    return "\n\n".join(parts) + "\n"


def fenced(text: str, language: str = "text") -> str:
    """The text as a code block that nothing in it can end: the fence is longer than any run of backticks."""
    longest = max((len(run) for run in _BACKTICKS.findall(text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}{'' if text.endswith(chr(10)) else chr(10)}{fence}"


def escaped(text: str) -> str:
    """One line of text that markdown shows as it is, also in a table's cell."""
    return _SPECIAL.sub(r"\\\1", speak(text, unicode=True))


def _facts(record: RunRecord, generation: Generation) -> list[tuple[str, str]]:
    whole_s = None if generation.e2e_ms is None else generation.e2e_ms / 1000
    facts = [
        ("GPU", device_label(record)),
        ("configuration", setting(record)),
        ("versions", versions(record)),
        ("applied", ", ".join(record.loaded.get("applied") or ())),
        ("test", record.nodeid),
        ("time (UTC)", record.started),
        ("prompt tokens", str(generation.prompt_tokens)),
        ("tokens generated", str(generation.output_tokens)),
        ("tokens per second", number(generation.decode_tokens_per_sec)),
        ("time (s)", number(whole_s)),
        ("time to first token (ms)", number(generation.ttft_ms)),
        ("load (s)", number(record.loaded.get("load_s"))),
        ("finished because of", generation.finish_reason),
    ]
    return [(name, value) for name, value in facts if value]


def _cells(row: Row) -> tuple[str, ...]:
    return row.test, row.bound, row.measured, row.interval, row.n, row.ceiling, row.verdict, row.reason


def table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; what is in its cells is shown as it is."""
    lines = [names, ["---"] * len(names), *([escaped(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _file_name(record: RunRecord) -> str:
    """The model's name without its owner, safe on any file system."""
    name = str(record.spec.get("model") or "unknown").rstrip("/").rpartition("/")[2]
    return _UNSAFE.sub("-", name)[:100].strip(".-") or "model"


def _stamp(started: str) -> str:
    return datetime.fromisoformat(started).astimezone(UTC).strftime("%Y%m%d_%H%M%S")
