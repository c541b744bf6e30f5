"""What load generators report as a success, told as it is: whole sessions on servers that misbehave on purpose."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_qwen.testing import MockServer

pytestmark = pytest.mark.slow

# times are short so that slices fill at once; ttft 20 ms and 2 ms a token are the truth in all of these
MODELS = {
    "odd": {"empty_first_ms": 2.0, "tokens_per_chunk": 4, "stall_at": 9, "stall_s": 0.5, "stall_share": 0.02},
    "ends-half-way": {"fault": "end", "fault_share": 0.1, "spared": 2},
    "goes-silent": {"fault": "silence", "fault_share": 0.1, "spared": 2},
    "refuses": {"fault": "status", "status": 429, "fault_share": 0.1, "spared": 2},
    "counts-nothing": {"usage": "never"},
}
ODD = """
from pytest_qwen import max_itl, max_longest_gap, max_tpot, max_ttft, model, workload

@model("odd")
@workload(prompt_tokens=16, output_tokens=16, concurrency=4)
@max_ttft(12)  # the empty first chunk comes after 2 ms
@max_tpot(1.8)  # (16 - 4) tokens × 2 ms / (16 - 1) would be 1.6 ms
@max_itl(1000)
@max_longest_gap(400)
def test_odd(llm):
    llm.measure()

@model("counts-nothing")
@workload(prompt_tokens=16, output_tokens=16, concurrency=4)
@max_ttft(5000)
@max_tpot(500)
def test_counts_nothing(llm):
    llm.measure()
"""
BROKEN = """
from pytest_qwen import max_ttft, model, workload

@model("ends-half-way")
@workload(prompt_tokens=16, output_tokens=8, concurrency=4)
@max_ttft(5000)
def test_ends_half_way(llm):
    llm.measure()

@model("goes-silent")
@workload(prompt_tokens=16, output_tokens=8, concurrency=4, silence_s=0.3)
@max_ttft(5000)
def test_goes_silent(llm):
    llm.measure()

@model("refuses")
@workload(prompt_tokens=16, output_tokens=8, concurrency=4)
@max_ttft(5000)
def test_refuses(llm):
    llm.measure()
"""


def started(folder: Path, source: str, url: str) -> "subprocess.Popen[str]":
    """A session of its own, that waits for no lock of another."""
    folder.mkdir()
    (folder / "pytest.ini").write_text("[pytest]\n")
    (folder / "test_traps.py").write_text(source)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--gpu=cpu",
        f"--qwen-endpoint={url}",
    ]
    environment = os.environ | {"XDG_RUNTIME_DIR": str(folder), "COLUMNS": "160"}
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)


# what a session says of a machine that is too busy to keep up its load: then it is no witness
TOO_BUSY = ("the client's event loop lagged", "the client held less of the load")


@pytest.fixture(scope="module")
def sessions(tmp_path_factory):
    """What two sessions printed; side by side, since they mostly wait. They may find the machine too busy."""
    for attempt in range(3):
        folder = tmp_path_factory.mktemp(f"sessions-{attempt}")
        with MockServer(models=MODELS, ttft_ms=20.0, gap_ms=2.0) as server:
            running = [started(folder / str(n), source, server.url) for n, source in enumerate((ODD, BROKEN))]
            texts = [one.communicate()[0] for one in running]
        assert [one.returncode for one in running] == [1, 1], texts
        if not any(words in text for words in TOO_BUSY for text in texts):
            break
    return texts


@pytest.fixture(scope="module")
def odd(sessions):
    return sessions[0]


@pytest.fixture(scope="module")
def broken(sessions):
    return sessions[1]


def row(text: str, bound: str) -> str:
    """The bound's line in the table of verdicts, the last of its name."""
    return [line for line in text.splitlines() if f"  {bound} " in line][-1]


def test_an_empty_first_chunk_is_no_first_token(odd):
    found = re.search(r"FAIL max_ttft: median ≤ 12 ms: measured ([\d.]+) ms", odd)
    assert found, odd
    assert float(found[1]) >= 20


def test_several_tokens_a_chunk_are_divided_by_the_tokens_after_the_first_chunk(odd):
    found = re.search(r"FAIL max_tpot: median ≤ 1.8 ms: measured ([\d.]+) ms", odd)
    assert found, odd
    assert float(found[1]) > 1.9


def test_chunks_of_several_tokens_give_no_time_between_tokens(odd):
    assert re.search(r"NO VERDICT max_itl: .*the server sends several tokens in a chunk", odd), odd
    assert "the median gap between chunks is" in odd


def test_one_stall_is_in_the_longest_gap_and_in_the_report(odd):
    found = re.search(r"FAIL max_longest_gap: ≤ 400 ms: observed ([\d.]+) ms", odd)
    assert found, odd
    assert float(found[1]) >= 500
    assert re.search(r"longest gap ms +[5-9]\d\d", odd)


def test_missing_counts_give_no_verdict_on_tokens_and_one_on_times(odd):
    assert re.search(r"NO VERDICT max_tpot: .*the server does not say how many tokens it sent", odd), odd
    assert row(odd, "max_ttft").endswith("PASS")


@pytest.mark.parametrize(
    ("words"),
    [
        r"cut \(the answer ended without a finish reason or \[DONE\]",
        r"silent \(nothing came for 0.3 s",
        r"http-error \(HTTP 429: this request is meant to fail\)",
    ],
)
def test_failed_requests_fail_the_test_in_words(broken, words):
    found = re.search(
        rf"FAIL max_error_rate: ≤ 0 of the requests: (\d+) of (\d+) requests failed \([^\n]*{words}", broken
    )
    assert found, broken
    # each tenth is struck: the rest is measured and judged all the same
    assert 0 < int(found[1]) < int(found[2]) / 2


def test_what_was_measured_beside_failures_is_kept_and_shown(broken):
    rows = [line for line in broken.splitlines() if "  max_ttft ≤ 5000 ms " in line]
    assert [line.split()[-1] for line in rows] == ["PASS"] * 3
    assert "3 PASS, 3 FAIL, 0 NO VERDICT" in broken
