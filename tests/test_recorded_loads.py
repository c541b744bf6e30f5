"""Loads that other tools made: cut into slices, judged by the same bounds, driven and read."""

import json
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from pytest_qwen import generators
from pytest_qwen.engines.base import Request
from pytest_qwen.errors import EngineFault, Misuse, NotInstalled
from pytest_qwen.generators import Recording
from pytest_qwen.measure import Observer
from pytest_qwen.metrics import RoundContext
from pytest_qwen.recorded_loads import measurement_of
from pytest_qwen.streams import Load, Stream

DATA = Path(__file__).parent / "data" / "generators"
OBSERVER = Observer(
    watch=nullcontext, clock_s=lambda: 0.0, context=lambda _request, _trace: RoundContext()
)  # nothing is watched: it is over


def answer(sent_ms: float, *, e2e_ms: float = 1000.0, state: str = "ok") -> Stream:
    """Ten tokens, the first after a tenth of the time; a failed one has ended at once."""
    if state != "ok":
        return Stream(scheduled_ms=sent_ms, sent_ms=sent_ms, state=state, detail="HTTP 500")
    chunks = tuple(e2e_ms * (n + 1) / 10 for n in range(10))
    return Stream(
        scheduled_ms=sent_ms, sent_ms=sent_ms, state="ok", ttft_ms=chunks[0], last_ms=chunks[-1], e2e_ms=e2e_ms,
        chunk_ms=chunks, prompt_tokens=8, output_tokens=10,
    )  # fmt: skip


def closed(users: int, turns: int, *, pause_ms: float = 0.0) -> Recording:
    """Users in step, each asking again a while after its answer."""
    streams = [answer(turn * (1000.0 + pause_ms)) for turn in range(turns) for _ in range(users)]
    return Recording(tool="tool", version="1", streams=tuple(streams), hides=("the longest gap",))


def measured(recording: Recording, load: Load):
    request = Request(prompt_tokens=8, output_tokens=10, ignore_eos=True, load=load)
    return measurement_of(recording, request, OBSERVER)


def test_a_closed_loop_is_cut_into_whole_turns_without_ramp_and_drain():
    found = measured(closed(4, 12), Load(concurrency=4, slice_requests=8))
    # the first turn is the ramp, the last one ends after the last request was sent
    assert [len(seen.streams) for seen in found.rounds] == [8] * 5
    for seen in found.rounds:
        assert seen.clean
        assert seen.client.held_ratio == pytest.approx(1)
        assert seen.metrics["output_tokens_per_sec"] == pytest.approx(40)
        assert seen.metrics["ttft_ms"] == pytest.approx(100)
    assert found.observed["full_requests"] == 48
    assert found.observed["full_output_tokens_per_sec"] == pytest.approx(480 / 12)
    assert found.hints == ("tool's file cannot show the longest gap",)


def test_a_tool_that_did_not_hold_the_load_gets_no_clean_slice():
    found = measured(closed(4, 12, pause_ms=100.0), Load(concurrency=4, slice_requests=8))
    assert found.rounds
    assert {text for seen in found.rounds for text in seen.violations} == {
        "the client held less of the load than was asked"
    }


def test_an_open_loop_is_cut_by_the_clock_so_that_its_rate_is_not_too_high():
    streams = tuple(answer(50.0 * n, e2e_ms=200.0) for n in range(400))
    recording = Recording(tool="tool", version="", streams=streams, hides=())
    found = measured(recording, Load(request_rate=20.0, slice_requests=20))
    assert len(found.rounds) > 8
    assert len({round(seen.client.seconds, 6) for seen in found.rounds}) == 1
    rates = [seen.metrics["requests_per_sec"] for seen in found.rounds]
    assert sum(rates) / len(rates) == pytest.approx(20, rel=0.02)


def test_failures_and_short_answers_are_seen():
    streams = [*closed(1, 30).streams]
    streams[10] = answer(10_000.0, state="http-error")
    recording = Recording(tool="tool", version="", streams=tuple(streams), hides=())
    found = measured(recording, Load(concurrency=1, slice_requests=5))
    assert found.observed["full_failed"] == 1
    assert max(seen.metrics["error_ratio"] for seen in found.rounds) == pytest.approx(0.2)
    request = Request(prompt_tokens=8, output_tokens=20, ignore_eos=True, load=Load(concurrency=1))
    short = measurement_of(closed(1, 5), request, OBSERVER)
    assert {text for seen in short.rounds for text in seen.violations} == {
        "fewer tokens came out than were asked for"
    }


SESSION = """
from pytest_qwen import generators, max_error_rate, max_ttft, model, workload
from pytest_qwen.generators import Recording
from pytest_qwen.streams import Stream

def recording(count, ttft_ms):
    def one(n):
        return Stream(scheduled_ms=100.0 * n, sent_ms=100.0 * n, state="ok", ttft_ms=ttft_ms, last_ms=99.0,
                      e2e_ms=100.0, chunk_ms=(ttft_ms, 99.0), prompt_tokens=4, output_tokens=2)
    return Recording(tool="a tool", version="", streams=tuple(map(one, range(count))), hides=("its lag",))

@model("m")
@workload(concurrency=1, output_tokens=2)
@max_ttft(50)
def test_fast(llm):
    llm.take(recording(400, 40.0))

@model("m")
@workload(concurrency=1, output_tokens=2)
@max_ttft(50)
def test_slow(llm):
    llm.take(recording(400, 60.0))

@model("m")
@workload(concurrency=1, output_tokens=2)
@max_ttft(50, stat="p99")
def test_short(llm):
    llm.take(recording(20, 40.0))
"""


def test_bounds_are_judged_on_a_recording_as_on_a_load_of_ours(pytester):
    pytester.makepyfile(SESSION)
    result = pytester.runpytest("--qwen-engine=fake", "--gpu=cpu", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=1, failed=2)
    text = result.stdout.str()
    assert "FAIL max_ttft: median ≤ 50 ms: measured 60 ms" in text
    assert "the recorded load is too short for a single slice" in text
    assert "a tool's file cannot show its lag" in text


def test_a_generator_is_run_and_its_file_read(tmp_path):
    source, result = DATA / "vllm-bench-end.json", tmp_path / "result.json"
    result.write_text("{}")  # of an earlier run
    copy = f"import shutil; shutil.copy({str(source)!r}, {str(result)!r})"
    assert generators.drive([sys.executable, "-c", copy], result) == generators.read(source)


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("print('no route to host'); raise SystemExit(3)", ["exit code 3", "no route to host"]),
        ("print('done')", ["did not write", "result.json", "done"]),
        ("import time; print('waiting', flush=True); time.sleep(60)", ["did not end within 0.5 s"]),
    ],
)
def test_a_generator_that_fails_is_told_with_what_it_printed(tmp_path, program, words):
    result = tmp_path / "result.json"
    result.write_text(json.dumps({"stale": True}))
    with pytest.raises(EngineFault) as caught:
        generators.drive([sys.executable, "-c", program], result, timeout_s=0.5 if "sleep" in program else 60)
    assert all(word in str(caught.value) for word in words)


def test_a_generator_that_is_not_there_and_a_file_of_nothing(tmp_path):
    with pytest.raises(NotInstalled, match="no-such-generator"):
        generators.drive(["no-such-generator"], tmp_path / "result.json")
    with pytest.raises(Misuse, match="no result file"):
        generators.drive(
            [sys.executable, "-c", f"open({str(tmp_path / 'r.json')!r}, 'w').write('{{}}')"],
            tmp_path / "r.json",
        )
