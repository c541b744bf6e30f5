"""The analysis as it runs inside containers: one message in, one object of facts out, whatever the source does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pytest_qwen.sandbox.tools import script

RUFF = shutil.which("ruff", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")

SERVER = '''
"""Serves a model."""
import logging
import os
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI, File, UploadFile
from PIL import Image
from pydantic import BaseModel
from transformers import pipeline

from settings import LIMIT

try:
    import psutil
except ImportError:
    psutil = None

router = APIRouter(prefix="/v1")
MODEL = os.getenv("MODEL", "Falconsai/nsfw_image_detection")
state = {}


class Answer(BaseModel):
    label: str


@asynccontextmanager
async def lifespan(app: FastAPI):
    state["pipe"] = pipeline("image-classification", model=MODEL)
    yield


app = FastAPI(title="Images", lifespan=lifespan)


@router.post("/predict", response_model=Answer)
async def predict(file: UploadFile = File(...), top: int = 1) -> Answer:
    """Classify."""
    return await run_in_threadpool(state["pipe"], Image.open(file.file))


@app.get("/health")
def health():
    return {"ok": True}


app.include_router(router, prefix="/api")

if __name__ == "__main__":
    uvicorn.run(app, reload=True)
'''
CLIENT = """
import requests
BASE = "http://localhost:8000"
files = {"file": ("cat.png", open("cat.png", "rb"), "image/png")}
requests.post(f"{BASE}/api/v1/predict?top=2", files=files, data={"top": "1"}, headers={"X-Key": "k"})
"""
PROSE = """
Install with `pip install -U fastapi "uvicorn[standard]==0.30.1"`, then ask it:

curl -X POST "http://localhost:8000/api/v1/predict" \\
  -H "accept: application/json" \\
  -F "file=@cat.png;type=image/png" -F top=3
"""


@pytest.fixture(scope="session")
def analysis(tmp_path_factory: pytest.TempPathFactory) -> Path:
    bundle = tmp_path_factory.mktemp("analysis") / "analyse.pyz"
    bundle.write_bytes(script("analyse.pyz"))
    return bundle


def analyse(bundle: Path, source: str | dict[str, str], **message: Any) -> dict[str, Any]:
    files = {"main.py": source} if isinstance(source, str) else source
    given = {
        "files": files,
        "main": "main.py",
        "attachments": {},
        "clients": {},
        "prose": "",
        "model_id": None,
    }
    assert RUFF, "the tests need ruff"
    done = subprocess.run(
        [sys.executable, "-I", str(bundle)],
        input=json.dumps(given | message) + "\n",
        env={"PATH": str(Path(RUFF).parent)},
        cwd=bundle.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.count("\n") == 1
    facts = json.loads(done.stdout)
    assert isinstance(facts, dict)
    return facts


@pytest.fixture(scope="session")
def facts(analysis: Path) -> dict[str, Any]:
    requirements = "fastapi==0.115.0\n# more\nPillow>=10 ; python_version > '3.8'\n-r other.txt\n"
    return analyse(
        analysis,
        {"main.py": SERVER, "settings.py": "LIMIT = 1\n", "labels.json": "{}"},
        clients={"client.py": CLIENT},
        attachments={"requirements.txt": requirements},
        prose=PROSE,
        model_id="Falconsai/nsfw_image_detection",
    )


def test_nothing_is_missing_from_the_facts_of_a_source_that_does_not_parse(
    analysis: Path, facts: dict[str, Any]
) -> None:
    broken = analyse(analysis, "def f(:\n", prose=PROSE)
    assert broken.keys() == facts.keys()
    assert broken["parse"]["ok"] is False
    assert broken["parse"]["errors"][0] | {"message": ""} == {
        "path": "main.py",
        "line": 1,
        "kind": "SyntaxError",
        "message": "",
    }
    assert broken["install_commands"]
    assert "invalid-syntax" in broken["ruff"]["counts"]


def test_the_app_is_found_with_its_arguments(facts: dict[str, Any]) -> None:
    app = facts["app"]
    assert (app["module"], app["name"], app["kind"], app["framework"]) == (
        "main",
        "app",
        "instance",
        "fastapi",
    )
    assert app["directory"] == ""
    assert app["arguments"] == {"title": "'Images'", "lifespan": "lifespan"}
    assert facts["main_block"] == {
        "path": "main.py",
        "line": SERVER.splitlines().index('if __name__ == "__main__":') + 1,
    }


@pytest.mark.parametrize(
    ("files", "module", "directory"),
    [
        ({"app/main.py": "from app.core import x\napp = FastAPI()", "app/core.py": ""}, "app.main", ""),
        ({"src/main.py": "from core import x\napp = FastAPI()", "src/core.py": ""}, "main", "src"),
        ({"app/main.py": "from .core import x\napp = FastAPI()", "app/core.py": ""}, "app.main", ""),
    ],
)
def test_a_module_is_named_from_where_its_imports_count(
    analysis: Path, files: dict[str, str], module: str, directory: str
) -> None:
    app = analyse(analysis, files, main=next(iter(files)))["app"]
    assert (app["module"], app["directory"]) == (module, directory)


def test_imports_are_told_apart(facts: dict[str, Any]) -> None:
    kinds = {one["module"]: (one["kind"], one["guarded"]) for one in facts["imports"]}
    assert kinds["os"] == ("stdlib", False)
    assert kinds["PIL"] == ("third-party", False)
    assert kinds["settings"] == ("local", False)
    assert kinds["psutil"] == ("third-party", True)


def test_routes_have_their_prefixes_and_parameters(facts: dict[str, Any]) -> None:
    assert facts["routes"] == [
        ["POST", "/api/v1/predict", {"file": "UploadFile = File(...)", "top": "int = 1"}],
        ["GET", "/health", {}],
    ]


def test_handlers_say_what_they_do_with_the_model(facts: dict[str, Any]) -> None:
    predict, health = facts["handlers"]
    assert predict["async"] is True
    assert predict["takes_image"] is True
    assert predict["response_model"] == predict["returns"] == "Answer"
    assert [one["call"] for one in predict["offloads"]] == ["run_in_threadpool"]
    assert predict["loads"] == predict["inference"] == []
    assert health["async"] is False


def test_the_model_is_followed_through_names(facts: dict[str, Any]) -> None:
    assert facts["model_ids"] == ["Falconsai/nsfw_image_detection"]
    assert facts["asked_model_id"] == "Falconsai/nsfw_image_detection"
    assert facts["loads"][0]["function"] == "lifespan"
    assert facts["offloads"][0]["inference"] is True


def test_requirements_and_commands_are_read(facts: dict[str, Any]) -> None:
    listed = {(one["name"], one["origin"]): one["pinned"] for one in facts["requirements"]}
    assert listed == {
        ("fastapi", "requirements.txt"): True,
        ("pillow", "requirements.txt"): False,
        ("fastapi", "command"): False,
        ("uvicorn", "command"): True,
    }
    assert facts["install_commands"][0]["origin"] == "prose"


def test_example_requests_are_read_from_shells_and_clients(facts: dict[str, Any]) -> None:
    curl, client = facts["examples"]
    assert (curl["method"], curl["path"]) == ("POST", "/api/v1/predict")
    assert curl["headers"] == [["accept", "application/json"]]
    assert curl["fields"] == [
        {"name": "file", "kind": "file", "value": "cat.png", "content_type": "image/png"},
        {"name": "top", "kind": "text", "value": "3", "content_type": None},
    ]
    assert (client["method"], client["path"], client["origin"]) == (
        "POST",
        "/api/v1/predict?top=2",
        "client.py",
    )
    assert client["headers"] == [["X-Key", "k"]]
    assert client["fields"][0] == {
        "name": "file",
        "kind": "file",
        "value": "cat.png",
        "content_type": "image/png",
    }


def test_ruff_runs_under_our_settings_alone(analysis: Path) -> None:
    source = "# ruff: noqa\nimport os  # noqa\nfrom fastapi import FastAPI, Depends\n\n\ndef f(x: int = Depends(g)):\n    return 1\n"
    files = {
        "main.py": source,
        "pyproject.toml": "[tool.ruff.lint]\nignore = ['F401']\n",
        "../../out.py": "x = y",
    }
    facts = analyse(analysis, files)
    ruff = facts["ruff"]
    assert ruff["ok"] is True
    assert ruff["version"]
    assert {one["line"] for one in ruff["findings"]["F401"]} == {2, 3}
    assert "B008" not in ruff["counts"]
    assert {one["path"] for places in ruff["findings"].values() for one in places} == {"main.py"}
    assert not (analysis.parent.parent / "out.py").exists()


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("(" * 100_000, "SyntaxError"),
        ("x = " + "-" * 100_000 + "1", "RecursionError|MemoryError|SyntaxError|crash"),
        ("x = " + "+".join("1" * 50_000), "RecursionError|MemoryError|crash"),
        ("x = 1\0", "SyntaxError|ValueError"),
        ("x = '\ud800'", "ValueError|UnicodeEncodeError"),
        ("x = 1\n" * 200_000, "too large"),
    ],
    ids=["brackets", "signs", "sum", "null byte", "surrogate", "size"],
)
def test_a_source_made_to_crash_the_parser_is_a_fact(analysis: Path, source: str, kind: str) -> None:
    facts = analyse(analysis, source)
    assert facts["parse"]["ok"] is False
    assert any(facts["parse"]["errors"][0]["kind"].startswith(one) for one in kind.split("|"))


@pytest.mark.parametrize(
    "source",
    [
        "".join(f"a{n} = a{n + 1} or a{n + 2}\n" for n in range(300)) + "pipeline(model=a0)",
        "a = b\nb = a\npipeline(model=a)\na()\n",
        "def f():\n    return f()\n@app.get('/')\nasync def g():\n    return f()\npipeline(model=f())",
        "def f(x=" + "-" * 500 + "1):\n    return 1\n",
        "",
    ],
    ids=["fan", "circle", "recursion", "deep", "empty"],
)
def test_names_that_lead_nowhere_end(analysis: Path, source: str) -> None:
    facts = analyse(analysis, source)
    assert facts["parse"]["ok"] is True
    assert facts["failures"] == []


@pytest.mark.parametrize(
    "prose", ["pip install " + "a[" * 5000, "`" * 9999, "curl 'http://[" * 500, "\n".join(["a" * 9999] * 9)]
)
def test_strange_prose_is_no_trouble(analysis: Path, prose: str) -> None:
    facts = analyse(analysis, "x = 1", prose=prose, attachments={"pyproject.toml": "a = [" * 9999})
    assert facts["failures"] == []


def test_files_that_cannot_lie_in_one_folder_are_no_crash(analysis: Path) -> None:
    facts = analyse(analysis, {"main.py": "x = 1", "a.py": "", "a.py/b.py": "", "n" * 300 + ".py": ""})
    assert facts["parse"]["ok"] is True
    assert facts["ruff"]["ok"] is False
    assert facts["ruff"]["why"]


def test_the_bundle_has_the_same_bytes_every_time() -> None:
    assert script("analyse.pyz") == script("analyse.pyz")


def test_a_plain_script_is_its_text() -> None:
    assert script("probe.py").startswith(b'"""')
