"""Tests that rate, where nothing can be run: one clear message each, no star invented."""

from __future__ import annotations

import fake_docker
import pytest

from pytest_qwen.sandbox import engines

from .conftest import Run, text_of

pytest.importorskip("docker.api", reason="needs the Docker SDK")  # once, not anew in every inner session

WORKERS = pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "xdist"])

BOUND = """
    from pytest_qwen import min_pass_at_k, min_stars

    @min_stars(4)
    def test_bound(rate):
        rate("an answer")

    def test_told(rate):
        rate("an answer")

    def test_plain():
        pass
"""


@pytest.fixture(autouse=True)
def _no_engine_of_this_machine(monkeypatch: pytest.MonkeyPatch, pytester: pytest.Pytester) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere.sock")
    monkeypatch.setattr(engines, "_there", engines._there)  # put back after a run in this process
    pytester.makeconftest(
        "from pathlib import Path\n"
        "from pytest_qwen.sandbox import engines\n"
        "engines._there = lambda path: path == Path('/tmp/of-another-project')"
    )


def starless(result: pytest.RunResult) -> str:
    text = text_of(result)
    assert "★" not in text
    assert "qwen: stars" not in text
    assert "\x1b[31m" not in text
    return text


@WORKERS
def test_without_an_engine_a_run_that_names_none_skips_in_one_line(
    run: Run, workers: tuple[str, ...]
) -> None:
    result = run(BOUND, "-rs", *workers, process=True)
    result.assert_outcomes(skipped=2, passed=1)
    assert result.ret == pytest.ExitCode.OK
    text = starless(result)
    reasons = [line for line in text.splitlines() if line.startswith("SKIPPED")]
    assert len(reasons) == 2
    for reason in reasons:
        assert "no container engine can be used" in reason
        assert "unix:///nowhere.sock: there is no such socket" in reason
        assert "next step: install Docker or Podman" in reason


def test_a_cpu_is_named_to_go_without_a_gpu_not_without_an_engine(run: Run) -> None:
    result = run(BOUND, "--gpu=cpu", "-rs", process=True)
    result.assert_outcomes(skipped=2, passed=1)
    assert result.ret == pytest.ExitCode.OK


@WORKERS
def test_a_named_engine_that_is_not_there_fails_what_has_bounds(run: Run, workers: tuple[str, ...]) -> None:
    result = run(BOUND, "--qwen-sandbox=unix:///nowhere.sock", "-rs", *workers, process=True)
    result.assert_outcomes(errors=1, skipped=1, passed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    text = starless(result)
    assert "no container engine can be used, so no generated program is run" in text
    assert "found: unix:///nowhere.sock: there is no such socket" in text
    assert "0 PASS, 0 FAIL, 0 NO VERDICT" in text


@WORKERS
def test_without_the_sdk_nothing_skips(run: Run, pytester: pytest.Pytester, workers: tuple[str, ...]) -> None:
    pytester.makeconftest("import sys\nsys.modules['docker'] = None")
    result = run(BOUND, *workers, process=True)
    result.assert_outcomes(errors=2, passed=1)
    text = starless(result)
    assert "the package that talks to container engines is not installed" in text
    assert "pip install 'pytest-qwen[sandbox]'" in text


PERMISSION = """
    import socket

    class Refused(socket.socket):
        def connect(self, address):
            if isinstance(address, str):
                raise PermissionError(13, "Permission denied")
            return super().connect(address)

    socket.socket = Refused
"""


def test_a_socket_that_the_user_may_not_use(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makeconftest(PERMISSION)
    with fake_docker.pretended_engine(fake_docker.WITHOUT_IMAGE) as address:
        result = run(BOUND, f"--qwen-sandbox={address}", process=True)
    result.assert_outcomes(errors=1, skipped=1, passed=1)
    text = starless(result)
    assert f"{address}: no permission to use this socket" in text
    assert "join its group, use a rootless engine, or run as root" in text


@pytest.mark.parametrize(
    ("answers", "wanted"),
    [
        (fake_docker.TOO_OLD, "its API is 1.24, 1.40 or newer is needed"),
        (fake_docker.WEB_SERVER, "no container engine answers there"),
        (fake_docker.FAILING, "no container engine answers there"),
        (fake_docker.LYING, "no container engine answers there"),
        (None, "no container engine answers there"),
        (fake_docker.WITHOUT_IMAGE, "the image that generated programs run in is not there"),
        (fake_docker.WITHOUT_IMAGE, "pytest-qwen sandbox build"),
    ],
    ids=["too old", "web server", "failing", "lying", "garbage", "no image", "how to build it"],
)
def test_an_engine_of_no_use_says_why(run: Run, answers: fake_docker.Answers | None, wanted: str) -> None:
    with fake_docker.pretended_engine(answers) as address:
        result = run(BOUND, f"--qwen-sandbox={address}")
    result.assert_outcomes(errors=1, skipped=1, passed=1)
    text = starless(result)
    assert wanted in text


def test_an_engine_that_breaks_down_is_no_reason_to_skip(run: Run) -> None:
    with fake_docker.pretended_engine(fake_docker.BROKEN_STORE) as address:
        result = run(BOUND, f"--qwen-sandbox={address}")
    result.assert_outcomes(errors=2, passed=1)
    text = starless(result)
    assert "the engine cannot say which images it has" in text
    assert "layer store is corrupt" in text


def test_the_message_is_the_same_under_xdist(run: Run) -> None:
    with fake_docker.pretended_engine(fake_docker.WITHOUT_IMAGE) as address:
        result = run(BOUND, f"--qwen-sandbox={address}", "-n", "2")
    result.assert_outcomes(errors=1, skipped=1, passed=1)
    assert "the image that generated programs run in is not there" in starless(result)


def test_a_word_that_names_no_engine_names_those_that_do(run: Run) -> None:
    result = run(BOUND, "--qwen-sandbox=/var/run/docker.sock", process=True)
    result.assert_outcomes(errors=2, passed=1)
    text = starless(result)
    assert "'/var/run/docker.sock' names no container engine" in text
    assert "an address begins with unix://: unix:///var/run/docker.sock" in text
    assert "valid: auto, docker, podman" in text


# ---- misuse that needs no engine to be found


@WORKERS
def test_misuse_of_marks_is_said_before_an_engine_is_looked_for(run: Run, workers: tuple[str, ...]) -> None:
    result = run(
        """
        from pytest_qwen import answer, min_pass_at_k, min_stars

        @min_stars(4)
        def test_without_rate(): pass

        @min_pass_at_k(0.5)
        def test_only_the_sandbox(sandbox): pass

        @min_stars(6)
        def test_too_many(rate): rate("x")

        @min_stars()
        def test_no_number(rate): rate("x")

        @min_stars(4, documentaton=3)
        def test_misspelt(rate): rate("x")

        @answer(scenario="fastapi-curd")
        def test_scenario(rate): rate("x")
        """,
        *workers,
        process=True,
    )
    result.assert_outcomes(errors=6)
    text = starless(result)
    assert text.count("a bound was set on a test that measures nothing") >= 2
    for part in (
        "the argument 'rate' is missing: def test_it(rate): ...",
        "overall=6 is not a whole number of stars from 0 to 5",
        "no least number of stars is given",
        "did you mean 'documentation'?",
        "there is no scenario 'fastapi-curd'",
        "did you mean 'fastapi-crud'?",
        "pytest_qwen_register_scenarios",
    ):
        assert part in text


def test_the_missing_fixture_is_named(run: Run) -> None:
    source = "from pytest_qwen import min_stars\n@min_stars(4)\ndef test_it(llm): pass"
    result = run(source)
    result.assert_outcomes(errors=1)
    assert "the argument 'rate' is missing" in starless(result)


def test_the_sandbox_fixture_skips_too(run: Run) -> None:
    result = run("def test_it(sandbox): pass", "-rs", process=True)
    result.assert_outcomes(skipped=1)
    assert "no container engine can be used" in starless(result)
