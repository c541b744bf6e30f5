"""Whose containers a sweep takes: those of dead and expired sessions, never those of live ones."""

import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_qwen.sandbox import owners
from pytest_qwen.sandbox.container import sweep
from pytest_qwen.sandbox.owners import LABEL, labels_for, left_behind

ROOT = Path(__file__).parents[2]
NOW_S = 1_000_000.0
OWNER = f"{LABEL}.owner"
pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")


def mine(deadline_s: float = NOW_S + 100) -> dict[str, str]:
    return labels_for("session", "main", "guest", deadline_s)


def child(code: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stdin=subprocess.PIPE, cwd=ROOT, text=True
    )


LABELS = """
from pytest_qwen.sandbox.owners import labels_for
print(labels_for("session", "main", "guest", 1e9)["pytest-qwen.owner"], flush=True)
"""


def test_a_live_session_keeps_its_containers_until_their_deadline_and_a_little() -> None:
    assert not left_behind(mine(), NOW_S)
    assert not left_behind(mine(NOW_S - 30), NOW_S)
    assert left_behind(mine(NOW_S - 100), NOW_S)


def test_a_dead_owner_is_told_from_a_live_one_also_before_anybody_collected_it() -> None:
    with child(LABELS + "input()") as owner:
        assert owner.stdout is not None
        labels = {**mine(), OWNER: owner.stdout.readline().strip()}
        assert not left_behind(labels, NOW_S)
        owner.kill()
        waited = os.waitid(os.P_PID, owner.pid, os.WEXITED | os.WNOWAIT)  # ended, and still a zombie
        assert waited is not None
        assert left_behind(labels, NOW_S)
    assert left_behind(labels, NOW_S)


def test_another_process_with_the_same_number_is_another() -> None:
    place, pid, started = mine()[OWNER].split(":")
    assert left_behind({**mine(), OWNER: f"{place}:{pid}:{int(started) - 1}"}, NOW_S)


@pytest.mark.parametrize("part", ["boot", "namespace"])
def test_nobody_judges_processes_that_it_cannot_see(part: str) -> None:
    place, pid, started = mine()[OWNER].split(":")
    boot, namespace = place.split("/")
    elsewhere = f"other/{namespace}" if part == "boot" else f"{boot}/1"
    labels = {**mine(), OWNER: f"{elsewhere}:{pid}:{int(started) - 1}"}
    assert not left_behind(labels, NOW_S)
    assert left_behind(labels, NOW_S + 1000)  # its deadline holds everywhere


def test_a_process_that_proc_hides_is_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = mine()
    monkeypatch.setattr(owners, "_stat", lambda pid: ("", ""))
    assert not left_behind(labels, NOW_S)


@pytest.mark.parametrize(
    "labels",
    [
        {},
        {OWNER: ""},
        {OWNER: "x"},
        {OWNER: "a:b:c", f"{LABEL}.deadline": "soon"},
        {OWNER: ":::"},
        {OWNER: "{place}:99999999999999999999:1"},
    ],
)
def test_labels_that_say_nothing_leave_a_container_alone(labels: dict[str, str]) -> None:
    place = mine()[OWNER].split(":")[0]
    assert not left_behind({name: text.replace("{place}", place) for name, text in labels.items()}, NOW_S)


class Engine:
    """Lists containers, and takes one of them away as if another sweep had been quicker."""

    def __init__(self, *labels: dict[str, str], gone: str = "") -> None:
        self.api = self
        self.asked: dict[str, Any] = {}
        self.removed: list[str] = []
        self._listed = [{"Id": str(number), "Labels": each} for number, each in enumerate(labels)]
        self._gone = gone

    def containers(self, **asked: Any) -> list[dict[str, Any]]:
        self.asked = asked
        return self._listed

    def remove_container(self, identifier: str, **_: Any) -> None:
        from docker.errors import NotFound

        if identifier == self._gone:
            raise NotFound("gone")
        self.removed.append(identifier)


def test_a_sweep_takes_what_is_left_behind_and_asks_for_nothing_but_our_own() -> None:
    expired, living = mine(NOW_S - 100), mine()
    engine: Any = Engine(expired, living, expired, expired, gone="2")
    assert sweep(engine, NOW_S) == 2
    assert engine.removed == ["0", "3"]
    assert engine.asked == {"all": True, "filters": {"label": f"{LABEL}.session"}}


def test_without_proc_only_the_deadline_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: Any) -> Any:
        raise FileNotFoundError

    monkeypatch.setattr(owners, "Path", lambda *_: SimpleNamespace(read_text=absent, stat=absent))
    assert not left_behind(mine(time.time()), time.time())
    assert left_behind(mine(NOW_S - 100), NOW_S)
