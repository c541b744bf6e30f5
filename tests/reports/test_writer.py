"""The report folder: whole files, the journal, and every way in which the disk can refuse."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from record_samples import full_record, header, record

from pytest_qwen.errors import Misuse, Unavailable
from pytest_qwen.records import JOURNAL_NAME, RUN_NAME, load_records
from pytest_qwen.reports.writer import Writer, write_atomically

ROOT = Path(__file__).parents[2]


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_run_leaves_every_file_and_no_journal(tmp_path: Path) -> None:
    writer, records = Writer(tmp_path / "a" / "b"), [full_record(), record()]
    writer.prepare()
    assert names(writer.folder) == set()
    for made in records:
        writer.append(made)
    assert names(writer.folder) == {JOURNAL_NAME}
    written = writer.finish(records, header())
    answer = "Qwen2.5-Coder-7B-Instruct__20260301_120005.md"
    assert names(writer.folder) == {RUN_NAME, "summary.csv", "report.md", answer}
    assert {path.name for path in written.paths} == names(writer.folder)
    assert written.problems == ()
    assert load_records(writer.folder) == tuple(records)
    run = json.loads((writer.folder / RUN_NAME).read_text(encoding="utf-8"))
    assert (run["version"], run["header"]["pytest"]) == ("pytest-qwen-run/1", "9.2.0")


def test_what_was_measured_survives_a_crash(tmp_path: Path) -> None:
    earlier = Writer(tmp_path)
    earlier.finish([record(nodeid="old")], header())
    writer = Writer(tmp_path)
    writer.append(record(nodeid="first"))
    writer.append(record(nodeid="second"))
    # no finish: the process died
    assert [made.nodeid for made in load_records(tmp_path)] == ["first", "second"]


def test_a_new_run_replaces_the_journal_of_a_crashed_one(tmp_path: Path) -> None:
    Writer(tmp_path).append(record(nodeid="crashed"))
    writer = Writer(tmp_path)
    writer.append(record(nodeid="new"))
    writer.append(record(nodeid="newer"))
    assert [made.nodeid for made in load_records(tmp_path)] == ["new", "newer"]


def test_text_that_utf8_cannot_hold_is_written(tmp_path: Path) -> None:
    odd = record(reason="\ud800", nodeid="test_\udcff.py::t")
    writer = Writer(tmp_path)
    writer.append(odd)
    assert writer.finish([odd], header()).problems == ()
    assert load_records(tmp_path)[0].reason == "\\ud800"


@pytest.mark.parametrize("inside", [False, True])
def test_a_file_in_the_way_is_misuse(tmp_path: Path, inside: bool) -> None:
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    folder = tmp_path / "file" / "sub" if inside else tmp_path / "file"
    with pytest.raises(Misuse, match=r"report folder cannot be written(.|\n)*names a file"):
        Writer(folder).prepare()
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"


def test_atomic_write_leaves_the_old_file_when_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "x"
    write_atomically(target, b"old")

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(target, b"new")
    assert (target.read_bytes(), names(tmp_path)) == (b"old", {"x"})


# ---- a disk that is really full


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("a small file system can be mounted by root on Linux only")
    libc = ctypes.CDLL(None, use_errno=True)
    folder = tmp_path / "disk"
    folder.mkdir()
    if libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", 0, b"size=64k") != 0:
        pytest.skip(f"cannot mount a small file system: {os.strerror(ctypes.get_errno())}")
    yield folder
    libc.umount2(os.fsencode(folder), 2)


def fill(folder: Path, leave: int) -> Path:
    """Take all the space but `leave` bytes."""
    with (folder / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0" * 4096)
    os.truncate(folder / "filler", (folder / "filler").stat().st_size - leave)
    return folder / "filler"


def test_a_full_disk_is_seen_before_measuring(small_disk: Path) -> None:
    fill(small_disk, 0)
    with pytest.raises(Unavailable, match="No space left"):
        Writer(small_disk).prepare()
    assert names(small_disk) == {"filler"}


def test_a_disk_that_fills_up_keeps_what_was_measured_before(small_disk: Path) -> None:
    writer, kept, large = (
        Writer(small_disk),
        record(nodeid="kept"),
        record(nodeid="large", reason="x" * 40_000),
    )
    writer.prepare()
    fill(small_disk, 8192)
    writer.append(kept)
    writer.append(large)
    written = writer.finish([kept, large], header())
    assert [made.nodeid for made in load_records(small_disk)] == ["kept"]
    assert len(written.problems) == 1
    for said in (str(small_disk), "No space left", RUN_NAME, "records.jsonl (1 records)"):
        assert said in written.problems[0]
    assert not [name for name in names(small_disk) if name.endswith(".tmp")]
    assert {p.name for p in written.paths} | {"filler"} == names(small_disk)


def test_space_that_comes_back_makes_the_report_whole(small_disk: Path) -> None:
    writer, made = Writer(small_disk), record()
    filler = fill(small_disk, 0)
    writer.append(made)
    assert JOURNAL_NAME not in names(small_disk)
    filler.unlink()
    assert writer.finish([made], header()).problems == ()
    assert load_records(small_disk) == (made,)


# ---- permissions, as somebody who is not root

UNPRIVILEGED = """
import os, sys
from pathlib import Path
from record_samples import header, record
from pytest_qwen.errors import QwenError
from pytest_qwen.reports.writer import Writer
writer = Writer(Path(sys.argv[1]))
if os.geteuid() == 0:  # after the imports: this user may not even read the interpreter's files
    os.setegid(65534)
    os.seteuid(65534)
if sys.argv[2] == "prepare":
    try:
        writer.prepare()
    except QwenError as error:
        print(type(error).__name__, error)
else:
    writer.append(record())
    print(*writer.finish([record()], header()).problems)
"""


@pytest.fixture
def unprivileged() -> Iterator[Callable[[Path, str], str]]:
    """Runs the writer on a folder as a user who owns nothing."""

    def run(folder: Path, what: str) -> str:
        path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
        done = subprocess.run(
            [sys.executable, "-B", "-c", UNPRIVILEGED, str(folder), what],
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o555)
    for parent in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        if os.geteuid() == 0 and parent != Path("/tmp"):  # noqa: S108 - pytest keeps its folders private
            parent.chmod(0o755)
    yield folder
    folder.chmod(0o755)


def test_no_permission_is_said_before_measuring(
    locked: Path, unprivileged: Callable[[Path, str], str]
) -> None:
    said = unprivileged(locked, "prepare")
    assert said.startswith("Unavailable the report folder cannot be written")
    assert "Permission denied" in said
    assert str(locked) in said


def test_no_permission_to_make_the_folder(locked: Path, unprivileged: Callable[[Path, str], str]) -> None:
    assert "Permission denied" in unprivileged(locked / "new", "prepare")


def test_lost_permission_is_one_message(locked: Path, unprivileged: Callable[[Path, str], str]) -> None:
    said = unprivileged(locked, "write")
    assert said.count("Permission denied") == 1
    assert f"not written: {JOURNAL_NAME}, {RUN_NAME}, summary.csv, report.md; kept: nothing" in said
    assert names(locked) == set()
