"""The images that containers run: which ones, whether they are there, how they are built."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_qwen import data
from pytest_qwen.errors import Unavailable, explain
from pytest_qwen.sandbox import rootfs
from pytest_qwen.sandbox.base import SandboxFault

if TYPE_CHECKING:
    from docker import DockerClient

IMAGE = "pytest-qwen"
TF4 = "opt/tf4"
TORCH_INDEX = "PYTEST_QWEN_TORCH_INDEX"  # the environment's variable with an index of CPU builds of torch
# An image's kind → the files of its recipe, whose content names it; the first is its list for site-packages.
_RECIPES = {
    "guest": ("requirements.txt", "requirements-slim.txt", "requirements-tf4.txt", "Containerfile"),
    "guest-slim": ("requirements-slim.txt", "Containerfile"),
}
KINDS = tuple(_RECIPES)
PACKAGES_LABEL = "pytest-qwen.packages"
_SETTINGS = (
    "USER 65534:65534",
    "WORKDIR /work",
    "ENV PATH=/usr/local/bin:/usr/bin:/bin",
    'CMD ["python3", "--version"]',
)
# Run by the image's own kind of Python on a root folder: every package there, as pip would pin it.
_LIST_PACKAGES = """
import importlib.metadata, platform, sys
site = "/usr/local/lib/python%d.%d/site-packages" % sys.version_info[:2]
found = {"python": platform.python_version()}
for prefix, folder in (("", site), ("tf4/", "/opt/tf4")):
    for package in importlib.metadata.distributions(path=[sys.argv[1] + folder]):
        found[prefix + package.metadata["Name"].lower().replace("_", "-")] = package.version
print(*(f"{name}=={version}" for name, version in sorted(found.items())))
"""


def recipe() -> Path:
    """The folder with the published recipe."""
    return data.fixtures_dir() / "sandbox"


def name(kind: str = "guest") -> str:
    """The image's name; its tag changes with any file of its recipe."""
    digest = hashlib.sha256()
    for file in _RECIPES[kind]:
        content = (recipe() / file).read_bytes()
        digest.update(f"{file} {len(content)}\n".encode() + content)
    return f"{IMAGE}/{kind}:{digest.hexdigest()[:12]}"


def present(client: DockerClient, kind: str = "guest") -> str | None:
    """The image's name if the engine has it. Raises SandboxFault when the engine does not answer."""
    from docker.errors import ImageNotFound

    wanted = name(kind)
    with _engine_faults("the engine cannot say which images it has"):
        try:
            client.images.get(wanted)
        except ImageNotFound:
            return None
    return wanted


def find(client: DockerClient, kind: str = "guest") -> str:
    """The image's name. Raises Unavailable with the way to build it when the engine does not have it."""
    found = present(client, kind)
    if found is None:
        raise Unavailable(
            explain(
                "the image that generated programs run in is not there",
                asked=name(kind),
                next_step="pytest-qwen sandbox build (with --offline where no registry can be reached)",
            )
        )
    return found


def versions(client: DockerClient, image: str) -> dict[str, str]:
    """Version by package of an image, Python included; those of transformers 4's folder begin with "tf4/"."""
    with _engine_faults(f"{image} cannot be looked at"):
        labels = client.images.get(image).labels
    return dict(pin.split("==", 1) for pin in labels.get(PACKAGES_LABEL, "").split())


def build(client: DockerClient, kind: str = "guest", *, offline: bool, say: Callable[[str], None]) -> str:
    """Build the image and return its name.

    Online the engine builds the published recipe. Offline its root file system is made here, from the running
    Python and what pip can get. Raises Unavailable without the packages, SandboxFault when the engine fails.
    """
    wanted = name(kind)
    with _engine_faults(f"{wanted} cannot be built"):
        made = _import(client, kind, say) if offline else _build_recipe(client, kind, say)
        _replace(client, wanted, made)
    return wanted


def _replace(client: DockerClient, wanted: str, made: str) -> None:
    """Give the new image its name and drop the one that had it, unless a container still needs that."""
    from docker.errors import APIError, ImageNotFound

    before = None
    with suppress(ImageNotFound):
        before = client.images.get(wanted).id
    repository, tag = wanted.rsplit(":", 1)
    new = client.images.get(made)
    new.tag(repository, tag)
    if before not in {None, new.id}:
        with suppress(APIError):
            client.images.remove(before)


def _import(client: DockerClient, kind: str, say: Callable[[str], None]) -> str:
    requirements, *_ = _RECIPES[kind]
    beside = {TF4: recipe() / "requirements-tf4.txt"} if kind == "guest" else {}
    with tempfile.TemporaryDirectory(prefix="pytest-qwen-image-") as folder:
        root = Path(folder)
        say(f"{kind}: installing packages with pip and making the root file system in {root}")
        rootfs.stage(root, requirements=recipe() / requirements, beside=beside)
        say(f"{kind}: handing it to the engine")
        return import_root(client, root)


def import_root(client: DockerClient, root: Path) -> str:
    """Make an image of a folder; its id. No copy of it is written on the way."""
    packages = subprocess.run(
        [sys.executable, "-I", "-c", _LIST_PACKAGES, str(root)], check=True, capture_output=True, text=True
    )
    changes = [*_SETTINGS, f'LABEL {PACKAGES_LABEL}="{packages.stdout.strip()}"']
    answer = client.api.import_image_from_data(rootfs.tar(root), changes=changes)
    return _image_id(json.loads(line) for line in str(answer).splitlines())


def _build_recipe(client: DockerClient, kind: str, say: Callable[[str], None]) -> str:
    """Build the recipe, then label the result with the packages that it turned out to hold."""
    steps = client.api.build(
        path=str(recipe()),
        dockerfile="Containerfile",
        target=kind,
        buildargs={"TORCH_INDEX": os.environ.get(TORCH_INDEX, "")},
        rm=True,
        forcerm=True,
        decode=True,
    )
    built = _image_id(_said(steps, kind, say))
    listed = client.containers.run(
        built,
        ["python3", "-I", "-c", _LIST_PACKAGES, ""],
        network_mode="none",
        read_only=True,
        cap_drop=["ALL"],
        remove=True,
    )
    labels = {PACKAGES_LABEL: listed.decode().strip()}
    steps = client.api.build(
        fileobj=io.BytesIO(f"FROM {built}\n".encode()), labels=labels, rm=True, decode=True
    )
    return _image_id(steps)


def _said(steps: Iterator[dict[str, Any]], kind: str, say: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    for step in steps:
        if str(step.get("stream", "")).startswith(("Step ", "STEP ")):
            say(f"{kind}: {step['stream'].strip()}")
        yield step


def _image_id(messages: Iterator[dict[str, Any]]) -> str:
    """The id that an engine's progress messages end with. Raises SandboxFault with the error among them."""
    found = ""
    for message in messages:
        if "error" in message:
            raise SandboxFault(explain("the engine cannot make the image", found=str(message["error"])))
        found = str(message.get("aux", {}).get("ID") or message.get("status") or found)
    if not found:
        raise SandboxFault(
            explain("the engine cannot make the image", found="it named no image when it was done")
        )
    return found


@contextmanager
def _engine_faults(problem: str) -> Iterator[None]:
    from docker.errors import DockerException

    try:
        yield
    except (DockerException, OSError) as error:  # the SDK lets the errors of its HTTP client through
        raise SandboxFault(explain(problem, found=str(error))) from error
