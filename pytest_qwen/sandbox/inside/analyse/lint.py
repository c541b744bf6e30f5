"""What ruff finds, under settings of our own and none of the answer's."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from pathlib import Path, PurePosixPath
from typing import Any

SELECT = (
    "E9,F,ASYNC,FAST001,FAST003,S,B,BLE001,E722,TRY,ANN001,ANN201,D100,D101,D103,C901,PLE,PLR0912,PLR0915,"
    "T201,PERF,UP,SIM"
)
IGNORE = "S101,S104"
# What FastAPI wants called in a default.
IMMUTABLE = [
    f"fastapi.{name}"
    for name in ("File", "Form", "Body", "Query", "Path", "Header", "Cookie", "Depends", "Security")
]
_TIMEOUT_S = 20
_MOST = 50  # findings of one code


def lint_facts(sources: dict[str, str]) -> dict[str, Any]:
    """The findings by code; `ok` is False, with `why`, where ruff itself gave no answer."""
    facts: dict[str, Any] = {"ok": False, "version": None, "why": None, "counts": {}, "findings": {}}
    ruff = [found] if (found := shutil.which("ruff")) else [sys.executable, "-m", "ruff"]
    try:
        with tempfile.TemporaryDirectory() as folder:
            paths = _write(Path(folder), sources)
            facts["version"] = _run([*ruff, "--version"], folder).stdout.strip().removeprefix("ruff ") or None
            done = _run([*ruff, *_arguments(), "--", *paths], folder)
            if done.returncode not in (0, 1):
                return facts | {"why": f"ruff ended with {done.returncode}: {done.stderr[-200:]}"}
            counts, findings = _by_code(json.loads(done.stdout), Path(folder))
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        return facts | {"why": f"ruff: {type(error).__name__}"}
    return facts | {"ok": True, "counts": counts, "findings": findings}


def _arguments() -> list[str]:
    immutable = f"lint.flake8-bugbear.extend-immutable-calls={json.dumps(IMMUTABLE)}"
    return [
        *("check", "--isolated", "--no-cache", "--ignore-noqa", "--output-format", "json"),
        *("--target-version", "py311", "--select", SELECT, "--ignore", IGNORE, "--config", immutable),
    ]


def _run(command: list[str], folder: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False, errors="replace"
    )


def _write(folder: Path, sources: dict[str, str]) -> list[str]:
    """Put the sources below the folder; paths that would lead out of it are passed over."""
    written = []
    for path, text in sources.items():
        pure = PurePosixPath(path)
        if pure.is_absolute() or ".." in pure.parts:
            continue
        (folder / pure).parent.mkdir(parents=True, exist_ok=True)
        (folder / pure).write_bytes(text.encode("utf-8", "replace"))
        written.append(str(pure))
    return written


def _by_code(
    found: list[dict[str, Any]], folder: Path
) -> tuple[dict[str, int], dict[str, list[dict[str, Any]]]]:
    counts = Counter(one["code"] or "invalid-syntax" for one in found)
    findings: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for one in found:
        code = one["code"] or "invalid-syntax"
        path = Path(one["filename"])
        shown = path.relative_to(folder.resolve()) if path.is_relative_to(folder.resolve()) else path
        if len(findings[code]) < _MOST:
            place = {"path": str(shown), "line": one["location"]["row"]}
            findings[code].append(place | {"message": one["message"][:120]})
    return dict(counts), dict(findings)
