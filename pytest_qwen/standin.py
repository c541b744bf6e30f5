"""The model that stands in for a published one in the sandbox: seeded, offline, with its answers known."""

from __future__ import annotations

import base64
import io
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_qwen.environments import ALIASES
from pytest_qwen.sandbox.base import Sandbox, SandboxFault
from pytest_qwen.sandbox.tools import ask

__all__ = ["ALIASES", "Standin", "make_standin", "packed_standin", "unpacked_standin"]

IMAGE_NAMES = ("good.0", "good.1", "hidden.0", "hidden.1")
SLOW_NAMES = IMAGE_NAMES[:2]
_TIMEOUT_S = 120.0
_PNG = b"\x89PNG\r\n\x1a\n"

Oracle = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Standin:
    """What a session's programs are given as the asked model, and what is right to answer.

    `hub` and `slow_hub` are files of the hub's cache layout by path ("hub/models--…/…"); the slow model
    takes several hundred milliseconds a picture on one processor. `oracle` has "label" and "score" (0-1) of
    each picture, `slow_oracle` those of the first pair. `images` are PNG files; the labels of a pair differ.
    """

    seed: int
    hub: Mapping[str, bytes]
    slow_hub: Mapping[str, bytes]
    oracle: Oracle
    slow_oracle: Oracle
    labels: tuple[str, ...]
    images: Mapping[str, bytes]
    versions: Mapping[str, str]


def make_standin(sandbox: Sandbox, seed: int, repo_ids: Sequence[str]) -> Standin:
    """The stand-in of a seed under each repository id. Raises SandboxFault when it cannot be made."""
    return unpacked_standin(packed_standin(sandbox, seed, repo_ids))


def packed_standin(sandbox: Sandbox, seed: int, repo_ids: Sequence[str]) -> dict[str, Any]:
    """The same as values for JSON, which processes can share."""
    reply = ask(sandbox, "standin.py", {"seed": seed, "repo_ids": list(repo_ids)}, timeout_s=_TIMEOUT_S)
    packed = {"seed": seed, **reply}
    try:
        _check(unpacked_standin(packed), repo_ids)
    except (KeyError, TypeError, ValueError, AttributeError, tarfile.TarError) as error:
        raise SandboxFault(f"standin.py gave no stand-in that can be used: {error!r}") from error
    return packed


def unpacked_standin(data: Mapping[str, Any]) -> Standin:
    """The stand-in from what `packed_standin` gave."""
    return Standin(
        seed=data["seed"],
        hub=_untarred(data["hub"]),
        slow_hub=_untarred(data["slow_hub"]),
        oracle=_oracle(data["oracle"], IMAGE_NAMES),
        slow_oracle=_oracle(data["slow_oracle"], SLOW_NAMES),
        labels=tuple(map(str, data["labels"])),
        images={name: base64.b64decode(data["images"][name], validate=True) for name in IMAGE_NAMES},
        versions={str(name): str(version) for name, version in data["versions"].items()},
    )


def _untarred(text: str) -> dict[str, bytes]:
    """The files of a tar, links followed inside it."""
    files = {}
    with tarfile.open(fileobj=io.BytesIO(base64.b64decode(text, validate=True)), mode="r:") as tar:
        for member in tar:
            content = tar.extractfile(member)
            if content is None:
                raise ValueError(f"{member.name} is no file")
            files[member.name] = content.read()
    return files


def _oracle(answers: Mapping[str, Any], names: Sequence[str]) -> dict[str, dict[str, Any]]:
    return {
        name: {"label": str(answers[name]["label"]), "score": float(answers[name]["score"])} for name in names
    }


def _check(made: Standin, repo_ids: Sequence[str]) -> None:
    """Raises ValueError for a stand-in that would make a right program look wrong."""
    for hub in (made.hub, made.slow_hub):
        for repo in repo_ids:
            root = f"hub/models--{repo.replace('/', '--')}"
            snapshot = f"{root}/snapshots/{hub[f'{root}/refs/main'].decode()}"
            for name in ("config.json", "preprocessor_config.json", "model.safetensors"):
                hub[f"{snapshot}/{name}"]
        if any(not path.startswith("hub/models--") or ".." in path for path in hub):
            raise ValueError("a file outside the hub's folders")
    for oracle in (made.oracle, made.slow_oracle):
        answers = oracle.values()
        if not all(one["label"] in made.labels and 0.6 <= one["score"] <= 1 for one in answers):
            raise ValueError(f"an answer without a label or in doubt: {oracle}")
        for pair in {name.partition(".")[0] for name in oracle}:
            if oracle[f"{pair}.0"]["label"] == oracle[f"{pair}.1"]["label"]:
                raise ValueError(f"both pictures of {pair!r} have one label")
    if not all(image.startswith(_PNG) for image in made.images.values()):
        raise ValueError("a picture is no PNG")
