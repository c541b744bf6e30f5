"""Each configuration is loaded once, whatever the order in the file; everything else stays where it was."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import PREAMBLE, Run, text_of


def test_a_hundred_tests_over_three_configurations_are_three_loads(
    run: Run, load_log: Callable[[], list[str]]
) -> None:
    result = run(
        f"""
        LOG = {{"load_log": {str(load_log.path)!r}}}

        @pytest.mark.parametrize("n", range(100))
        class TestAll:
            def test_it(self, llm, n): llm.generate("a")

        def pytest_generate_tests(metafunc): pass
        """.replace(
            '@pytest.mark.parametrize("n", range(100))',
            '@pytest.mark.parametrize("n", [\n'
            "            pytest.param(n, marks=model('abc'[n % 3], options=LOG)) for n in range(100)\n"
            "        ])",
        )
    )
    result.assert_outcomes(passed=100)
    assert load_log() == ["a", "b", "c"]


def test_tests_of_one_load_come_together_and_the_others_keep_their_order(run: Run) -> None:
    result = run(
        """
        @model("a")
        def test_1(llm): pass
        def test_2(): pass
        @model("b")
        def test_3(llm): pass
        @max_ttft(3, 4)
        def test_4(llm): pass
        @model("a")
        def test_5(llm): pass
        def test_6(gpu): pass
        @model("b")
        def test_7(llm): pass
        """,
        "--collect-only",
        "-q",
    )
    ids = [line.rpartition("::")[2] for line in result.outlines if "::" in line]
    assert ids == ["test_1", "test_5", "test_2", "test_3", "test_7", "test_4", "test_6"]


def test_the_order_of_a_session_without_our_tests_is_untouched(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_b(): pass\ndef test_a(): pass\ndef test_c(): pass")
    result = pytester.runpytest_inprocess("-v")
    result.stdout.fnmatch_lines(["*test_b *", "*test_a *", "*test_c *"])


FAULTS = """
    LOG = {{"load_log": {log!r}}}
    pytestmark = model("m")

    @model(options=LOG)
    @max_ttft(500)
    def test_before(llm): llm.measure()

    @model(options=LOG | {{"fault": {fault!r}}})
    @max_ttft(500)
    def test_hurt(llm): llm.measure()

    @model(options=LOG | {{"fault": {fault!r}, "seed": 0}})
    @max_ttft(500)
    def test_same_load(llm): llm.generate("a")

    @model(options=LOG)
    @max_ttft(500)
    def test_after(llm): llm.measure()
"""


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("die@3", "the engine's process died during 'run': SIGKILL"),
        ("hang@3", "the engine hung: no answer to 'run' within 1 s"),
        ("cuda@3", "CUDA error: device-side assert triggered"),
        ("oom@3", "out of memory"),
        ("raise@3", "programmed failure"),
    ],
)
def test_a_fault_fails_its_test_and_the_next_one_gets_a_fresh_engine(
    run: Run, load_log: Callable[[], list[str]], fault: str, says: str
) -> None:
    result = run(FAULTS.format(log=str(load_log.path), fault=fault), "--qwen-run-timeout=1")
    text = text_of(result, engine_output=True)
    # test_same_load would meet the fault in its third run too: its own failure, with its own engine
    result.assert_outcomes(passed=2, failed=2)
    assert says in text
    assert load_log() == ["m", "m", "m"]


def test_a_fault_under_xdist_is_one_message(run: Run, load_log: Callable[[], list[str]]) -> None:
    result = run(FAULTS.format(log=str(load_log.path), fault="die@3"), "-n", "2")
    result.assert_outcomes(passed=2, failed=2)
    assert "the engine's process died during 'run': SIGKILL" in text_of(result)


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("missing", "the model was not found"),
        ("corrupt", "the model's weights are corrupt"),
        ("oom", "m in float32 does not fit CPU"),
        ("die", "the engine's process died during 'load'"),
    ],
)
def test_a_load_that_fails_says_why_and_a_hopeless_one_is_not_repeated(
    run: Run, load_log: Callable[[], list[str]], fault: str, says: str
) -> None:
    result = run(
        f"""
        pytestmark = model("m", options={{"fault": "{fault}@load", "load_log": {str(load_log.path)!r}}})

        def test_1(llm): pass
        def test_2(llm): pass
        def test_3(llm): pass
        @model("other", options={{}})
        def test_other(llm): llm.generate("a")
        """
    )
    result.assert_outcomes(errors=3, passed=1)
    assert says in text_of(result, engine_output=True)
    assert len(load_log()) == (2 if fault == "die" else 1)


def test_kill_9_of_the_session_leaves_no_child_behind(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    test_file = tmp_path / "test_killed.py"
    test_file.write_text(
        PREAMBLE
        + f"""
import pathlib, time

@model("m", engine="fake")
def test_it(llm):
    pathlib.Path({str(pid_file)!r}).write_text(str(llm.loaded.pid))
    time.sleep(60)
"""
    )
    session = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(test_file)], cwd=tmp_path
    )
    try:
        engine = int(_wait_for(lambda: pid_file.exists() and pid_file.read_text()))
        assert _alive(engine)
        os.kill(session.pid, signal.SIGKILL)
        session.wait()
        assert _wait_for(lambda: not _alive(engine))
    finally:
        session.kill()
        session.wait()


def _alive(pid: int) -> bool:
    """A zombie is dead: nobody in a container may be there to reap it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _wait_for(condition: Callable[[], object]) -> str:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if found := condition():
            return str(found)
        time.sleep(0.02)
    raise AssertionError("it did not happen within 30 s")
