"""What the reports say: JSON, CSV, markdown and JUnit."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from record_samples import H200, a_round, bound, full_record, header, record, verdict

from pytest_qwen.evidence import Measurement, Window
from pytest_qwen.outcomes import Outcome
from pytest_qwen.records import from_json
from pytest_qwen.reports.csv_ import COLUMNS, csv_text
from pytest_qwen.reports.figures import (
    Figures,
    bound_text,
    figures_of,
    gpu_energy_j,
    interval_text,
    load_seconds,
    number,
    share_of_ceiling,
    totals,
)
from pytest_qwen.reports.json_ import journal_line, run_text
from pytest_qwen.reports.junit import user_properties
from pytest_qwen.reports.markdown import answer_pages, fenced, report_text
from pytest_qwen.reports.text import fit, speak

# ---- figures


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (0.0, "0"),
        (205.25, "205.2"),
        (15231.4, "15231"),
        (0.0123456, "0.01235"),
        (1e-7, "0.0000001"),
        (-3.14159, "-3.142"),
        (math.inf, "∞"),
        (-math.inf, "-∞"),
        (316.0, "316"),
        (9999.96, "10000"),
    ],
)
def test_numbers_have_four_digits_and_no_exponent(value: float | None, text: str) -> None:
    assert number(value) == text


def test_figures_are_medians_of_the_clean_rounds() -> None:
    rounds = (
        a_round(0, 100.0, kind="warmup"),
        a_round(1, 4.0),
        a_round(2, 5.0, window=Window(seconds=1.0, memory_used_bytes=20_000_000_000)),
        a_round(3, 10.0),
        a_round(4, 99.0, violations=("GPU clocks were throttled",)),
    )
    found = figures_of(record(measurements=(Measurement(rounds=rounds),)))
    assert found == Figures(
        tokens_generated=4,
        tokens_per_sec=200.0,
        time_s=0.035,
        ttft_ms=20.0,
        model_memory_gb=15.231,
        gpu_free_gb=pytest.approx(130.754820096),
        load_s=12.5,
    )


def test_without_rounds_the_last_answer_speaks() -> None:
    found = figures_of(replace(full_record(), measurements=()))
    assert (found.tokens_generated, found.tokens_per_sec, found.time_s) == (4, 200.0, 0.035)
    assert found.gpu_free_gb is None
    assert figures_of(record(loaded={}, device={})) == Figures()


def test_bounds_in_the_words_of_their_marks() -> None:
    assert bound_text(bound("max_ttft", 500.0, "p95")) == "max_ttft p95 ≤ 500 ms"
    assert bound_text(bound("min_tokens_per_sec", 30.0)) == "min_tokens_per_sec ≥ 30 tok/s"
    assert bound_text(bound("min_mbu", 0.6)) == "min_mbu ≥ 0.6"
    slow = replace(bound("max_slowdown", 1.05), vs="eager")
    assert bound_text(slow) == "max_slowdown vs eager ≤ 1.05"


def test_the_ceiling_of_an_upper_bound_is_a_floor() -> None:
    speed, latency = bound("min_tokens_per_sec", 1.0), bound("max_tpot", 1.0)
    assert share_of_ceiling(verdict(speed, estimate=50.0, ceiling=200.0)) == 0.25
    assert share_of_ceiling(verdict(latency, estimate=8.0, ceiling=2.0)) == 0.25
    assert share_of_ceiling(verdict(speed, estimate=50.0)) is None


def test_one_observation_has_no_interval() -> None:
    load = bound("max_load_time", 60.0)
    assert interval_text(verdict(load, low=12.0, high=12.0, n=1)) == ""
    assert interval_text(verdict(load, low=12.0, high=13.5, n=2)) == "[12, 13.5]"


def test_totals_count_each_load_once() -> None:
    one = full_record()
    other = record(loaded={"load_s": 7.5, "pid": 9})
    assert load_seconds([one, one, other]) == (12.5, 7.5)
    assert gpu_energy_j([one]) == 12 * 2.5
    assert gpu_energy_j([other]) is None
    said = totals([one, one, other])
    assert "2 PASS, 0 FAIL, 4 NO VERDICT" in said
    assert "2 models loaded in 20 s" in said
    assert "60 J" in said
    assert totals([record(loaded={})]) == "0 PASS, 0 FAIL, 0 NO VERDICT"


def test_text_of_strangers_cannot_steer_the_terminal() -> None:
    assert speak("a\x1b[31mred\r\nb", unicode=True) == "a\\x1b[31mred b"
    assert speak("≥ 1 × ü", unicode=False) == ">= 1 x \\xfc"
    assert fit("abcdefgh", 5, unicode=True) == "abcd…"
    assert fit("abcdefgh", 5, unicode=False, keep="end") == "...gh"
    assert fit("abc", 3, unicode=True) == "abc"


# ---- JSON


def test_the_run_file_and_the_journal_hold_whole_records() -> None:
    records = [full_record(), record()]
    data = json.loads(run_text(records, header()))
    assert [from_json(item) for item in data["records"]] == records
    assert data["header"]["command"] == ["suites/", "--gpu=h200"]
    line = journal_line(records[0])
    assert line.count("\n") == 1
    assert from_json(json.loads(line)) == records[0]
    assert json.loads(run_text([], header()))["records"] == []


# ---- CSV


def test_the_csv_has_the_published_columns_first() -> None:
    rows = list(csv.DictReader(io.StringIO(csv_text([full_record(), record(reason='odd, "quoted"\nline')]))))
    first, second = rows
    assert tuple(first) == COLUMNS
    assert COLUMNS[:12] == (
        "model", "gpu", "attention", "optimize", "tokens_generated", "tokens_per_sec", "time_s", "ttft_ms",
        "model_memory_gb", "gpu_free_gb", "load_s", "verdicts",
    )  # fmt: skip
    assert (first["model"], first["gpu"]) == ("Qwen/Qwen2.5-Coder-7B-Instruct", H200)
    assert (first["model_memory_gb"], first["load_s"], first["ttft_ms"]) == ("15.231", "12.5", "20.0")
    assert first["verdicts"].startswith(
        "PASS min_tokens_per_sec ≥ 150 tok/s; NO VERDICT max_ttft p95 ≤ 500 ms (too"
    )
    assert second["reason"] == 'odd, "quoted"\nline'
    assert second["tokens_per_sec"] == ""


# ---- markdown


def test_every_answer_has_a_page_named_by_model_and_time() -> None:
    two = replace(full_record(), generations=full_record().generations * 2)
    later = replace(
        full_record(), started="2026-03-01T14:00:06+02:00", spec={"model": "/models/My Model (v2)"}
    )
    pages = dict(answer_pages([two, record(), later]))
    assert list(pages) == [
        "Qwen2.5-Coder-7B-Instruct__20260301_120005.md",
        "Qwen2.5-Coder-7B-Instruct__20260301_120005_2.md",
        "My-Model-v2__20260301_120006.md",
    ]
    text = pages["Qwen2.5-Coder-7B-Instruct__20260301_120005.md"]
    for said in (
        H200,
        "torch 2.13.0",
        "Schreibe eine Addition – 加法",
        "| tokens per second | 200 |",
        "stop",
    ):
        assert said in text
    assert "````text\n```python\nx = 1\n```\n````" in text


@pytest.mark.parametrize("text", ["plain", "```\ncode\n```", "``````", "ends with ```", "", "~~~"])
def test_no_answer_can_end_its_fence(text: str) -> None:
    block = fenced(text)
    fence = re.match(r"`+", block)
    assert fence
    first, *inside, last = block.split("\n")
    assert first == fence[0] + "text"
    assert last == fence[0]
    assert not any(fence[0] in line for line in inside)
    assert "\n".join(inside) == text


def test_the_report_page_sums_up_the_run() -> None:
    odd = record(
        nodeid="t.py::test_a[x|y]", outcome="skipped", reason="a | b", bounds=(bound("max_ttft", 5.0),)
    )
    text = report_text([full_record(), odd], header())
    for said in (
        "suites/ --gpu=h200",
        "node-1",
        "Python 3.12.3",
        f"## {H200}",
        "1 PASS, 0 FAIL, 2 NO VERDICT",
    ):
        assert said in text
    assert "| 316 (65 %) | PASS |" in text
    assert "skipped: a \\| b" in text
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


# ---- JUnit


def test_properties_are_scalars_with_the_percentile_in_the_name() -> None:
    found = dict(user_properties(full_record()))
    assert found["qwen.model"] == "Qwen/Qwen2.5-Coder-7B-Instruct"
    assert found["qwen.min_tokens_per_sec.verdict"] == "PASS"
    assert found["qwen.min_tokens_per_sec.ceiling"] == 316.0
    assert found["qwen.max_ttft.p95.limit"] == 500.0
    assert "qwen.min_tokens_per_sec.reason" not in found
    assert {type(value) for value in found.values()} <= {str, int, float}
    infinite = record(verdicts=(verdict(bound("max_ttft", 5.0), Outcome.FAIL, low=-math.inf, high=math.inf),))
    names = [name for name, _ in user_properties(infinite)]
    assert "qwen.max_ttft.estimate" in names
    assert not {"qwen.max_ttft.low", "qwen.max_ttft.high"} & set(names)
    assert user_properties(record(spec={})) == []


def test_properties_reach_the_junit_file(pytester: pytest.Pytester) -> None:
    pairs = user_properties(full_record())
    pytester.makepyfile(f"def test_a(request): request.node.user_properties.extend({pairs!r})")
    pytester.runpytest("--junitxml=out.xml", "-p", "no:qwen").assert_outcomes(passed=1)
    found = ElementTree.parse(pytester.path / "out.xml").iter("property")  # noqa: S314 - written just now
    assert {item.get("name"): item.get("value") for item in found} == {k: str(v) for k, v in pairs}
