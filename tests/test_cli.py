"""The command: what it prints, what it copies, what it says when it cannot."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_qwen import __version__, cli, data
from pytest_qwen.gpus import CATALOGUE


def test_where_prints_the_folders(capsys):
    assert cli.main(["where", "suites"]) == 0
    assert cli.main(["where", "fixtures"]) == 0
    assert capsys.readouterr().out.splitlines() == [str(data.suites_dir()), str(data.fixtures_dir())]


def test_version(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"pytest-qwen {__version__}\n"


def test_gpus_lists_the_whole_catalogue_with_unknown_as_a_dash(capsys):
    assert cli.main(["gpus"]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split()[:2] == ["alias", "name"]
    assert [row.split()[0] for row in rows] == list(CATALOGUE)
    l4 = next(row for row in rows if row.startswith("l4 "))
    assert l4.split()[-5:] == ["24", "300", "121", "72", "0.75"]
    t4 = next(row for row in rows if row.startswith("t4 "))
    assert t4.split()[-5:] == ["16", "320", "-", "70", "0.50"]


def test_models_lists_the_shipped_shapes_with_their_size(capsys):
    assert cli.main(["models"]) == 0
    _, *rows = capsys.readouterr().out.splitlines()
    by_id = {row.split()[0]: row.split()[1:] for row in rows}
    assert set(by_id) == set(data.known_models())
    assert by_id["Qwen/Qwen2.5-Coder-7B-Instruct"] == ["7.616", "7.616", "15.23"]
    assert by_id["Qwen/Qwen3-30B-A3B"][:2] == ["30.532", "3.353"]


def test_copies_the_suites_into_a_new_folder(tmp_path, capsys):
    target = tmp_path / "mine"
    assert cli.main(["suites", "copy", str(target)]) == 0
    copied = {path.relative_to(target) for path in target.rglob("*.py")}
    shipped = {path.relative_to(data.suites_dir()) for path in data.suites_dir().rglob("*.py")}
    assert copied == shipped
    assert not list(target.rglob("__pycache__"))
    assert f"next step: pytest {target}" in capsys.readouterr().out


def test_copies_into_an_empty_folder(tmp_path):
    assert cli.main(["suites", "copy", str(tmp_path)]) == 0
    assert (tmp_path / "planning").is_dir()


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_never_writes_over_what_is_there(tmp_path, capsys, kind):
    target = tmp_path / "mine"
    mine = target / "notes.txt" if kind == "folder" else target
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("keep me")
    assert cli.main(["suites", "copy", str(target)]) == 2
    error = capsys.readouterr().err
    assert f"{target} is in the way" in error
    assert "next step: name a folder that is new or empty" in error
    assert mine.read_text() == "keep me"
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [mine.name]


def test_a_path_through_a_file_is_one_message(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert cli.main(["suites", "copy", str(tmp_path / "file" / "mine")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("pytest-qwen: the suites cannot be copied\n")
    assert "Traceback" not in error


@pytest.mark.parametrize("existed", [False, True], ids=["new", "empty"])
def test_a_copy_that_breaks_off_leaves_nothing_behind(tmp_path, capsys, monkeypatch, existed):
    def break_off(_source, target, **_options):
        (Path(target) / "half").mkdir(parents=True)
        (Path(target) / "half" / "test_half.py").write_text("")
        raise PermissionError(13, "Permission denied", str(target))

    if existed:
        (tmp_path / "mine").mkdir()

    monkeypatch.setattr(cli.shutil, "copytree", break_off)
    assert cli.main(["suites", "copy", str(tmp_path / "mine")]) == 2
    assert "found: Permission denied" in capsys.readouterr().err
    assert [path.name for path in tmp_path.rglob("*")] == ["mine"] * existed


@pytest.mark.parametrize(
    "words", [[], ["wher"], ["where"], ["where", "tests"], ["suites"], ["suites", "move"]]
)
def test_an_unknown_command_is_usage_not_a_traceback(words, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(words)
    assert caught.value.code == 2
    assert "usage: pytest-qwen" in capsys.readouterr().err


def test_the_command_imports_neither_pytest_nor_torch():
    code = "import sys, pytest_qwen.cli as c; c.main(['gpus']); print({'pytest','torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


def test_a_reader_that_stops_early_is_no_error():
    reading, writing = os.pipe()
    os.close(reading)
    code = "import sys, pytest_qwen.cli as c; sys.exit(c.main(['gpus']))"
    with os.fdopen(writing, "w") as out:
        done = subprocess.run(
            [sys.executable, "-c", code], stdout=out, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 0
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("action", ["build", "check", "sweep"])
def test_the_sandbox_commands_say_why_there_is_no_engine(action, capsys):
    assert cli.main(["sandbox", action, "--engine", "unix:///nowhere/engine.sock"]) == 2
    said = capsys.readouterr().err
    assert "no container engine can be used" in said
    assert "there is no such socket" in said


def test_a_word_that_names_no_engine_is_a_usage_error(capsys):
    assert cli.main(["sandbox", "sweep", "--engine", "/var/run/docker.sock"]) == 2
    assert "unix:///var/run/docker.sock" in capsys.readouterr().err
