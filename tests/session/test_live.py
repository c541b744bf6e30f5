"""The live line: there on a terminal, gone when the test is over, never in a pipe."""

import os
import pty
import subprocess
import sys

import pytest

TEST = """
from pytest_qwen import model, min_tokens_per_sec

@model("m", engine="fake")
@min_tokens_per_sec(30)
def test_it(llm):
    llm.measure()
"""


def on_a_terminal(*command: str) -> str:
    """What the command writes to a terminal of its own."""
    master, slave = pty.openpty()
    with subprocess.Popen(command, stdout=slave, stderr=slave, stdin=subprocess.DEVNULL) as process:
        os.close(slave)
        written = b""
        try:
            while piece := os.read(master, 4096):
                written += piece
        except OSError:  # Linux says so when the other end is closed
            pass
    os.close(master)
    assert process.returncode == 0
    return written.decode()


def test_a_terminal_sees_the_rounds_and_the_line_is_cleared(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(TEST)
    text = on_a_terminal(sys.executable, "-m", "pytest", "-p", "no:cacheprovider")
    assert "test_it: warm-up" in text
    after = text.partition("test_it: warm-up")[2]
    assert after.split("bounds and verdicts")[0].count("\r") >= 2  # rewritten, then cleared
    assert "warm-up" not in after.split("bounds and verdicts")[1]
    assert "1 passed" in after


def test_a_pipe_and_a_quiet_terminal_see_nothing_of_it(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(TEST)
    assert "warm-up" not in pytester.runpytest_subprocess().stdout.str()
    assert "warm-up" not in on_a_terminal(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")
