"""A root file system from the running interpreter and pip's packages, for images without a registry."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from pytest_qwen.errors import Unavailable, explain

PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
_PROGRAMS = "usr/local/bin"
STDLIB = f"usr/local/lib/{PYTHON}"
SITE = f"{STDLIB}/site-packages"

# Empty folders that a container expects, and what every program expects to read.
_FOLDERS = (
    "dev",
    "etc",
    "opt",
    "proc",
    "run",
    "sys",
    "tmp",
    "usr/bin",
    "usr/lib",
    "usr/lib64",
    "var/tmp",
    "work",
)
_LINKS = {"bin": "usr/bin", "lib": "usr/lib", "lib64": "usr/lib64"}
_ETC = {
    "passwd": "root:x:0:0:root:/:/nonexistent\nnobody:x:65534:65534:nobody:/tmp:/nonexistent\n",
    "group": "root:x:0:\nnogroup:x:65534:\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}
# Left out of the standard library: its tests, what needs a screen, what installs or links.
_UNUSED = (
    "site-packages",
    "dist-packages",
    "test",
    "idlelib",
    "tkinter",
    "turtledemo",
    "ensurepip",
    "config-*",
)
_UNUSED_FILES = ("__pycache__", "*.a", "_tkinter*", "EXTERNALLY-MANAGED")
# Loaded by name while a program runs, so that no file asks for them: thread cancellation and name lookup.
_BY_NAME = ("libgcc_s.so.1", "libnss_files.so.2", "libnss_dns.so.2")
_MTIME = 315_532_800  # 1980-01-01, the oldest date that a zip file can hold
_BLOCK_BYTES = 1 << 20


def stage(root: Path, *, requirements: Path, beside: Mapping[str, Path] | None = None) -> None:
    """Fill the empty folder `root` with everything that a program in the container needs.

    `requirements` is pip's list for site-packages; `beside` maps further folders ("opt/tf4") to lists that
    are installed there without what they depend on. Raises Unavailable when pip or the machine cannot do it.
    """
    _skeleton(root)
    python_elf = _copy_python(root)
    install(root / SITE, requirements)
    for folder, listed in (beside or {}).items():
        install(root / folder, listed, alone=True)
    _keep_programs(root)
    _compile(root, (STDLIB, *(beside or {})))
    _copy_libraries(root, [*python_elf, *_elf_files(root)])


def install(folder: Path, requirements: Path, *, alone: bool = False) -> None:
    """Have pip install ready-made packages into a folder. Raises Unavailable with pip's own last words."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--only-binary=:all:"]
    command += ["--no-input", "--disable-pip-version-check", "--target", str(folder), "-r", str(requirements)]
    environment = {**os.environ, "PIP_USER": "0"}  # a user-wide default would contradict --target
    done = subprocess.run(
        command + ["--no-deps"] * alone, check=False, capture_output=True, text=True, env=environment
    )
    if done.returncode:
        raise Unavailable(
            explain(
                "the packages of the sandbox image cannot be installed",
                asked=f"pip install -r {requirements}",
                found="\n".join(done.stderr.strip().splitlines()[-5:]),
                next_step="let pip reach an index that has them (PIP_INDEX_URL, PIP_FIND_LINKS)",
            )
        )


def tar(root: Path) -> Iterator[bytes]:
    """The folder as a tar stream in large blocks: sorted, owned by root, readable by all, nothing setuid."""
    block = bytearray()
    for piece in _pieces(root):
        block += piece
        if len(block) >= _BLOCK_BYTES:
            yield bytes(block)
            block.clear()
    block += bytes(2 * tarfile.BLOCKSIZE)
    yield bytes(block)


def _pieces(root: Path) -> Iterator[bytes]:
    for path in sorted(root.rglob("*")):
        info = _entry(path, path.relative_to(root).as_posix())
        yield info.tobuf(tarfile.PAX_FORMAT)
        if info.isreg():
            with path.open("rb") as file:
                while data := file.read(_BLOCK_BYTES):
                    yield data
            yield bytes(-info.size % tarfile.BLOCKSIZE)


def _entry(path: Path, name: str) -> tarfile.TarInfo:
    """The header of one file. Its owner, date and special bits never come from this machine."""
    info = tarfile.TarInfo(name)
    info.mtime = _MTIME
    info.uname = info.gname = "root"
    if path.is_symlink():
        info.type, info.linkname, info.mode = tarfile.SYMTYPE, str(path.readlink()), 0o777
    elif path.is_dir():
        info.type, info.mode = tarfile.DIRTYPE, 0o1777 if name in {"tmp", "var/tmp"} else 0o755
    else:
        stat = path.stat()
        info.size, info.mode = stat.st_size, 0o755 if stat.st_mode & 0o100 else 0o644
    return info


def _skeleton(root: Path) -> None:
    for folder in _FOLDERS:
        (root / folder).mkdir(parents=True, exist_ok=True)
    for name, target in _LINKS.items():
        (root / name).symlink_to(target)
    for name, text in _ETC.items():
        (root / "etc" / name).write_text(text, encoding="ascii")


def _copy_python(root: Path) -> list[Path]:
    """Copy the interpreter and its library; the machine's own files among them that need shared libraries.

    The originals are named because an interpreter may find its libraries relative to where it lies.
    """
    programs = root / _PROGRAMS
    programs.mkdir(parents=True)
    executable = Path(sys.executable).resolve()
    shutil.copyfile(executable, programs / PYTHON)
    (programs / PYTHON).chmod(0o755)
    for alias in ("python", "python3"):
        (programs / alias).symlink_to(PYTHON)
    ignore = shutil.ignore_patterns(*_UNUSED, *_UNUSED_FILES)
    elf = [executable]
    for library in sorted({sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}):
        source = Path(os.path.realpath(library))
        shutil.copytree(
            source, root / STDLIB, ignore=ignore, dirs_exist_ok=True, ignore_dangling_symlinks=True
        )
        elf += _elf_files(source / "lib-dynload")
    (root / SITE).mkdir()
    (root / STDLIB / "dist-packages").symlink_to("site-packages")  # where Debian's own Python looks
    return [path for path in elf if not path.name.startswith("_tkinter")]


def _keep_programs(root: Path) -> None:
    """Move packages' programs to where PATH finds them; their scripts get the container's Python."""
    programs = root / SITE / "bin"
    for path in sorted(programs.iterdir()) if programs.is_dir() else ():
        if path.is_file() and not (root / _PROGRAMS / path.name).exists():
            first, newline, rest = path.read_bytes().partition(b"\n")
            if first.startswith(b"#!"):
                path.write_bytes(f"#!/{_PROGRAMS}/python3".encode() + newline + rest)
            shutil.move(path, root / _PROGRAMS / path.name)
    for scripts in (programs, *(root / "opt").glob("*/bin")):
        shutil.rmtree(scripts, ignore_errors=True)


def _compile(root: Path, folders: Iterable[str]) -> None:
    """Bytecode beside every module: the container cannot write any, and its files never change."""
    for folder in folders:
        options = ["-qq", "-j", "0", "--invalidation-mode", "unchecked-hash", "-d", f"/{folder}"]
        # files for other versions of Python do not compile, which is no fault: nothing here imports them
        subprocess.run(
            [sys.executable, "-m", "compileall", *options, str(root / folder)],
            check=False,
            capture_output=True,
            env={**os.environ, "PYTHONHASHSEED": "0"},
        )


def _elf_files(folder: Path) -> list[Path]:
    """Programs and shared libraries below a folder, in order."""
    found = []
    for path in sorted(folder.rglob("*")):
        maybe = ".so" in path.name or (path.is_file() and path.stat().st_mode & 0o100)
        if maybe and path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                if file.read(4) == b"\x7fELF":
                    found.append(path)
    return found


def _copy_libraries(root: Path, elf: Sequence[Path]) -> None:
    """Copy what the loader would load for these files into the loader's own default folder."""
    loader, libraries = needed(_ldd(elf), inside=root)
    libc = libraries.get("libc.so.6")
    if loader is None or libc is None:
        raise Unavailable(
            explain(
                "no root file system can be made from this Python",
                found="its programs are not linked against glibc",
                next_step="build the image online: pytest-qwen sandbox build",
            )
        )
    _copy_file(loader, _merged(root, loader))
    for name in _BY_NAME:
        if (libc.parent / name).exists():
            libraries.setdefault(name, libc.parent / name)
    for name, path in sorted(libraries.items()):
        _copy_file(path, _merged(root, libc.parent / name))
    for locale in ("C.utf8", "C.UTF-8"):  # glibc before 2.35 reads this one from files
        if (source := Path("/usr/lib/locale") / locale).is_dir():
            shutil.copytree(source, root / "usr/lib/locale" / locale)


def _ldd(elf: Sequence[Path]) -> str:
    output = []
    for start in range(0, len(elf), 200):
        try:
            done = subprocess.run(
                ["ldd", *map(str, elf[start : start + 200])],  # noqa: S607 - wherever this system keeps it
                check=False,
                capture_output=True,
                text=True,
                env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
            )
        except OSError as error:
            raise Unavailable(
                explain("the shared libraries of Python cannot be found", asked="ldd", found=str(error))
            ) from error
        output.append(done.stdout)
    return "\n".join(output)


def needed(ldd_output: str, *, inside: Path) -> tuple[Path | None, dict[str, Path]]:
    """The loader and the shared libraries by name that `ldd` lists, but for those below `inside`."""
    loader = None
    libraries: dict[str, Path] = {}
    for name, arrow, path in re.findall(r"^\s+(\S+)( => (\S+))? \(0x", ldd_output, re.MULTILINE):
        if arrow and path.startswith("/") and not Path(path).is_relative_to(inside):
            libraries.setdefault(Path(name).name, Path(path))
        elif not arrow and name.startswith("/"):
            loader = loader or Path(name)
    return loader, libraries


def _merged(root: Path, path: Path) -> Path:
    """Where a file goes when /lib, /lib64 and /bin are links into /usr."""
    first, *rest = path.parts[1:]
    return root.joinpath(_LINKS.get(first, first), *rest)


def _copy_file(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(0o755)
