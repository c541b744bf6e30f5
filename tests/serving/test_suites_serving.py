"""The suite `serving`: which server a run asks, what a level of load is in figures, and that it can fail."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_qwen.engines import endpoint
from pytest_qwen.engines.asking import ask
from pytest_qwen.engines.base import LoadSpec, Request
from pytest_qwen.evidence import Measurement, Round
from pytest_qwen.mock_server import MockServer
from pytest_qwen.streams import Client, Stream
from pytest_qwen.testing import fake_spec

ROOT = Path(__file__).parents[2]
SUITE = ROOT / "suites" / "serving"


@pytest.fixture(scope="module")
def shared():
    """The suite's conftest as a module."""
    spec = importlib.util.spec_from_file_location("serving_conftest", SUITE / "conftest.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["serving_conftest"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["serving_conftest"]


def stream(ttft_ms=10.0, gaps=(1.0, 1.0), state="ok"):
    times = [ttft_ms]
    for gap in gaps:
        times.append(times[-1] + gap)
    done = state == "ok"
    return Stream(
        scheduled_ms=0.0,
        sent_ms=0.0,
        state=state,
        ttft_ms=ttft_ms,
        last_ms=times[-1],
        e2e_ms=times[-1] if done else None,
        chunk_ms=tuple(times),
        output_tokens=len(times) if done else None,
    )


def slice_of(*streams, violations=()):
    metrics = {"output_tokens_per_sec": 100.0, "requests_per_sec": 5.0, "tpot_ms": 1.0}
    client = Client(seconds=1.0, held_ratio=1.0, lag_p99_ms=0.1, lag_max_ms=0.2, cpu_ratio=0.1)
    return Round(
        index=0,
        kind="round",
        prompt_tokens=8,
        output_tokens=3,
        asked_tokens=3,
        batch_size=1,
        token_ms=(),
        clock="host",
        metrics=metrics,
        streams=streams,
        client=client,
        violations=violations,
    )


def test_a_level_takes_the_requests_of_all_clean_slices_together(shared):
    dirty = slice_of(stream(ttft_ms=900.0), violations=("the client's event loop lagged",))
    rounds = (
        slice_of(*[stream(ttft_ms=10.0)] * 60),
        slice_of(*[stream(ttft_ms=10.0)] * 38, stream(ttft_ms=50.0), stream(ttft_ms=50.0, gaps=(1.0, 70.0))),
        dirty,
    )
    level = shared.Level.of("2 users", Measurement(rounds=rounds))
    assert (level.ttft_ms, level.ttft_p99_ms) == (10.0, 50.0)
    assert level.longest_gap_ms == 70.0
    assert level.failed == 0
    assert str(level).startswith("2 users: 100.0 tok/s in all, 5.00 req/s, TTFT 10.0 ms (p99 50.0)")


def test_a_failed_request_is_counted_and_gives_no_first_token(shared):
    rounds = (slice_of(stream(), stream(ttft_ms=900.0, state="cut")),)
    level = shared.Level.of("2 users", Measurement(rounds=rounds))
    assert (level.failed, level.ttft_p99_ms) == (1, 10.0)


def unclean():
    return Measurement(rounds=(slice_of(stream(), violations=("the client's event loop lagged",)),))


def test_a_level_without_a_clean_slice_says_why(shared):
    with pytest.raises(shared.NoCleanSliceError, match=r"2 users: no clean slice: .*loop lagged"):
        shared.Level.of("2 users", unclean())


class Llm:
    """Stands for a loaded server whose client can keep eight users up."""

    spec = fake_spec()

    def __init__(self):
        self.asked = []

    def measure(self, *, concurrency, **_work):
        self.asked.append(concurrency)
        return unclean() if concurrency > 8 else Measurement(rounds=(slice_of(stream()),))


def test_a_level_is_measured_once_a_session_and_the_first_unclean_one_is_the_last(shared):
    told = {}
    server = shared.Server(llm=Llm(), engine="x", scale=shared.FULL, record=told.__setitem__, known={})
    assert [count for count, _ in server.most_users((1, 8, 16, 32))] == [1, 8]
    assert [count for count, _ in server.most_users((1, 8))] == [1, 8]
    assert server.llm.asked == [1, 8, 16]
    assert "16 users: no clean slice" in told["qwen.level.last"]


def test_a_suite_that_needs_one_level_skips_when_it_is_not_clean(shared):
    server = shared.Server(llm=Llm(), engine="x", scale=shared.FULL, record=lambda *_: None, known={})
    with pytest.raises(pytest.skip.Exception, match="16 users: no clean slice"):
        server.users(16)


SAID = {"qwen_engine": "", "qwen_endpoint": "", "qwen_model": ""}


@pytest.mark.parametrize(
    ("options", "on_cpu", "vllm", "engine"),
    [
        ({"qwen_endpoint": "http://x"}, True, False, None),
        ({"qwen_endpoint": "http://x", "qwen_engine": "endpoint"}, False, True, None),
        ({}, True, True, "endpoint"),
        ({"qwen_engine": "transformers"}, True, True, "endpoint"),
        ({}, False, True, "vllm"),
        ({"qwen_engine": "sglang"}, False, False, "sglang"),
        ({"qwen_engine": "llama-cpp", "qwen_endpoint": "http://x"}, True, False, "llama-cpp"),
    ],
)
def test_the_options_say_which_server_is_asked(shared, options, on_cpu, vllm, engine):
    found = shared.leading_to(SAID | options, on_cpu=on_cpu, vllm=vllm, stand_in=lambda: "http://mock")
    assert found is not None
    assert found.get("engine") == engine
    if engine == "endpoint":
        assert found["options"] == {"url": "http://mock"}


def test_a_gpu_without_vllm_has_no_server_and_a_named_model_is_kept(shared):
    def none_wanted() -> str:
        raise AssertionError("the stand-in is for a CPU")

    assert shared.leading_to(SAID, on_cpu=False, vllm=False, stand_in=none_wanted) is None
    named = shared.leading_to(SAID | {"qwen_model": "a/b"}, on_cpu=False, vllm=True, stand_in=none_wanted)
    assert named is not None
    assert "id" not in named
    assert named["max_model_len"] == 8192 + 64


def test_samples_that_are_asked_for_at_once_have_seeds_of_their_own(monkeypatch):
    """Else a server that honours seeds gives one answer many times, and pass@k is of one sample."""
    seeds = []

    def noted(manner, request, *key, **more):
        seeds.append(request.seed)
        return ask(manner, request, *key, **more)

    monkeypatch.setattr(endpoint, "ask", noted)
    engine = endpoint.EndpointEngine()
    with MockServer(ttft_ms=1.0, gap_ms=0.1) as server:
        engine.load(LoadSpec(engine="endpoint", model="mock", options=(("url", server.url),)))
        seeds.clear()
        trace = engine.run(Request(prompt="a", output_tokens=2, batch_size=3, temperature=0.7, seed=5))
        engine.close()
    assert seeds == [5, 6, 7]
    assert len(trace.texts) == 3


ONE_ANSWER = """
from pytest_qwen import max_ttft, min_tokens_per_sec


@max_ttft(500)
@min_tokens_per_sec(1)
def test_one(llm):
    llm.generate("Hello", output_tokens=8)
"""


def test_an_answer_that_was_not_counted_is_repeated_all_the_same(pytester):
    """A server without usage: times get their verdict, tokens get none, with the reason."""
    pytester.makepyfile(ONE_ANSWER)
    with MockServer(ttft_ms=2.0, gap_ms=1.0, usage="never") as server:
        options = ("-p", "no:cacheprovider", "--gpu=cpu", "--qwen-budget=5")
        result = pytester.runpytest_subprocess(*options, f"--qwen-endpoint={server.url}")
    assert result.ret == 1
    text = result.stdout.str()
    assert "1 PASS, 0 FAIL, 1 NO VERDICT" in text
    assert "the server does not say how many tokens it sent" in text


def run_suite(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--gpu=cpu", *arguments]
    environ = {**os.environ, "COLUMNS": "200"}
    return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_server_that_refuses_some_requests_fails_the_suite():
    with MockServer(ttft_ms=5.0, gap_ms=1.0, fault="status", fault_share=0.1, spared=10) as server:
        done = run_suite(str(SUITE / "test_long_prompts.py"), f"--qwen-endpoint={server.url}")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 failed" in done.stdout
    assert "2 users, 16 tokens" in done.stdout


def test_the_suites_plan_without_asking_a_server():
    done = run_suite(str(SUITE), "--qwen-plan")
    assert done.returncode in (0, 5), done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
