"""A generated server for an image classifier: the benchmark prompt, a stand-in model, every check."""

from __future__ import annotations

from pytest_qwen.data import fixtures_dir
from pytest_qwen.scenarios.base import Scenario


def scenario() -> Scenario:
    """The scenario "fastapi-vit"."""
    from pytest_qwen.scenarios.fastapi_vit.observe import MODEL_ID, observe, prepare
    from pytest_qwen.scenarios.fastapi_vit.table import RUBRIC
    from pytest_qwen.standin import unpacked_standin

    folder = fixtures_dir() / "answers"
    return Scenario(
        name="fastapi-vit",
        prompt=(folder / "prompt.txt").read_text(encoding="utf-8"),
        image="guest",
        entry=r"FastAPI\(",
        rubric=RUBRIC,
        observe=observe,
        good=folder / "reference" / "good.md",
        bad=folder / "reference" / "bad.md",
        model_ids=(MODEL_ID,),
        prepare=prepare,
        unpack=unpacked_standin,
    )
