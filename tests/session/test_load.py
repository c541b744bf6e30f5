"""Loads from a mark to the exit code: bounds on slices, errors, a client at its limit, searches, replay."""

from pathlib import Path

import pytest

from pytest_qwen.records import load_records

from .conftest import Run, text_of

WORKERS = pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "xdist"])
IMPORTS = "from pytest_qwen import max_error_rate, max_longest_gap, max_tpot, min_goodput\n"

# 16 users, 100 ms to the first token, 20 ms a token, requests that differ by a fifth
STEADY = (
    IMPORTS
    + """
@model("m", options={"request_jitter": ("iid", 0.2)})
@workload(concurrency=16, output_tokens=32)
@max_ttft(200, stat="p95")
@max_tpot(40)
@max_longest_gap(500)
@min_goodput(5)
@min_tokens_per_sec(300, scope="system")
def test_users(llm):
    llm.measure()
"""
)


@WORKERS
def test_a_load_is_judged_and_told(run: Run, workers: tuple[str, ...], tmp_path: Path) -> None:
    result = run(STEADY, f"--qwen-report={tmp_path / 'report'}", *workers)
    text = text_of(result)
    result.assert_outcomes(passed=1)
    for bound in ("max_ttft p95", "max_longest_gap", "min_goodput", "max_error_rate ≤ 0"):
        assert bound in text
    assert "qwen: loads" in text
    assert "steady state: " in text
    page = (tmp_path / "report" / "report.md").read_text("utf-8")
    assert "## Loads" in page
    (record,) = load_records(tmp_path / "report")
    rounds = record.measurements[0].clean_rounds
    assert all(len(seen.streams) >= 20 and not seen.token_ms for seen in rounds)
    assert record.measurements[0].observed["full_seconds"] > sum(seen.seconds for seen in rounds)


def test_a_recorded_load_is_judged_again_by_the_same_numbers(run: Run, tmp_path: Path) -> None:
    report = tmp_path / "report"
    run(STEADY, f"--qwen-report={report}").assert_outcomes(passed=1)
    stricter = STEADY.replace("max_ttft(200", "max_ttft(90")
    result = run(stricter, f"--qwen-replay={report}")
    result.assert_outcomes(failed=1)
    assert "FAIL max_ttft: p95 ≤ 90 ms" in text_of(result)


def test_one_error_fails_a_test_that_says_nothing_of_errors(run: Run) -> None:
    source = """
        @workload(concurrency=4, output_tokens=16)
        @max_ttft(500)
        @model("m", options={"error_share": 0.1})
        def test_errors(llm):
            llm.measure()
    """
    result = run(source)
    result.assert_outcomes(failed=1)
    text = text_of(result)
    assert "PASS max_ttft" not in text
    assert "requests failed (" in text
    assert "http-error (status 500 (programmed))" in text


def test_an_allowed_error_rate_is_an_exact_test_over_all_requests(run: Run) -> None:
    source = IMPORTS + (
        '@workload(concurrency=16, output_tokens=16)\n@max_error_rate({limit})\n@max_tpot(40, stat="p95")\n'
        '@model("m", options={{"error_share": 0.1}})\ndef test_errors(llm): llm.measure()\n'
    )
    run(source.format(limit=0.25)).assert_outcomes(passed=1)
    result = run(source.format(limit=0.02))
    result.assert_outcomes(failed=1)
    assert "FAIL max_error_rate: ≤ 0.02 of the requests" in text_of(result)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"held_ratio": 0.97}, "the client held less of the load than was asked"),
        ({"lag_ms": 6.0}, "the client's event loop lagged"),
        ({"cached_share": 0.5}, "the server answered from its prefix cache"),
    ],
)
def test_the_client_at_its_limit_withdraws_the_verdict_and_shows_the_number(
    run: Run, options: dict[str, float], reason: str
) -> None:
    source = f"""
        @workload(concurrency=4, output_tokens=16)
        @max_ttft(500)
        @model("m", options={options})
        def test_it(llm):
            llm.measure()
    """
    result = run(source)
    result.assert_outcomes(failed=1)
    assert f"NO VERDICT max_ttft: median ≤ 500 ms: measured 100 ms in 25 rounds; {reason}" in text_of(result)


def test_without_usage_only_the_bounds_on_tokens_have_no_verdict(run: Run) -> None:
    source = IMPORTS + (
        "@workload(concurrency=4, output_tokens=16)\n@max_ttft(500)\n@max_tpot(40)\n"
        '@model("m", options={"no_usage": True})\ndef test_it(llm): llm.measure()\n'
    )
    result = run(source, "--qwen-no-verdict=skip")
    result.assert_outcomes(skipped=1)
    text = text_of(result)
    assert "the server does not say how many tokens it sent" in text
    assert "2 PASS, 0 FAIL, 1 NO VERDICT" in text


def test_several_tokens_a_chunk_are_counted_right_and_no_inter_token_latency(run: Run) -> None:
    source = IMPORTS + (
        "@workload(concurrency=4, output_tokens=32)\n@max_tpot(20.001)\n@max_itl(40)\n"
        '@model("m", options={"tokens_a_chunk": 4})\ndef test_it(llm): llm.measure()\n'
    )
    result = run(source)
    result.assert_outcomes(failed=1)
    text = text_of(result)
    assert "the server sends several tokens in a chunk); the median gap between chunks is 80 ms" in text
    assert "2 PASS, 0 FAIL, 1 NO VERDICT" in text


def test_a_stall_of_one_stream_is_seen(run: Run) -> None:
    source = IMPORTS + (
        "@workload(concurrency=16, output_tokens=32)\n@max_tpot(40)\n@max_longest_gap(1000)\n"
        '@model("m", options={"stall_ms": 2000.0})\ndef test_it(llm): llm.measure()\n'
    )
    result = run(source)
    result.assert_outcomes(failed=1)
    assert "FAIL max_longest_gap: ≤ 1000 ms: observed 2020 ms" in text_of(result)


SEARCH = (
    IMPORTS
    + """
@model("m", options={"capacity": 8.0, "request_jitter": ("iid", 0.05)})
@workload(output_tokens=8)
@max_tpot(40)
def test_capacity(llm):
    found = llm.highest(concurrency=(1, 64), budget_s=400)
    assert 12 < found.value < 16
    assert found.resolved
"""
)


def test_the_highest_concurrency_is_found_shown_and_found_again(run: Run, tmp_path: Path) -> None:
    report = tmp_path / "report"
    result = run(SEARCH, f"--qwen-report={report}")
    result.assert_outcomes(passed=1)
    text = text_of(result)
    assert "qwen: highest loads" in text
    assert "highest concurrency that meets every bound: " in text
    assert "## Highest loads" in (report / "report.md").read_text("utf-8")
    run(None, f"--qwen-replay={report}").assert_outcomes(passed=1)
    laxer = SEARCH.replace("max_tpot(40)", "max_tpot(80)").replace(
        "12 < found.value < 16", "found.value == 16"
    )
    laxer = laxer.replace("    assert found.resolved\n", "")
    run(laxer, f"--qwen-replay={report}").assert_outcomes(passed=1)


def test_a_search_that_finds_nothing_fails_with_the_lowest_level(run: Run) -> None:
    source = """
        @workload(output_tokens=32)
        @max_ttft(50)
        def test_capacity(llm):
            found = llm.highest(request_rate=(5, 50))
            assert found.value is None
    """
    result = run(source)
    result.assert_outcomes(failed=1)
    text = text_of(result)
    assert "FAIL max_ttft: median ≤ 50 ms" in text
    assert "no level (5 req/s was not shown to meet every bound)" in text


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        ("llm.highest()", "wants one of concurrency and request_rate"),
        ("llm.highest(concurrency=(1, 8), request_rate=(1, 2))", "wants one of concurrency and request_rate"),
        ("llm.highest(concurrency=(8, 1))", "wants a range of levels"),
        ("llm.highest(concurrency=(1, 2.5))", "wants a range of levels"),
        ("llm.highest(concurrency=16)", "wants a range of levels"),
        ("llm.measure(concurrency=0)", "is not a whole number above 0"),
        ("llm.measure(turns=2)", "belongs to a load"),
    ],
)
def test_calls_that_make_no_sense(run: Run, call: str, problem: str) -> None:
    result = run(f"@max_ttft(500)\ndef test_it(llm):\n    {call}\n")
    result.assert_outcomes(failed=1)
    assert problem in text_of(result)


def test_a_search_wants_a_bound(run: Run) -> None:
    result = run("def test_it(llm):\n    llm.highest(concurrency=(1, 8))\n")
    result.assert_outcomes(failed=1)
    assert "and it has none" in text_of(result)


def test_a_load_by_call_replaces_the_marks_kind_of_load(run: Run) -> None:
    source = """
        @workload(concurrency=4, output_tokens=16)
        @max_ttft(500)
        def test_it(llm):
            found = llm.measure(request_rate=20.0, requests_per_round=12)
            assert all(len(seen.streams) >= 12 for seen in found.clean_rounds)
    """
    run(source).assert_outcomes(passed=1)


def test_a_load_on_an_engine_that_serves_nobody_is_misuse_before_anything_is_loaded(run: Run) -> None:
    source = """
        @model("embedded/qwen2-tiny", engine="transformers")
        @workload(concurrency=4)
        def test_it(llm):
            llm.measure()
    """
    result = run(source)
    result.assert_outcomes(errors=1)
    text = text_of(result)
    assert "engine 'transformers' answers one batch at a time: it cannot be put under a load" in text
    assert "concurrency=4" in text


def test_a_dead_engine_keeps_what_was_measured_of_its_load(run: Run, tmp_path: Path) -> None:
    source = """
        @workload(concurrency=4, output_tokens=16)
        @max_ttft(500, stat="p95")
        @model("m", options={"fault": "die@7"})
        def test_it(llm):
            llm.measure()
    """
    result = run(source, f"--qwen-report={tmp_path}")
    result.assert_outcomes(failed=1)
    (record,) = load_records(tmp_path)
    assert len(record.measurements[0].rounds) == 6
    assert record.measurements[0].rounds[-1].streams


def test_a_load_can_be_calibrated(run: Run) -> None:
    text = text_of(run(STEADY, "--qwen-calibrate=2"))
    assert "max_ttft: p95 ≤ 200 ms\n  2 processes of 20 rounds" in text


def test_two_servers_that_answer_differently_are_told_apart(run: Run) -> None:
    source = """
        @model("m", options={"served": True, "itl_ms": 10.0, "text": "one two "})
        @workload(output_tokens=8)
        def test_it(compare):
            found = compare(vs={"options": {"served": True, "itl_ms": 20.0, "text": "three four "}})
            assert found.agreement == 0
            assert found.speedup > 1.5
            assert any("answers differently" in hint for hint in found.b.hints)

        @model("m", options={"served": True, "itl_ms": 10.0})
        def test_same(compare):
            assert compare(vs={"options": {"served": True, "itl_ms": 20.0}}).agreement == 1
    """
    run(source).assert_outcomes(passed=2)
