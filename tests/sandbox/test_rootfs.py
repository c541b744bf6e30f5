"""The offline root file system: what its tar stream says, which libraries it takes, what is in it."""

import io
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from pytest_qwen.errors import Unavailable
from pytest_qwen.sandbox import rootfs


def entries(root: Path) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(b"".join(rootfs.tar(root)))) as stream:
        members = stream.getmembers()
    names = [member.name for member in members]
    assert len(names) == len(set(names)), "engines refuse a path that comes twice"
    return dict(zip(names, members, strict=True))


def fill(root: Path, names: list[str]) -> Path:
    for name in names:
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(name.encode() * 1000)
    return root


NAMES = [
    "usr/lib/b.so",
    "usr/lib/a.py",
    "opt/tf4/x/y/z.txt",
    "etc/größe",
    f"usr/{'long/' * 40}name",
    "empty/.keep",
]


def test_the_stream_is_the_same_whatever_order_and_dates_the_files_have(tmp_path: Path) -> None:
    one, other = fill(tmp_path / "one", NAMES), fill(tmp_path / "other", NAMES[::-1])
    os.utime(other / NAMES[0], (1, 1))
    (other / NAMES[1]).chmod(0o600)
    assert b"".join(rootfs.tar(one)) == b"".join(rootfs.tar(other))


def test_every_parent_is_listed_before_what_is_in_it(tmp_path: Path) -> None:
    seen: set[str] = set()
    for name in entries(fill(tmp_path, NAMES)):
        parent = name.rpartition("/")[0]
        assert not parent or parent in seen
        seen.add(name)
    assert set(NAMES) <= seen


def test_contents_arrive_whole(tmp_path: Path) -> None:
    fill(tmp_path, NAMES)
    (tmp_path / "large").write_bytes(os.urandom((3 << 20) + 5))
    (tmp_path / "nothing").touch()
    with tarfile.open(fileobj=io.BytesIO(b"".join(rootfs.tar(tmp_path)))) as stream:
        for name in [*NAMES, "large", "nothing"]:
            file = stream.extractfile(name)
            assert file is not None
            assert file.read() == (tmp_path / name).read_bytes()


def test_files_belong_to_root_are_readable_and_never_setuid(tmp_path: Path) -> None:
    fill(tmp_path, ["private/model", "bin/su", "tmp/.x", "var/tmp/.x"])
    (tmp_path / "private/model").chmod(0o600)
    (tmp_path / "bin/su").chmod(0o6711)
    (tmp_path / "private").chmod(0o700)
    found = entries(tmp_path)
    assert {(member.uid, member.gid, member.uname) for member in found.values()} == {(0, 0, "root")}
    modes = {name: oct(member.mode) for name, member in found.items()}
    assert modes["private"] == "0o755"
    assert modes["private/model"] == "0o644"
    assert modes["bin/su"] == "0o755"
    assert modes["tmp"] == modes["var/tmp"] == "0o1777"


def test_links_are_kept_and_not_followed(tmp_path: Path) -> None:
    fill(tmp_path, ["usr/lib/a"])
    (tmp_path / "lib").symlink_to("usr/lib")
    found = entries(tmp_path)
    assert found["lib"].linkname == "usr/lib"
    assert "lib/a" not in found


DEBIAN = """/usr/bin/python3:
\tlinux-vdso.so.1 (0x00007ffc1)
\tlibm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x00007f1)
\tlibcuda.so.1 => not found
\tlibtorch.so => /stage/usr/local/lib/libtorch.so (0x00007f2)
\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f3)
\t/lib64/ld-linux-x86-64.so.2 (0x00007f4)
/stage/static:
\tstatically linked
"""
ARM = """\tlinux-vdso.so.1 (0x0000ffff1)
\tlibc.so.6 => /lib/aarch64-linux-gnu/libc.so.6 (0x0000ffff2)
\t/lib/ld-linux-aarch64.so.1 (0x0000ffff3)
"""


def test_libraries_of_the_machine_are_taken_and_those_of_packages_left() -> None:
    loader, libraries = rootfs.needed(DEBIAN, inside=Path("/stage"))
    assert loader == Path("/lib64/ld-linux-x86-64.so.2")
    assert libraries == {
        "libm.so.6": Path("/lib/x86_64-linux-gnu/libm.so.6"),
        "libc.so.6": Path("/lib/x86_64-linux-gnu/libc.so.6"),
    }


def test_another_architecture_has_its_own_paths() -> None:
    loader, libraries = rootfs.needed(ARM, inside=Path("/stage"))
    assert loader == Path("/lib/ld-linux-aarch64.so.1")
    assert libraries == {"libc.so.6": Path("/lib/aarch64-linux-gnu/libc.so.6")}


def test_a_package_that_pip_cannot_get_is_told_in_pips_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    (tmp_path / "requirements.txt").write_text("tiny-missing==1.0\n")
    with pytest.raises(Unavailable, match=r"cannot be installed(?s:.*)tiny-missing==1\.0"):
        rootfs.install(tmp_path / "site", tmp_path / "requirements.txt")


@pytest.fixture(scope="module")
def tiny_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole root with one package, made without any index."""
    folder = tmp_path_factory.mktemp("tiny")
    wheel(folder)
    (folder / "requirements.txt").write_text("tiny==1.0\n")
    (folder / "root").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIP_NO_INDEX", "1")
        patch.setenv("PIP_FIND_LINKS", str(folder))
        beside = {"opt/tf4": folder / "requirements.txt"}
        rootfs.stage(folder / "root", requirements=folder / "requirements.txt", beside=beside)
    return folder / "root"


def wheel(folder: Path) -> None:
    """tiny 1.0: a module and a script."""
    info = "tiny-1.0.dist-info"
    files = {
        "tiny.py": "def main():\n    print('tiny runs')\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": "[console_scripts]\ntiny = tiny:main\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in (*files, f"{info}/RECORD"))
    with zipfile.ZipFile(folder / "tiny-1.0-py3-none-any.whl", "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)


@pytest.mark.slow
def test_the_root_holds_python_its_libraries_and_the_packages_and_no_shell(tiny_root: Path) -> None:
    names = set(entries(tiny_root))
    assert {
        f"{rootfs.SITE}/tiny.py",
        "opt/tf4/tiny.py",
        "usr/local/bin/python3",
        "usr/local/bin/tiny",
    } <= names
    assert any(name.endswith("/libc.so.6") for name in names)
    assert not {"bin/sh", "usr/bin/sh", "usr/bin/bash", f"{rootfs.SITE}/bin", "opt/tf4/bin"} & names
    assert not [name for name in names if name.startswith((f"{rootfs.STDLIB}/test/", f"{rootfs.SITE}/pip/"))]


@pytest.mark.slow
def test_every_module_has_bytecode_that_names_the_containers_paths(tiny_root: Path) -> None:
    cached = f"__pycache__/tiny.{sys.implementation.cache_tag}.pyc"
    for folder in (rootfs.SITE, "opt/tf4"):
        code = (tiny_root / folder / cached).read_bytes()
        assert f"/{folder}/tiny.py".encode() in code
        assert int.from_bytes(code[4:8], "little") == 1, "by hash and unchecked: dates do not matter"
    assert str(tiny_root).encode() not in code


@pytest.mark.slow
@pytest.mark.skipif(os.getuid() != 0, reason="only root can enter another root folder")
def test_the_root_runs_by_itself(tiny_root: Path) -> None:
    program = "import ssl, sqlite3, ctypes, os, sys; print(sys.prefix, os.listdir('/opt'))"
    for command, expected in (
        (["python3", "-c", program], "/usr/local ['tf4']\n"),
        (["tiny"], "tiny runs\n"),
    ):
        done = subprocess.run(
            ["chroot", str(tiny_root), *command],
            capture_output=True,
            text=True,
            env={"PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
            check=False,
        )
        assert (done.stdout, done.stderr) == (expected, "")
