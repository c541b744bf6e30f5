"""What the text of a program says, found by reading it in a container: syntax, imports, routes, lint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pytest_qwen.programs import Program, SourceFile
from pytest_qwen.sandbox.base import Sandbox
from pytest_qwen.sandbox.tools import ask

_TIMEOUT_S = 60.0


def analyse(sandbox: Sandbox, program: Program, *, model_ids: Sequence[str] = ()) -> dict[str, Any]:
    """The facts that `sandbox/inside/analyse/` finds. Raises SandboxFault when it cannot be run."""
    message = {
        "files": _texts(program.files),
        "main": program.main,
        "attachments": _texts(program.attachments),
        "clients": _texts(program.clients),
        "prose": program.prose,
        "model_id": model_ids[0] if model_ids else None,
    }
    return ask(sandbox, "analyse.pyz", message, timeout_s=_TIMEOUT_S)


def _texts(files: Sequence[SourceFile]) -> Mapping[str, str]:
    return {file.path: file.text for file in files}
