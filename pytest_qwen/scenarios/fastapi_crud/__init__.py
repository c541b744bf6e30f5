"""A generated CRUD API without any model: create, read, update, delete, and what must not break it."""

from __future__ import annotations

from pytest_qwen.data import fixtures_dir
from pytest_qwen.scenarios.base import Scenario


def scenario() -> Scenario:
    """The scenario "fastapi-crud"."""
    from pytest_qwen.scenarios.fastapi_crud.observe import observe
    from pytest_qwen.scenarios.fastapi_crud.table import RUBRIC

    folder = fixtures_dir() / "answers" / "crud"
    return Scenario(
        name="fastapi-crud",
        prompt=(folder / "prompt.txt").read_text(encoding="utf-8"),
        image="guest-slim",
        entry=r"FastAPI\(",
        rubric=RUBRIC,
        observe=observe,
        good=folder / "good.md",
        bad=folder / "bad.md",
    )
