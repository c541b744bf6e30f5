"""The guest images: what names them, what is said where they are missing, what the engine is asked to do."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from docker.errors import APIError, ImageNotFound

from pytest_qwen.errors import Unavailable
from pytest_qwen.sandbox import engines, image, rootfs
from pytest_qwen.sandbox.base import SandboxFault

PUBLISHED = (
    "fastapi uvicorn pydantic pydantic-settings python-multipart pillow torch transformers numpy requests httpx "
    "aiofiles psutil prometheus-client structlog loguru slowapi gunicorn flask python-dotenv"
)
PIN = re.compile(r"([a-z0-9-]+)(\[[a-z]+\])?==([0-9][\w.]*)")


class Engine:
    """A client of an engine that keeps images by name, and takes what it is handed."""

    def __init__(self) -> None:
        self.images = self
        self.containers = self
        self.api = self
        self.there: dict[str, Any] = {}
        self.removed: list[str] = []
        self.imported = b""
        self.changes: list[str] = []
        self.builds: list[dict[str, Any]] = []
        self.says: list[dict[str, Any]] = [{"status": "sha256:made"}]

    def get(self, name: str) -> Any:
        if name == "sha256:made":
            return SimpleNamespace(id=name, tag=lambda *parts: self.there.update({":".join(parts): {}}))
        if name not in self.there:
            raise ImageNotFound(f"No such image: {name}")
        return SimpleNamespace(labels=self.there[name], id=f"sha256:of {name}")

    def remove(self, name: str) -> None:
        self.removed.append(name)

    def import_image_from_data(self, data: Iterator[bytes], changes: list[str]) -> str:
        self.imported, self.changes = b"".join(data), changes
        return "\r\n".join(json.dumps(line) for line in self.says)

    def build(self, **options: Any) -> Iterator[dict[str, Any]]:
        self.builds.append(options)
        return iter(
            [{"stream": "Step 1/2 : FROM python"}, {"stream": " ---> 12"}, {"aux": {"ID": "sha256:made"}}]
        )

    def run(self, *command: Any, **options: Any) -> bytes:
        assert options["network_mode"] == "none"
        return b"fastapi==0.165.0 python==3.11.9\n"


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the recipe that a test may change."""
    shutil.copytree(image.recipe(), tmp_path / "recipe")
    monkeypatch.setattr(image, "recipe", lambda: tmp_path / "recipe")
    return tmp_path / "recipe"


def pins(file: str) -> dict[str, str]:
    lines = (image.recipe() / file).read_text().splitlines()
    wanted = [line for line in lines if line and not line.startswith(("#", "-r "))]
    found = [PIN.fullmatch(line) for line in wanted]
    assert all(found), "every package has one exact version"
    return {match[1]: match[3] for match in found if match}


def test_the_published_list_is_pinned_and_whole() -> None:
    slim, full, tf4 = (pins(f"requirements{name}.txt") for name in ("-slim", "", "-tf4"))
    assert set(PUBLISHED.split()) <= {*slim, *full}
    assert not set(slim) & set(full)
    assert not {"torch", "transformers"} & set(slim)
    assert "-r requirements-slim.txt" in (image.recipe() / "requirements.txt").read_text()
    assert full["transformers"].startswith("5.")
    assert tf4["transformers"].startswith("4.")


def test_the_recipe_names_no_host_and_ends_unprivileged() -> None:
    stages = (image.recipe() / "Containerfile").read_text().split("\nFROM ")[2:]
    assert [stage.split()[2] for stage in stages] == ["guest-slim", "guest"]
    assert all("\nUSER 65534:65534\n" in stage for stage in stages)
    for file in image.recipe().iterdir():
        assert "://" not in file.read_text()


def test_a_change_of_the_recipe_is_another_image(recipe: Path) -> None:
    before = {kind: image.name(kind) for kind in image.KINDS}
    assert image.name() == before["guest"]
    assert before["guest"].startswith("pytest-qwen/guest:")
    assert before["guest-slim"].startswith("pytest-qwen/guest-slim:")
    (recipe / "requirements-tf4.txt").write_text("transformers==4.0\n")
    assert image.name("guest") != before["guest"]
    assert image.name("guest-slim") == before["guest-slim"]
    (recipe / "requirements-slim.txt").write_text("fastapi==0.1\n")
    assert image.name("guest-slim") != before["guest-slim"]


def test_a_missing_image_is_told_with_the_way_to_build_it() -> None:
    engine: Any = Engine()
    assert image.present(engine) is None
    with pytest.raises(Unavailable, match="next step: pytest-qwen sandbox build"):
        image.find(engine, "guest-slim")


def test_an_image_that_is_there_is_found_with_its_versions() -> None:
    engine: Any = Engine()
    wanted = image.name()
    engine.there[wanted] = {
        image.PACKAGES_LABEL: "fastapi==0.165.0 tf4/transformers==4.57.6 torch==2.13.0+cpu"
    }
    assert image.find(engine) == image.present(engine) == wanted
    assert image.versions(engine, wanted) == {
        "fastapi": "0.165.0",
        "tf4/transformers": "4.57.6",
        "torch": "2.13.0+cpu",
    }


def test_an_engine_that_fails_is_no_missing_image(monkeypatch: pytest.MonkeyPatch) -> None:
    engine: Any = Engine()

    def fail(name: str) -> None:
        raise APIError("no space left on device")

    monkeypatch.setattr(engine, "get", fail)
    with pytest.raises(SandboxFault, match="no space left on device"):
        image.find(engine)


@pytest.fixture
def staged(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Stands for pip and the interpreter's copy: one package in a root."""
    calls: list[dict[str, Any]] = []

    def stage(root: Path, **options: Any) -> None:
        calls.append(options)
        info = root / rootfs.SITE / "tiny-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Name: tiny\nVersion: 1.0\n")

    monkeypatch.setattr(rootfs, "stage", stage)
    return calls


def test_offline_a_root_is_streamed_and_labelled_with_what_is_in_it(staged: list[dict[str, Any]]) -> None:
    engine: Any = Engine()
    said: list[str] = []
    made = image.build(engine, "guest-slim", offline=True, say=said.append)
    assert made == image.name("guest-slim")
    assert made in engine.there
    assert b"tiny-1.0.dist-info/METADATA" in engine.imported
    assert "USER 65534:65534" in engine.changes
    assert any(change.startswith(f'LABEL {image.PACKAGES_LABEL}="python==') for change in engine.changes)
    assert any("tiny==1.0" in change for change in engine.changes)
    assert staged == [{"requirements": image.recipe() / "requirements-slim.txt", "beside": {}}]
    assert len(said) == 2


def test_only_the_whole_image_has_transformers_4(staged: list[dict[str, Any]]) -> None:
    engine: Any = Engine()
    image.build(engine, offline=True, say=lambda _text: None)
    assert staged[0]["beside"] == {"opt/tf4": image.recipe() / "requirements-tf4.txt"}


@pytest.mark.usefixtures("staged")
def test_a_rebuilt_image_takes_the_place_of_the_old_one() -> None:
    engine: Any = Engine()
    image.build(engine, offline=True, say=lambda _text: None)
    assert engine.removed == []
    image.build(engine, offline=True, say=lambda _text: None)
    assert engine.removed == [f"sha256:of {image.name()}"]


@pytest.mark.usefixtures("staged")
def test_an_error_in_the_engines_answer_is_a_fault() -> None:
    engine: Any = Engine()
    engine.says = [{"status": "Importing"}, {"error": "write: no space left on device"}]
    with pytest.raises(SandboxFault, match="no space left on device"):
        image.build(engine, offline=True, say=lambda _text: None)
    assert engine.there == {}


def test_online_the_recipe_is_built_then_labelled(monkeypatch: pytest.MonkeyPatch) -> None:
    engine: Any = Engine()
    said: list[str] = []
    monkeypatch.setenv(image.TORCH_INDEX, "an-index")
    made = image.build(engine, "guest-slim", offline=False, say=said.append)
    assert made in engine.there
    recipe, label = engine.builds
    assert recipe["path"] == str(image.recipe())
    assert recipe["target"] == "guest-slim"
    assert recipe["buildargs"] == {"TORCH_INDEX": "an-index"}
    assert label["labels"] == {image.PACKAGES_LABEL: "fastapi==0.165.0 python==3.11.9"}
    assert said == ["guest-slim: Step 1/2 : FROM python"]


@pytest.fixture
def client() -> Iterator[Any]:
    try:
        engine = engines.connect()
    except Unavailable as reason:
        pytest.skip(str(reason).splitlines()[0])
    yield engine
    engine.close()


@pytest.mark.slow
def test_an_engine_runs_an_imported_root_unprivileged_without_a_shell(client: Any, tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").touch()
    (tmp_path / "root").mkdir()
    rootfs.stage(tmp_path / "root", requirements=tmp_path / "requirements.txt")
    made = image.import_root(client, tmp_path / "root")
    program = "import os, shutil, sys; print(os.getuid(), os.getcwd(), sys.prefix, shutil.which('sh'))"
    try:
        assert list(image.versions(client, made)) == ["python"]
        options = {"network_mode": "none", "read_only": True, "remove": True}
        said = client.containers.run(made, ["python3", "-I", "-c", program], **options)
        assert said == b"65534 /work /usr/local None\n"
    finally:
        client.images.remove(made, force=True)
