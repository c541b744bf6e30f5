"""An engine in a process of its own: every way to end, and nothing left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import alive, gone

from pytest_qwen.engines import register
from pytest_qwen.engines.base import Engine, LoadSpec, Request
from pytest_qwen.engines.child import ChildEngine
from pytest_qwen.errors import DoesNotFit, EngineFault, Misuse, ModelUnusable, QwenError, Unavailable
from pytest_qwen.testing import EngineConformance, fake_spec

ROUND = Request(prompt_tokens=10, output_tokens=4, ignore_eos=True)
HOSTILE = ("Noisy", "Grandchild", "Stubborn", "Exiting", "Unspeakable", "Picky", "Environment")
for name in HOSTILE:
    register(f"hostile-{name}", f"hostile_engines:{name}Engine")


class TestChildEngine(EngineConformance):
    @classmethod
    def make_engine(cls) -> Engine:
        return ChildEngine("fake")

    @classmethod
    def spec(cls) -> LoadSpec:
        return fake_spec()


@pytest.fixture
def child() -> Iterator[object]:
    """Makes and loads children, and closes them."""
    with contextlib.ExitStack() as stack:

        def make(engine: str = "fake", *, timeouts: dict[str, float] | None = None, **programme: object):
            made = ChildEngine(engine, **(timeouts or {}))
            stack.callback(made.close)
            return made, made.load(fake_spec(**programme))

        yield make


def test_it_runs_elsewhere_and_ends_when_closed(child) -> None:
    engine, loaded = child()
    assert loaded.pid not in (None, os.getpid())
    assert alive(loaded.pid)
    engine.close()
    assert not alive(loaded.pid)
    engine.close()
    with pytest.raises(EngineFault, match="closed"):
        engine.run(ROUND)


@pytest.mark.parametrize(
    ("fault", "kind", "said"),
    [
        ("die@2", "died", "SIGKILL"),
        ("segv@2", "died", "SIGSEGV"),
        ("cuda@2", "device", "device-side assert"),
        ("raise@2", "error", "RuntimeError: programmed failure"),
        ("hang@2", "hang", r"no answer to 'run' within 0\.3 s"),
    ],
)
def test_a_fault_ends_the_child_and_stays(child, fault: str, kind: str, said: str) -> None:
    engine, loaded = child(fault=fault, timeouts={"run_timeout_s": 0.3})
    engine.run(ROUND)
    for _ in range(2):
        with pytest.raises(EngineFault, match=said) as caught:
            engine.run(ROUND)
        assert caught.value.kind == kind
    assert not alive(loaded.pid)
    with pytest.raises(EngineFault, match=said):
        engine.count_tokens("a")


@pytest.mark.parametrize(
    ("fault", "error", "said"),
    [
        ("oom@load", DoesNotFit, "Tried to allocate 2.00 GiB"),
        ("die@load", EngineFault, "SIGKILL"),
        ("hang@load", EngineFault, "no answer to 'load'"),
        ("missing", ModelUnusable, "not found"),
        ("corrupt", ModelUnusable, "corrupt"),
        ("explode@1", Misuse, "no such fault"),
    ],
)
def test_a_failed_load_ends_the_child_with_its_own_error(
    fault: str, error: type[QwenError], said: str
) -> None:
    engine = ChildEngine("fake", load_timeout_s=0.5 if fault == "hang@load" else 60.0)
    with pytest.raises(error, match=said) as caught:
        engine.load(fake_spec(fault=fault))
    assert type(caught.value) is error
    with pytest.raises(error, match=said):
        engine.run(ROUND)
    engine.close()


def test_out_of_memory_in_a_run_is_no_fault_but_ends_the_child(child) -> None:
    engine, loaded = child(fault="oom@2")
    engine.run(ROUND)
    with pytest.raises(DoesNotFit, match="Tried to allocate"):
        engine.run(ROUND)
    assert not alive(loaded.pid)


def test_output_does_not_disturb_and_is_quoted(child) -> None:
    engine, _ = child("hostile-Noisy")
    assert engine.run(ROUND).output_tokens == 4
    with pytest.raises(EngineFault, match="KeyError: 'no such head'") as caught:
        engine.run(ROUND)
    assert "| python says 1" in str(caught.value)
    assert "| native code says \N{REPLACEMENT CHARACTER}" in str(caught.value)


def test_killed_from_outside_between_runs(child) -> None:
    engine, loaded = child()
    os.kill(loaded.pid, signal.SIGKILL)
    assert gone(loaded.pid)
    with pytest.raises(EngineFault, match="SIGKILL") as caught:
        engine.run(ROUND)
    assert caught.value.kind == "died"


def test_exit_by_the_engine_is_an_error(child) -> None:
    engine, _ = child("hostile-Exiting")
    with pytest.raises(EngineFault, match="SystemExit: 3"):
        engine.run(ROUND)


def test_an_answer_that_cannot_cross_is_an_error(child) -> None:
    engine, _ = child("hostile-Unspeakable")
    with pytest.raises(EngineFault, match="lambda"):
        engine.run(ROUND)


def test_an_error_that_cannot_cross_arrives_as_text(child) -> None:
    engine, _ = child("hostile-Picky")
    with pytest.raises(EngineFault, match="picky"):
        engine.run(ROUND)


def test_misuse_in_a_run_keeps_the_child(child) -> None:
    engine, loaded = child()
    with pytest.raises(Misuse, match="exactly one"):
        engine.run(Request())
    assert engine.run(ROUND).output_tokens == 4
    assert alive(loaded.pid)


def test_an_error_of_the_callback_waits_for_the_end_of_the_run(child) -> None:
    engine, _ = child()
    taken = []

    def take(text: str) -> None:
        taken.append(text)
        raise ValueError("enough")

    with pytest.raises(ValueError, match="enough"):
        engine.run(ROUND, take)
    assert len(taken) == 1
    assert engine.run(ROUND).output_tokens == 4


def test_helpers_of_the_engine_end_with_it(child) -> None:
    engine, loaded = child("hostile-Grandchild")
    helpers = [int(pid) for pid in loaded.device_name.split()]
    assert all(map(alive, helpers))
    engine.close()
    assert not any(map(alive, helpers))


def test_helpers_end_when_the_engine_is_killed(child) -> None:
    _, loaded = child("hostile-Grandchild")
    helpers = [int(pid) for pid in loaded.device_name.split()]
    os.kill(loaded.pid, signal.SIGKILL)
    assert all(map(gone, helpers))


def test_an_engine_that_does_not_close_is_killed(child) -> None:
    engine, loaded = child("hostile-Stubborn", timeouts={"close_timeout_s": 0.1})
    engine.close()
    assert not alive(loaded.pid)


def test_ctrl_c_ends_the_child(child) -> None:
    engine, loaded = child(fault="hang@1")
    main = threading.main_thread().ident
    timer = threading.Timer(0.2, signal.pthread_kill, (main, signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        engine.run(ROUND)
    timer.join()
    assert not alive(loaded.pid)
    with pytest.raises(EngineFault, match="interrupted"):
        engine.run(ROUND)


def test_environment_is_set_before_anything_is_imported() -> None:
    engine = ChildEngine(
        "hostile-Environment",
        env={"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"},
        visible_device="GPU-1234",
    )
    loaded = engine.load(fake_spec())
    engine.close()
    assert loaded.tokenizer == "GPU-1234|PCI_BUS_ID|expandable_segments:True"
    assert loaded.applied == ()  # nothing heavy was imported on the way


def test_a_machine_that_starts_no_process_is_unavailable(monkeypatch) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    engine = ChildEngine("fake")
    with pytest.raises(Unavailable, match="/no/such/python"):
        engine.load(fake_spec())
    engine.close()


def test_unknown_engine_is_refused_before_a_process_is_started() -> None:
    with pytest.raises(Misuse, match="did you mean 'fake'"):
        ChildEngine("fakee")


PARENT = """
import sys, time
from pytest_qwen.engines import register
from pytest_qwen.engines.child import ChildEngine
from pytest_qwen.testing import fake_spec
sys.path.append({here!r})
register("hostile", "hostile_engines:GrandchildEngine")
engine = ChildEngine("hostile")
loaded = engine.load(fake_spec(fault={fault!r}))
print(loaded.pid, loaded.device_name, flush=True)
if {fault!r}:
    from pytest_qwen.engines.base import Request
    engine.run(Request(prompt_tokens=1))
time.sleep(600)
"""


@pytest.mark.parametrize("fault", ["", "hang@1"], ids=["idle", "in a run"])
def test_kill_9_of_the_session_leaves_no_process(fault: str) -> None:
    script = PARENT.format(here=str(Path(__file__).parent), fault=fault)
    path = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, sys.path)])
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    ) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 3
        assert all(map(alive, pids))
        parent.kill()
        assert all(map(gone, pids))
