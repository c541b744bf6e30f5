"""Managed servers, with a program that fails as it is told: one message each, right fault, nothing left."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fake_server import fake_server, starts
from processes import alive, gone

from pytest_qwen.engines import LOAD_TIMEOUT
from pytest_qwen.engines.base import LoadSpec, Request
from pytest_qwen.engines.child import ChildEngine
from pytest_qwen.engines.server import ServerEngine
from pytest_qwen.errors import (
    DoesNotFit,
    EngineFault,
    Misuse,
    ModelUnusable,
    NotInstalled,
    QwenError,
    Unavailable,
)
from pytest_qwen.pool import Pool

ONE = Request(prompt="x", output_tokens=4)
Make = Callable[..., ServerEngine]


def spec(binary: str, engine: str = "vllm", **options: object) -> LoadSpec:
    return LoadSpec(engine=engine, model="m", options=tuple(sorted({"binary": binary, **options}.items())))


@pytest.fixture
def server() -> Iterator[ServerEngine]:
    engine = ServerEngine()
    yield engine
    engine.close()


def listens(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def test_it_starts_the_server_and_is_its_client(server: ServerEngine, tmp_path: Path) -> None:
    loaded = server.load(spec(fake_server(tmp_path), args=("--max-num-seqs", "8")))
    ((pid, port),) = starts(tmp_path)
    assert loaded.applied[0] == (
        f"started {tmp_path}/vllm-fake serve --model m --served-model-name m --host 127.0.0.1 --port {port}"
        " --dtype bfloat16 --max-num-seqs 8"
    )
    assert loaded.versions["vllm"] == "9.9"
    assert loaded.load_s > 0
    trace = server.run(ONE)
    assert (trace.output_tokens, trace.texts) == (4, (" ba" * 4,))
    assert alive(pid)
    server.close()
    server.close()
    assert not alive(pid)
    assert not listens(port)
    with pytest.raises(EngineFault, match="nothing is loaded"):
        server.run(ONE)


DIES = "print({0!r}); sys.exit({1})"


@pytest.mark.parametrize(
    ("log", "status", "error", "said"),
    [
        ("OSError: [Errno 98] address already in use", 1, EngineFault, "port was taken"),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried", 1, DoesNotFit, "ran out of memory"),
        ("ValueError: No available memory for the cache blocks.", 1, DoesNotFit, "ran out of memory"),
        ("killed", -9, DoesNotFit, "the host has too little memory"),
        ("ModuleNotFoundError: No module named 'vllm'", 1, NotInstalled, "pip install vllm"),
        (
            "OSError: m is not a local folder and is not a valid model identifier",
            1,
            ModelUnusable,
            "cannot load 'm'",
        ),
        ("vllm: error: unrecognized arguments: --foo", 2, Misuse, "does not know an argument"),
        ("RuntimeError: Failed to infer device type", 1, Unavailable, "finds no device"),
        ("something else", 7, EngineFault, "exit code 7"),
    ],
)
def test_a_server_that_dies_at_start(
    server: ServerEngine, tmp_path: Path, log: str, status: int, error: type[QwenError], said: str
) -> None:
    end = f"os.kill(os.getpid(), {-status})" if status < 0 else f"sys.exit({status})"
    with pytest.raises(error, match=said) as caught:
        server.load(spec(fake_server(tmp_path, f"print({log!r}, flush=True); {end}")))
    assert type(caught.value) is error
    assert f"    | {log}" in str(caught.value)
    pids = [pid for pid, _ in starts(tmp_path)]
    assert len(pids) == (3 if "Errno 98" in log else 1)
    assert not any(alive(pid) for pid in pids)


def test_a_port_that_was_taken_meanwhile_is_chosen_anew(server: ServerEngine, tmp_path: Path) -> None:
    body = "serve() if starts > 2 else print('address already in use') or sys.exit(1)"
    server.load(spec(fake_server(tmp_path, body)))
    ports = [port for _, port in starts(tmp_path)]
    assert len(ports) == 3
    assert server.run(ONE).output_tokens == 4


def test_a_server_that_hangs_is_ended_with_its_last_words(
    server: ServerEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LOAD_TIMEOUT, "0.6")
    program = fake_server(tmp_path, "print('loading weights', flush=True); time.sleep(600)")
    with pytest.raises(EngineFault, match="no answer of /health") as caught:
        server.load(spec(program))
    assert caught.value.kind == "hang"
    assert "| loading weights" in str(caught.value)
    assert not alive(starts(tmp_path)[0][0])


def test_a_server_that_ignores_being_asked_is_killed(
    server: ServerEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_qwen.engines.server_process._END_S", 0.1)
    server.load(spec(fake_server(tmp_path, stubborn=True)))
    ((pid, port),) = starts(tmp_path)
    server.close()
    assert not alive(pid)
    assert not listens(port)


@pytest.mark.parametrize(
    ("says", "error"), [("engine core died", EngineFault), ("CUDA out of memory", DoesNotFit)]
)
def test_a_server_that_dies_while_it_answers_says_so(
    server: ServerEngine, tmp_path: Path, says: str, error: type[QwenError]
) -> None:
    server.load(spec(fake_server(tmp_path, dies_at=3, says=says)))
    with pytest.raises(error, match="ended while answering") as caught:
        server.run(Request(prompt="x", output_tokens=3))
    assert f"    | {says}" in str(caught.value)


def test_sleep_and_wake_are_timed(server: ServerEngine, tmp_path: Path) -> None:
    server.load(spec(fake_server(tmp_path), sleep=True))
    assert server.sleep(1) >= 0
    assert server.wake() >= 0
    assert (tmp_path / "switched").read_text().splitlines()[0].startswith("/sleep?level=1")


def test_sleep_wants_to_be_asked_for_at_the_start(server: ServerEngine, tmp_path: Path) -> None:
    server.load(spec(fake_server(tmp_path)))
    with pytest.raises(Misuse, match='"sleep": True'):
        server.sleep(1)


def test_a_sleeping_model_does_not_answer_and_is_awake_for_the_next_test(tmp_path: Path) -> None:
    pool = Pool(lambda _spec: ServerEngine())
    asked = spec(fake_server(tmp_path), sleep=True)
    try:
        engine = pool.lease(asked).engine
        with pytest.raises(Misuse, match="no such level"):
            engine.sleep(3)  # type: ignore[attr-defined]
        engine.sleep(2)  # type: ignore[attr-defined]
        with pytest.raises(Misuse, match=r"llm\.wake"):
            engine.run(ONE)
        assert pool.lease(asked).engine.run(ONE).output_tokens == 4
    finally:
        pool.close()
    assert not alive(starts(tmp_path)[0][0])


def test_an_engine_without_a_sleep_mode_says_so() -> None:
    pool = Pool(lambda _spec: ChildEngine("fake"))
    try:
        with pytest.raises(Unavailable, match="no sleep mode"):
            pool.lease(LoadSpec(engine="fake", model="m")).engine.sleep(1)  # type: ignore[attr-defined]
    finally:
        pool.close()


def test_in_a_child_its_errors_are_the_same(tmp_path: Path) -> None:
    body = "print('torch.OutOfMemoryError: CUDA out of memory', flush=True); sys.exit(1)"
    child = ChildEngine("vllm")
    with pytest.raises(DoesNotFit) as caught:
        child.load(spec(fake_server(tmp_path, body)))
    assert "Traceback" not in str(caught.value)
    child = ChildEngine("vllm", load_timeout_s=2.0)
    with pytest.raises(EngineFault, match="no answer of /health") as hung:
        child.load(spec(fake_server(tmp_path, "print('loading', flush=True); time.sleep(600)")))
    assert hung.value.kind == "hang"
    assert str(hung.value).count("its last output") == 1
    assert not any(alive(pid) for pid, _ in starts(tmp_path))


SESSION = """
import sys
sys.path.insert(0, {tests!r})
from pytest_qwen.engines.base import LoadSpec
from pytest_qwen.engines.child import ChildEngine
engine = ChildEngine("vllm")
engine.load(LoadSpec(engine="vllm", model="m", options=(("binary", {program!r}),)))
print("ready", flush=True)
sys.stdin.read()
"""


def test_a_killed_session_leaves_no_server(tmp_path: Path) -> None:
    """The server ignores SIGTERM and has a helper in a session of its own: the guard ends both."""
    body = (
        "helper = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'],"
        " start_new_session=True); open(folder + '/helper', 'w').write(str(helper.pid)); serve()"
    )
    program = fake_server(tmp_path, body, stubborn=True)
    code = SESSION.format(tests=str(Path(__file__).parent), program=program)
    session = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with session:
        assert session.stdout.readline() == "ready\n"
        ((pid, port),) = starts(tmp_path)
        helper = int((tmp_path / "helper").read_text())
        assert alive(pid)
        assert alive(helper)
        os.kill(session.pid, signal.SIGKILL)
    assert gone(pid)
    assert gone(helper)
    assert not listens(port)


THROUGH_THE_PLUGIN = """
from pytest_qwen import max_ttft, model

@model("m", engine="vllm", options={{"binary": {dies!r}}})
@max_ttft(60_000)
def test_dies(llm): ...

@model("m", engine="vllm", options={{"binary": {serves!r}, "sleep": True}})
@max_ttft(60_000)
def test_switching(llm):
    assert llm.sleep() >= 0
    assert llm.wake() >= 0
    assert llm.generate("x", output_tokens=4).output_tokens == 4

@model("m", engine="fake")
def test_cannot_sleep(llm):
    llm.sleep()
"""


def test_through_the_plugin_each_is_told_in_words(pytester: pytest.Pytester, tmp_path: Path) -> None:
    (tmp_path / "dies").mkdir()
    dies = fake_server(tmp_path / "dies", "print('CUDA out of memory', flush=True); sys.exit(1)")
    pytester.makepyfile(THROUGH_THE_PLUGIN.format(dies=dies, serves=fake_server(tmp_path)))
    lean = ("-p", "no:hypothesispytest", "-p", "no:benchmark", "-p", "no:cov", "-p", "no:cacheprovider")
    result = pytester.runpytest_subprocess(
        *lean, "-rs", "--gpu=cpu", "--qwen-budget=10", "--qwen-no-verdict=skip"
    )
    text = result.stdout.str()
    assert "'m' does not fit: vllm ran out of memory while it started" in text
    assert text.count("    | CUDA out of memory") == 1
    assert "this engine has no sleep mode" in text
    assert "Traceback" not in text
    assert "test_switching" not in "".join(line for line in text.splitlines() if "FAILED" in line)
    assert (tmp_path / "switched").read_text() == "/sleep?level=1\n/wake_up\n"
    assert not any(alive(pid) for pid, _ in (*starts(tmp_path), *starts(tmp_path / "dies")))
