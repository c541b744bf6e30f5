"""A rubric's name stands for all that its stars rest on: what changes them changes the number in the name."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import pytest

from pytest_qwen.battery import battery
from pytest_qwen.sandbox.base import Limits
from pytest_qwen.scenarios import SCENARIOS
from pytest_qwen.scenarios.base import Scenario

ROOT = Path(__file__).parents[1]
FROZEN = ROOT / "fixtures" / "answers" / "rubrics.json"
INSIDE = ROOT / "pytest_qwen" / "sandbox" / "inside"


def rests_on(scenario: Scenario) -> dict[str, object]:
    """Checks and weights, caps, ruff's selection, stand-in, input files, limits, and the image's packages."""
    rubric = scenario.rubric
    rows = [
        (spec.id, spec.dimension, spec.weight, spec.gate, spec.runs, spec.behind, spec.read is not None)
        for spec in rubric.checks
    ]
    caps = [(cap.lifter, cap.most, cap.dimension, cap.profiles) for cap in rubric.caps]
    lists = ["requirements-slim.txt"]
    if scenario.image == "guest":
        lists += ["requirements.txt", "requirements-tf4.txt"]
    texts = [ROOT / "fixtures" / "sandbox" / name for name in lists]
    texts += [INSIDE / "analyse" / "lint.py"]
    texts += [INSIDE / "standin.py"] if scenario.model_ids else []
    return {
        "checks": rows,
        "weights": dict(rubric.dimension_weights),
        "caps": caps,
        "limits": asdict(Limits()),
        "battery": battery().digest if scenario.model_ids else None,
        "texts": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in texts},
    }


@pytest.mark.parametrize("name", SCENARIOS)
def test_what_the_stars_rest_on_is_what_the_name_was_given_for(name: str) -> None:
    scenario = SCENARIOS[name]()
    found = hashlib.sha256(json.dumps(rests_on(scenario), sort_keys=True).encode()).hexdigest()
    frozen = json.loads(FROZEN.read_text("utf-8"))
    assert frozen.get(scenario.rubric.name) == found, (
        f"{scenario.rubric.name} rests on something else now ({found}): give it a new number, and write the digest "
        f"beside the new name in {FROZEN.name}"
    )


def test_every_name_that_was_ever_given_is_kept() -> None:
    frozen = json.loads(FROZEN.read_text("utf-8"))
    assert {SCENARIOS[name]().rubric.name for name in SCENARIOS} <= set(frozen)
    assert all(len(digest) == 64 for digest in frozen.values())
