"""Engines of other packages: registered by hook, found by name, and never skipped when they are not there."""

import pytest

from pytest_qwen import engines

CONFTEST = """
def pytest_qwen_register_engines():
    return {{{name!r}: {target!r}}}
"""
TEST = """
from pytest_qwen import min_tokens_per_sec, model

@model("any", engine={name!r})
@min_tokens_per_sec(30)
def test_it(llm):
    assert llm.generate("Say hello.").text == "mine"
"""
ENGINE = """
from dataclasses import replace
from pytest_qwen.testing import FakeEngine

class Mine(FakeEngine):
    def run(self, request, on_token=None):
        return replace(super().run(request, on_token), texts=("mine",) * request.batch_size)
"""


@pytest.fixture(autouse=True)
def _own_register(monkeypatch):
    monkeypatch.setattr(engines, "_TARGETS", dict(engines._TARGETS))


def run(pytester, name: str, target: str) -> pytest.RunResult:
    pytester.makeconftest(CONFTEST.format(name=name, target=target))
    pytester.makepyfile(my_engine=ENGINE, test_sla=TEST.format(name=name))
    return pytester.runpytest_subprocess("--gpu=cpu")


def test_an_engine_of_a_conftest_runs(pytester, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(pytester.path), prepend=":")
    run(pytester, "mine", "my_engine:Mine").assert_outcomes(passed=1)


def test_an_engine_that_cannot_be_imported_fails_instead_of_skipping(pytester):
    result = run(pytester, "mine", "no_such_module_here:Mine")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["the engine cannot be imported"])
    assert "skipped" not in result.parseoutcomes()


def test_a_taken_name_ends_the_run_at_once(pytester):
    result = run(pytester, "fake", "my_engine:Mine")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*engine name 'fake' is taken*"])
