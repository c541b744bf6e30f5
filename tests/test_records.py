"""Records: the round trip, plain data, versions, damaged files, and judging again."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
from record_samples import a_round, bound, full_record, record, verdict

from pytest_qwen.engines.base import Loaded, LoadSpec
from pytest_qwen.errors import Misuse
from pytest_qwen.evidence import Measurement
from pytest_qwen.outcomes import Fault, Outcome
from pytest_qwen.records import JOURNAL_NAME, RUN_NAME, VERSION, from_json, load_records, plain, to_json


def through_json(data: dict[str, Any]) -> Any:
    return json.loads(json.dumps(data, allow_nan=False))


def plain_types(value: object) -> set[type]:
    if type(value) is dict:
        return (
            {dict} | {type(key) for key in value} | {t for item in value.values() for t in plain_types(item)}
        )
    if type(value) is list:
        return {list} | {t for item in value for t in plain_types(item)}
    return {type(value)}


@pytest.mark.parametrize("made", [record(), full_record(), record(outcome="skipped", fault=Fault.MACHINE)])
def test_round_trip_is_exact(made: Any) -> None:
    assert from_json(through_json(to_json(made))) == made


def test_only_plain_types() -> None:
    assert plain_types(to_json(full_record())) <= {dict, list, str, int, float, bool, type(None)}


def test_crosses_execnet() -> None:
    gateway = pytest.importorskip("execnet.gateway_base", reason="execnet comes with pytest-xdist")
    data = to_json(full_record())
    assert gateway.loads(gateway.dumps(data)) == data

    class Word(StrEnum):
        A = "a"

    odd = {"word": Word.A, 3: (1, float("nan")), "broken": "\ud800", "path": Path("x")}
    assert gateway.loads(gateway.dumps(plain(odd))) == {
        "word": "a",
        "3": [1, None],
        "broken": "\\ud800",
        "path": "x",
    }


def test_infinite_ends_are_null_beside_an_estimate() -> None:
    made = record(verdicts=(verdict(bound("max_ttft", 1.0), low=-math.inf, high=math.inf),))
    data = to_json(made)["verdicts"][0]
    assert (data["estimate"], data["low"], data["high"]) == (205.25, None, None)
    read = from_json(to_json(made)).verdicts[0]
    assert (read.low, read.high) == (-math.inf, math.inf)


def test_a_metric_that_is_not_finite_is_absent_after_reading() -> None:
    odd = a_round(0, metrics={"ttft_ms": 1.0, "usd_per_mtok": math.inf, "mbu_ratio": math.nan})
    read = from_json(through_json(to_json(record(measurements=(Measurement(rounds=(odd,)),)))))
    assert read.measurements[0].rounds[0].metrics == {"ttft_ms": 1.0}


@pytest.mark.parametrize("version", ["pytest-qwen-record/2", None])
def test_another_version_is_refused(version: str | None) -> None:
    with pytest.raises(Misuse, match="pytest-qwen-record/1"):
        from_json({**to_json(record()), "version": version})


def test_no_record_is_refused() -> None:
    with pytest.raises(Misuse, match="list"):
        from_json([])


@pytest.mark.parametrize("name", ["nodeid", "outcome"])
def test_a_missing_field_is_named(name: str) -> None:
    data = to_json(record())
    del data[name]
    with pytest.raises(Misuse, match=name):
        from_json(data)


def test_unknown_fields_are_ignored_at_every_depth() -> None:
    made = full_record()
    data = to_json(made)
    for place in (
        data,
        data["bounds"][0],
        data["verdicts"][0],
        data["verdicts"][0]["bound"],
        data["measurements"][0],
        data["measurements"][0]["rounds"][2],
        data["measurements"][0]["rounds"][2]["window"],
        data["generations"][0],
    ):
        place["of_a_later_version"] = 1
    assert from_json(data) == made


def test_spec_and_load_come_back_as_values() -> None:
    spec = LoadSpec(engine="fake", model="m", options=(("jitter", ("iid", 0.03)),))
    loaded = Loaded(load_s=1.0, applied=("static",), versions={"torch": "2"}, config={"layers": [1, 2]})
    read = from_json(through_json(to_json(record(spec=plain(spec), loaded=plain(loaded)))))
    assert read.load_spec() == spec
    assert read.load_spec().key == spec.key
    assert hash(read.load_spec()) == hash(spec)
    assert read.load_result() == loaded


def test_measurement_for_a_bound() -> None:
    own = Measurement(rounds=(a_round(0),))
    pair = Measurement(rounds=(replace(a_round(0), metrics={"tpot_ms": 5.0, "slowdown_ratio": 1.1}),))
    speed, slower = bound("max_tpot", 6.0), bound("max_slowdown", 1.2)
    made = record(measurements=(own, pair))
    assert made.measurement_for(speed) is own
    assert made.measurement_for(slower) is pair
    assert record(measurements=(pair,)).measurement_for(speed) is pair
    assert record().measurement_for(speed) is None


def test_judging_again_gives_the_same_verdicts() -> None:
    judge = pytest.importorskip("pytest_qwen.judge").judge
    asked = (
        bound("min_tokens_per_sec", 100.0),
        bound("min_tokens_per_sec", 400.0),
        bound("max_ttft", 20.0, "p95"),
    )
    bounds = (*asked, bound("max_load_time", 60.0))
    made = replace(full_record(), bounds=bounds, alpha=0.02)
    judged = tuple(
        judge(b, made.measurement_for(b), alpha=made.alpha, ceilings=made.ceilings) for b in made.bounds
    )
    read = from_json(through_json(to_json(replace(made, verdicts=judged))))
    again = tuple(
        judge(b, read.measurement_for(b), alpha=read.alpha, ceilings=read.ceilings) for b in read.bounds
    )
    assert again == judged == read.verdicts
    assert [v.outcome for v in again] == [Outcome.PASS, Outcome.FAIL, Outcome.NO_VERDICT, Outcome.PASS]


# ---- files


def journal(folder: Path, *made: Any, tail: str = "") -> Path:
    file = folder / JOURNAL_NAME
    file.write_text("".join(json.dumps(to_json(m)) + "\n" for m in made) + tail, encoding="utf-8")
    return file


def test_a_journal_is_read_from_file_or_folder(tmp_path: Path) -> None:
    made = (record(), full_record())
    file = journal(tmp_path, *made)
    assert load_records(file) == load_records(tmp_path) == made


def test_a_cut_last_line_costs_only_itself(tmp_path: Path) -> None:
    whole = json.dumps(to_json(record()))
    journal(tmp_path, full_record(), tail=whole[: len(whole) // 2])
    told: list[str] = []
    assert load_records(tmp_path, on_warning=told.append) == (full_record(),)
    assert len(told) == 1
    assert "line 2 was cut off" in told[0]
    with pytest.warns(UserWarning, match="line 2 was cut off"):
        load_records(tmp_path)


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    file = journal(tmp_path, record(), tail="{nonsense}\n")
    with pytest.raises(Misuse, match=r"damaged at line 2(.|\n)*1 records before"):
        load_records(file)


def test_a_line_of_another_version_is_named(tmp_path: Path) -> None:
    journal(tmp_path, record(), tail=json.dumps({"version": "x/9"}) + "\n")
    with pytest.raises(Misuse, match=r"line 2 \(1 before it are readable\)(.|\n)*x/9"):
        load_records(tmp_path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"version": "pytest-qwen-run/1", "records": [\n', "damaged at line 2"),
        ("", "damaged at line 1"),
        ('{"version": "other"}', "pytest-qwen-run/1"),
        ("[]", "pytest-qwen-run/1"),
        ('{"version": "pytest-qwen-run/1", "records": [{}]}', r"record 1 \(0 before"),
    ],
)
def test_a_damaged_run_file_is_explained(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / RUN_NAME).write_text(text, encoding="utf-8")
    with pytest.raises(Misuse, match=says):
        load_records(tmp_path)


def test_nothing_to_read_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="--qwen-report"):
        load_records(tmp_path)
    with pytest.raises(Misuse, match="no records to read"):
        load_records(tmp_path / "missing")


def test_the_version_is_written() -> None:
    assert to_json(record())["version"] == VERSION
