"""The shipped images that every generated image server is sent: valid ones of each kind, and bad ones."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from pytest_qwen.data import fixtures_dir
from pytest_qwen.errors import ModelUnusable, explain


@dataclass(frozen=True, slots=True, kw_only=True)
class Battery:
    """`kinds` are valid images by kind; `truncated` ends half-way; `bomb` has over 178,956,970 pixels.

    `digest` is the SHA-256 over all of them: what a rubric's version stands for.
    """

    kinds: Mapping[str, bytes]
    truncated: bytes
    bomb: bytes
    digest: str


@functools.cache
def battery() -> Battery:
    """The images. Raises ModelUnusable when a file is not the one that was shipped."""
    folder = fixtures_dir() / "images"
    listed: dict[str, str] = json.loads((folder / "battery.json").read_text(encoding="utf-8"))
    files = {name: (folder / name).read_bytes() for name in sorted(listed)}
    for name, content in files.items():
        if hashlib.sha256(content).hexdigest() != listed[name]:
            raise ModelUnusable(
                explain(
                    "a shipped image is not the one that answers are rated with",
                    asked=str(folder / name),
                    found="another digest than in battery.json",
                    slip="the file was edited, or line ends were converted",
                )
            )
    kinds = {
        name.partition("-")[2].rpartition(".")[0]: data for name, data in files.items() if "kind-" in name
    }
    whole = hashlib.sha256("".join(listed[name] for name in sorted(listed)).encode()).hexdigest()
    return Battery(kinds=kinds, truncated=files["truncated.png"], bomb=files["bomb.png"], digest=whole)
