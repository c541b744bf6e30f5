"""The device lock, across objects and processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_qwen.errors import Unavailable
from pytest_qwen.locks import DeviceLock, runtime_directory
from pytest_qwen.testing import ManualClock

HOLDER = """
import sys, pathlib
from pytest_qwen.locks import DeviceLock
DeviceLock("GPU-1", directory=pathlib.Path(sys.argv[1])).acquire(0)
print("held", flush=True)
sys.stdin.read()
"""


def lock_at(directory: Path, clock: ManualClock | None = None, device: str = "GPU-1") -> DeviceLock:
    clock = clock or ManualClock()
    return DeviceLock(device, directory=directory, clock=clock, sleep=clock.sleep)


def test_one_holder_a_device(tmp_path: Path) -> None:
    first, second, other = lock_at(tmp_path), lock_at(tmp_path), lock_at(tmp_path, device="cpu")
    first.acquire(0)
    first.acquire(0)  # held already
    other.acquire(0)
    with pytest.raises(Unavailable, match=rf"held by pid {os.getpid()}"):
        second.acquire(0)
    first.release()
    first.release()
    second.acquire(0)
    assert (first.held, second.held) == (False, True)
    second.release()
    other.release()


def test_waiting_is_told_once_and_ends_at_the_limit(tmp_path: Path) -> None:
    clock, told = ManualClock(), []
    first, second = lock_at(tmp_path), lock_at(tmp_path, clock)
    first.acquire(0)
    with pytest.raises(Unavailable, match="another test session"):
        second.acquire(30, told.append)
    assert clock.now_s == pytest.approx(30, abs=1)
    assert len(told) == 1
    assert str(os.getpid()) in told[0]
    assert not second.held
    first.release()


def test_a_holder_that_is_killed_frees_the_device(tmp_path: Path) -> None:
    path = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, sys.path)])
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        mine = lock_at(tmp_path)
        with pytest.raises(Unavailable, match=rf"held by pid {holder.pid} \("):
            mine.acquire(0)
        holder.kill()
        holder.wait()
        mine.acquire(0)
        mine.release()


def test_the_runtime_directory_is_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    directory = runtime_directory()
    assert directory.parent == tmp_path
    assert directory.stat().st_mode & 0o777 == 0o700
    assert runtime_directory() == directory


def test_a_directory_of_somebody_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / f"pytest-qwen-{os.getuid()}").symlink_to("/")
    with pytest.raises(Unavailable, match="not ours"):
        runtime_directory()


def test_a_directory_that_cannot_be_made_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "file"))
    with pytest.raises(Unavailable, match="XDG_RUNTIME_DIR"):
        runtime_directory()


def test_odd_device_names_stay_in_the_directory(tmp_path: Path) -> None:
    lock = lock_at(tmp_path, device="../../GPU 1")
    lock.acquire(0)
    assert [path.parent for path in tmp_path.iterdir()] == [tmp_path]
    lock.release()
