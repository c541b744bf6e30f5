"""The run file and the journal's line: records as JSON text."""

from __future__ import annotations

import json
from collections.abc import Sequence

from pytest_qwen.records import RUN_VERSION, RunHeader, RunRecord, plain, to_json


def run_text(records: Sequence[RunRecord], header: RunHeader) -> str:
    """The text of `records.json`: the header, then one record a line."""
    lines = ",\n".join(_compact(to_json(record)) for record in records)
    head = f'"version": {_compact(RUN_VERSION)},\n"header": {_compact(plain(header))}'
    return f'{{\n{head},\n"records": [\n{lines}\n]\n}}\n'


def journal_line(record: RunRecord) -> str:
    """One line of `records.jsonl`, with its newline."""
    return _compact(to_json(record)) + "\n"


def _compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
