"""Endpoints through the plugin: options, the default engine, records without keys, nothing green that measured nothing."""

from __future__ import annotations

import pytest
from scripted_server import Script, plain, serving

from pytest_qwen.testing import MockServer

KEY = "sk-do-not-show-me"
LOAD = """
from pytest_qwen import max_ttft, workload

@max_ttft(500)
@workload(prompt_tokens=16, output_tokens=4, concurrency=4)
def test_load(llm):
    llm.measure()
"""
ONE = """
from pytest_qwen import max_ttft, model

@max_ttft(500)
def test_one(llm):
    assert llm.generate("Say hello.", output_tokens=4).text
"""


def test_a_load_and_a_single_answer_are_judged_and_the_key_is_nowhere(pytester, monkeypatch):
    monkeypatch.setenv("TEAM_KEY", KEY)
    pytester.makepyfile(test_load=LOAD, test_one=ONE)
    with MockServer(ttft_ms=5, gap_ms=1, api_key=KEY) as server:
        result = pytester.runpytest_subprocess(
            f"--qwen-endpoint={server.url}", "--qwen-api-key-env=TEAM_KEY", "--qwen-report=report", "-vv"
        )
    result.assert_outcomes(passed=2)
    written = [file for file in pytester.path.rglob("*") if file.is_file()]
    assert any(file.suffix == ".json" for file in written)
    shown = result.stdout.str() + result.stderr.str()
    assert KEY not in shown
    assert "TEAM_KEY" in shown
    for file in written:
        assert KEY.encode() not in file.read_bytes(), file


@pytest.mark.parametrize("test", [LOAD, ONE])
def test_a_refused_key_fails_with_the_variable_and_without_the_key(pytester, monkeypatch, test):
    monkeypatch.setenv("PYTEST_QWEN_API_KEY", KEY)
    pytester.makepyfile(test)
    refused = plain({"error": {"message": f"Incorrect API key provided: {KEY}"}}, 401)
    with serving(Script(models=refused)) as url:
        result = pytester.runpytest_subprocess(f"--qwen-endpoint={url}")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*the endpoint refuses the API key*"])
    result.stdout.fnmatch_lines(["*PYTEST_QWEN_API_KEY*"])
    assert KEY not in result.stdout.str() + result.stderr.str()


def test_an_endpoint_that_is_not_there_fails_and_does_not_skip(pytester):
    pytester.makepyfile(LOAD)
    result = pytester.runpytest_subprocess("--qwen-endpoint=http://127.0.0.1:1")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*the endpoint cannot be reached*", "*nothing listens there*"])
    assert "skipped" not in result.parseoutcomes()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--qwen-endpoint=host:8000",), "http:// in front of it?"),
        (("--qwen-endpoint=https://user:hunter2@host/v1",), "must not carry a user name or password"),
        (
            ("--qwen-endpoint=http://h", f"--qwen-api-key-env={KEY}"),
            "wants the name of an environment variable",
        ),
        (
            ("--qwen-endpoint=http://h", "--qwen-api-key-env=NOT_SET_ANYWHERE"),
            "environment variable that is set",
        ),
    ],
)
def test_wrong_options_end_the_run_at_once(pytester, options, words):
    pytester.makepyfile(ONE)
    result = pytester.runpytest_subprocess(*options)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    said = result.stderr.str()
    assert words in said
    assert "hunter2" not in said
    assert KEY not in said


def test_a_card_behind_an_endpoint_need_not_be_in_this_machine(pytester):
    pytester.makepyfile(
        """
        from pytest_qwen import gpu, max_ttft, workload

        @gpu("h100")
        @max_ttft(500)
        @workload(prompt_tokens=16, output_tokens=4)
        def test_it(llm):
            llm.measure()
        """
    )
    with MockServer(ttft_ms=5, gap_ms=1) as server:
        result = pytester.runpytest_subprocess(f"--qwen-endpoint={server.url}", "--gpu=h100")
    result.assert_outcomes(passed=1)
