"""How a program found in an answer is started, and the example requests that the answer shows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pytest_qwen.exchanges import Call
from pytest_qwen.probing import multipart
from pytest_qwen.scenarios.base import Seen, Trial
from pytest_qwen.serving import PORT, Launch

# Below /work, where no file of a program can be: their names never begin with a dot.
_HUB = ".hub"
# Below /work, found before installed packages: what stands in for a package that the image lacks.
_STUBS = ".stubs"
# Frameworks whose apps the trusted server program can run.
_ASGI = ("fastapi", "starlette", "quart", "litestar", "sanic", None)
_MOST_STUBS = 5
_MOST_EXAMPLES = 3
_CARRIED_HEADERS = ("authorization", "accept", "x-")

# Takes every attribute, call and decorator, and does nothing.
_STUB = b"""
class _Nothing:
    def __call__(self, *args, **kwargs):
        return args[0] if len(args) == 1 and callable(args[0]) and not kwargs else self
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return self
    def __enter__(self):
        return self
    def __exit__(self, *args):
        return False
__path__ = []
def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    return _Nothing()
"""


def launch_of(
    trial: Trial,
    *,
    environment: str = "tf5",
    hub: Mapping[str, bytes] | None = None,
    stubs: tuple[str, ...] = (),
) -> Launch:
    """The start of a trial's program, with the given model files in its model cache."""
    argv, mode = _command(trial.source, trial.program.main)
    files = {file.path: file.text.encode("utf-8", "backslashreplace") for file in trial.program.files}
    files |= {f"{_HUB}/{name.removeprefix('hub/')}": content for name, content in (hub or {}).items()}
    files |= {f"{_STUBS}/{name}/__init__.py": _STUB for name in stubs}
    paths = [*(["/opt/tf4"] if environment == "tf4" else []), *([f"/work/{_STUBS}"] if stubs else [])]
    env = {
        "HF_HUB_CACHE": f"/work/{_HUB}",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "OMP_NUM_THREADS": "1",
        **({"PYTHONPATH": ":".join(paths)} if paths else {}),
    }
    return Launch(argv=argv, files=files, env=env, mode=mode, environment=environment, seed=trial.seed)


def _command(source: Mapping[str, Any], main: str) -> tuple[tuple[str, ...], str]:
    """The command and whether it runs an app object ("module") or the program's own file ("script")."""
    app, block = source.get("app"), source.get("main_block")
    if app is not None and app["framework"] in _ASGI:
        factory = ("--factory",) if app["kind"] == "factory" else ()
        folder = ("--app-dir", app["directory"]) if app["directory"] else ()
        where = ("--host", "127.0.0.1", "--port", str(PORT), "--workers", "1")
        return (
            "python3",
            "-m",
            "uvicorn",
            f"{app['module']}:{app['name']}",
            *factory,
            *folder,
            *where,
        ), "module"
    path = (block or app or {}).get("path", main)
    return ("python3", path), "script"


def another_stub(trial: Trial, seen: Seen, stubs: tuple[str, ...]) -> str | None:
    """The package to put an empty stub in place of after a start that lacked it, or None."""
    main = seen.servers.get("main")
    missing = main.missing_import if main and not main.ready else None
    if missing is None:
        return None
    name = missing.partition(".")[0]
    if trial.missing_imports == "stub" and name not in stubs and len(stubs) < _MOST_STUBS:
        return name
    if trial.missing_imports == "unrated":
        seen.facts["limited"] = (
            f"environment-limited: the guest image lacks {name!r}, which the program imports"
        )
    return None


def example_calls(source: Mapping[str, Any], image: bytes) -> list[Call]:
    """The example requests of the answer that change or send something, host and files replaced."""
    sending = [one for one in source.get("examples", ()) if one["method"] in {"POST", "PUT"}]
    return [_example(f"example.{i}", one, image) for i, one in enumerate(sending[:_MOST_EXAMPLES])]


def _example(name: str, one: Mapping[str, Any], image: bytes) -> Call:
    carried = tuple((k, v) for k, v in one["headers"] if k.lower().startswith(_CARRIED_HEADERS))
    call = Call(name=name, method=one["method"], path=one["path"], headers=carried)
    files = [field for field in one["fields"] if field["kind"] == "file"]
    if files:
        texts = {field["name"]: field["value"] for field in one["fields"] if field["kind"] == "text"}
        kind = files[0]["content_type"] or "image/png"
        headers, body = multipart(files[0]["name"], f"photo.{_suffix(kind)}", kind, image, fields=texts)
        return replace(call, headers=(*carried, *headers), body=body)
    if one["body"] is not None:
        told = next((v for k, v in one["headers"] if k.lower() == "content-type"), "application/json")
        return replace(call, headers=(*carried, ("Content-Type", told)), body=(one["body"].encode(),))
    return call


def _suffix(content_type: str) -> str:
    return re.sub(r"[^a-z]", "", content_type.partition("/")[2]) or "png"
