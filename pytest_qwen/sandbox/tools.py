"""Runs one of our own scripts in a container: a JSON line in, a JSON object out."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from pytest_qwen.sandbox.base import Job, Limits, Sandbox, SandboxFault

_INSIDE = Path(__file__).parent / "inside"


def script(name: str) -> bytes:
    """A script that runs inside containers; "x.pyz" are the modules of the folder x in one file."""
    return _bundle(name.removesuffix(".pyz")) if name.endswith(".pyz") else (_INSIDE / name).read_bytes()


def _bundle(folder: str) -> bytes:
    """A zip file that Python runs: modules under their full names, in packages that hold nothing else."""
    package = f"pytest_qwen/sandbox/inside/{folder}"
    modules = sorted((_INSIDE / folder).glob("*.py"))
    files = {f"{package}/{module.name}": module.read_bytes() for module in modules}
    above = [str(parent) for parent in PurePosixPath(package).parents[:-1]]
    files |= {f"{parent}/__init__.py": b"" for parent in (package, *above)}
    files["__main__.py"] = f"import {package.replace('/', '.')}.__main__ as it\n\nit.main()\n".encode()
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in files.items():
            archive.writestr(zipfile.ZipInfo(path), data)  # a fixed date: the same bytes every time
    return written.getvalue()


def ask(
    sandbox: Sandbox, name: str, message: Mapping[str, Any], *, timeout_s: float, limits: Limits | None = None
) -> dict[str, Any]:
    """What a script answers to a message. Raises SandboxFault when no object comes in time."""
    job = Job(
        argv=("python3", "-I", name),
        files={name: script(name)},
        limits=limits or Limits(lifetime_s=timeout_s + 10),
        role="tool",
    )
    conversation = sandbox.talk(job)
    try:
        conversation.send(json.dumps(message).encode())
        line = conversation.receive(timeout_s)
        answer = json.loads(line)
    except ValueError as error:
        raise SandboxFault(f"{name} gave no answer that can be read: {error}") from error
    finally:
        conversation.close()
    if not isinstance(answer, dict):
        raise SandboxFault(f"{name} answered with a {type(answer).__name__} instead of an object")
    return answer
