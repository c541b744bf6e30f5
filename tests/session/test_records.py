"""What a session leaves: report files, JUnit properties, replay, baseline, calibration; and folders that fail."""

import json
import os
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .conftest import Run, text_of

WORKERS = pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "xdist"])

MEASURED = """
    OPTIONS = {{"load_log": {log!r}, "jitter": ("iid", 0.02), "itl_ms": {itl_ms}}}
    pytestmark = model("m", options=OPTIONS)

    @max_ttft({ttft_ms})
    def test_answer(llm):
        assert {word!r} in llm.generate("Write").text

    @min_tokens_per_sec(30)
    {more}
    def test_rate(llm):
        llm.measure()

    def test_plain():
        pass
"""


def measured(
    log: object, ttft_ms: float = 500, word: str = "def", itl_ms: float = 20.0, more: str = ""
) -> str:
    return MEASURED.format(log=str(log), ttft_ms=ttft_ms, word=word, itl_ms=itl_ms, more=more)


@WORKERS
def test_a_report_has_records_table_and_answers(
    run: Run, pytester: pytest.Pytester, load_log: Callable[[], list[str]], workers: tuple[str, ...]
) -> None:
    result = run(measured(load_log.path), "--qwen-report=out", *workers)
    result.assert_outcomes(passed=3)
    text = text_of(result)
    out = pytester.path / "out"
    for name in ("records.json", "summary.csv", "report.md"):
        assert f"out/{name}" in text
        assert (out / name).stat().st_size > 0
    assert not (out / "records.jsonl").exists()
    stored = json.loads((out / "records.json").read_text())["records"]
    assert sorted(r["nodeid"].rpartition("::")[2] for r in stored) == ["test_answer", "test_rate"]
    assert {v["outcome"] for r in stored for v in r["verdicts"]} == {"PASS"}
    assert len(list(out.glob("**/*.md"))) > 1


def test_junit_properties_carry_the_verdict(run: Run, pytester: pytest.Pytester) -> None:
    run(measured(""), "--junitxml=junit.xml")
    cases = ET.parse(pytester.path / "junit.xml").getroot().iter("testcase")  # noqa: S314 - our own file
    found = {
        case.get("name"): {p.get("name"): p.get("value") for p in case.iter("property")} for case in cases
    }
    assert found["test_rate"]["qwen.model"] == "m"
    assert found["test_rate"]["qwen.min_tokens_per_sec.verdict"] == "PASS"
    assert float(found["test_rate"]["qwen.min_tokens_per_sec.estimate"]) == pytest.approx(50, rel=0.05)
    assert found["test_plain"] == {}


@WORKERS
def test_replay_judges_the_stored_evidence_again_and_loads_nothing(
    run: Run, load_log: Callable[[], list[str]], workers: tuple[str, ...]
) -> None:
    run(measured(load_log.path), "--qwen-report=out")
    loads = load_log()
    assert loads == ["m"]
    same = run(measured(load_log.path), "--qwen-replay=out", *workers)
    same.assert_outcomes(passed=3)
    stricter = run(measured(load_log.path, ttft_ms=50), "--qwen-replay=out", *workers)
    stricter.assert_outcomes(passed=2, failed=1)
    assert "FAIL max_ttft: median ≤ 50 ms: measured " in text_of(stricter)
    quality = run(measured(load_log.path, word="class"), "--qwen-replay=out", *workers)
    quality.assert_outcomes(passed=2, failed=1)
    assert "assert 'class' in" in text_of(quality)
    assert load_log() == loads


def test_replay_of_a_bound_that_was_added_later(run: Run, load_log: Callable[[], list[str]]) -> None:
    run(measured(load_log.path), "--qwen-report=out")
    result = run(measured(load_log.path, more="@max_itl(5)"), "--qwen-replay=out", "--gpu=h100")
    result.assert_outcomes(passed=2, failed=1)
    assert "FAIL max_itl: median ≤ 5 ms" in text_of(result)


def test_replay_of_a_test_that_is_not_in_the_records_or_was_skipped_there(run: Run) -> None:
    source = """
        pytestmark = model("m")

        @gpu("h100")
        @max_ttft(500)
        def test_elsewhere(llm): llm.measure()
        {more}
    """
    run(source.format(more=""), "--qwen-report=out", process=True).assert_outcomes(skipped=1)
    more = "\n        @max_ttft(500)\n        def test_new(llm): llm.measure()"
    result = run(source.format(more=more), "--qwen-replay=out", "-rs", process=True)
    result.assert_outcomes(skipped=1, errors=1)
    text = text_of(result)
    assert "this test is not in the records that are judged again" in text
    assert "skipped when it was recorded: wants gpu h100" in text


def test_replay_of_a_comparison_loads_no_other_side(run: Run, load_log: Callable[[], list[str]]) -> None:
    source = f"""
        LOG = {{"load_log": {str(load_log.path)!r}, "jitter": ("iid", 0.01)}}

        @model("m", options=LOG)
        def test_it(compare):
            assert compare(vs={{"options": LOG | {{"itl_ms": 40.0}}}}).speedup > 1.8
    """
    run(source, "--qwen-report=out").assert_outcomes(passed=1)
    assert load_log() == ["m", "m"]
    run(source, "--qwen-replay=out").assert_outcomes(passed=1)
    assert load_log() == ["m", "m"]


SLOWDOWN = "@max_slowdown(1.2)"


@WORKERS
def test_a_baseline_that_is_met_missed_and_missing(run: Run, workers: tuple[str, ...]) -> None:
    run(measured(""), "--qwen-report=base")
    met = run(measured("", more=SLOWDOWN), "--qwen-baseline=base", "--qwen-report=next", *workers)
    met.assert_outcomes(passed=3)
    missed = run(measured("", more=SLOWDOWN, itl_ms=28.0), "--qwen-baseline=base", *workers)
    missed.assert_outcomes(passed=2, failed=1)
    assert "FAIL max_slowdown: median ≤ 1.2 ratio: measured 1." in text_of(missed)
    missing = run(measured("", more=SLOWDOWN), *workers)
    missing.assert_outcomes(passed=2, errors=1)
    assert "max_slowdown compares with a baseline, and none was given" in text_of(missing)


def test_a_slowdown_against_a_baseline_can_be_replayed(run: Run) -> None:
    run(measured(""), "--qwen-report=base")
    run(measured("", more=SLOWDOWN), "--qwen-baseline=base", "--qwen-report=next").assert_outcomes(passed=3)
    run(measured("", more=SLOWDOWN), "--qwen-replay=next").assert_outcomes(passed=3)
    stricter = run(measured("", more="@max_slowdown(0.5)"), "--qwen-replay=next")
    stricter.assert_outcomes(passed=2, failed=1)
    assert "FAIL max_slowdown" in text_of(stricter)


def test_a_baseline_of_another_device_is_no_baseline(run: Run, pytester: pytest.Pytester) -> None:
    run(measured(""), "--qwen-report=base")
    file = pytester.path / "base" / "records.json"
    stored = json.loads(file.read_text())
    for record in stored["records"]:
        record["device"]["alias"] = "l4"
    file.write_text(json.dumps(stored))
    result = run(measured("", more=SLOWDOWN), "--qwen-baseline=base")
    result.assert_outcomes(passed=2, errors=1)
    assert "the baseline has nothing to compare this test with" in text_of(result)


def test_calibration_prints_spread_false_fails_and_a_proposed_bound(
    run: Run, load_log: Callable[[], list[str]]
) -> None:
    result = run(measured(load_log.path), "--qwen-calibrate=3")
    text = text_of(result)
    result.assert_outcomes(passed=1, skipped=2)
    assert result.ret == pytest.ExitCode.OK
    assert "qwen: calibration of test_calibration" in text
    for word in ("3 processes of 20 rounds", "spread within a process", "falsely fails", "smallest change"):
        assert word in text
    assert len(load_log()) >= 5  # three processes for each of two tests, one shared


# ---- folders that cannot be written

NO_FOLDER = "the report folder cannot be written"


@WORKERS
def test_a_report_path_that_is_a_file_is_a_usage_error(
    run: Run, pytester: pytest.Pytester, workers: tuple[str, ...]
) -> None:
    (pytester.path / "out").write_text("mine")
    result = run(measured(""), "--qwen-report=out", *workers, process=True)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert text_of(result).count(NO_FOLDER) == 1
    assert (pytester.path / "out").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
@WORKERS
def test_a_report_folder_without_permission_is_a_usage_error(
    run: Run, pytester: pytest.Pytester, workers: tuple[str, ...]
) -> None:
    (pytester.path / "out").mkdir(mode=0o500)
    result = run(measured(""), "--qwen-report=out", *workers, process=True)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert text_of(result).count(NO_FOLDER) == 1


def test_a_folder_that_even_root_cannot_write_is_a_usage_error(run: Run) -> None:
    result = run(measured(""), "--qwen-report=/proc/qwen", process=True)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert text_of(result).count(NO_FOLDER) == 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB; mounting takes root's rights."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no file system of a fixed size: {mounted.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def many_answers(folder: object, log: object = "") -> str:
    return f"""
        @model("m", options={{"text": "word " * 2000, "itl_ms": 1.0, "load_log": {str(log)!r}}})
        @max_ttft(500)
        @pytest.mark.parametrize("n", range(12))
        def test_it(llm, n):
            llm.generate("Write", output_tokens=2000)
    """


@WORKERS
def test_a_full_disk_keeps_what_was_measured_and_the_tests_outcome(
    run: Run, small_disk: Path, load_log: Callable[[], list[str]], workers: tuple[str, ...]
) -> None:
    result = run(
        many_answers(small_disk, load_log.path), f"--qwen-report={small_disk}", *workers, process=True
    )
    result.assert_outcomes(passed=12)
    assert result.ret == pytest.ExitCode.OK
    text = text_of(result)
    assert text.count("is incomplete: No space left on device") == 1
    loads = load_log()
    if (small_disk / "records.jsonl").exists():
        again = run(None, f"--qwen-replay={small_disk}", process=True)
        assert again.parseoutcomes()["passed"] >= 1
        assert load_log() == loads
