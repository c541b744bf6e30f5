"""Evidence of small sources, for tests of checks that read them."""

from __future__ import annotations

from functools import cache
from textwrap import dedent
from typing import Any

from pytest_qwen.observations import Evidence
from pytest_qwen.programs import Program, SourceFile
from pytest_qwen.sandbox.inside.analyse.__main__ import NOTHING, tree_facts
from pytest_qwen.sandbox.inside.analyse.instructions import instruction_facts
from pytest_qwen.sandbox.inside.analyse.lint import lint_facts

MODEL = "Falconsai/nsfw_image_detection"


def read(source: str, *, prose: str = "", lint: bool = False, **attachments: str) -> Evidence:
    """Evidence of a program of one file; `requirements_txt="…"` attaches requirements.txt."""
    sources = {"main.py": dedent(source)}
    attached = {name.replace("_txt", ".txt"): dedent(text) for name, text in attachments.items()}
    facts: dict[str, Any] = NOTHING | {"asked_model_id": MODEL, "parse": {"ok": True, "errors": []}}
    facts |= tree_facts(sources, "main.py") | instruction_facts(dedent(prose), attached, sources)
    return evidence_of(facts | ({"ruff": linted(sources["main.py"])} if lint else {}), sources["main.py"])


@cache
def linted(source: str) -> dict[str, Any]:
    return lint_facts({"main.py": source})


def evidence_of(facts: dict[str, Any], source: str = "", **values: Any) -> Evidence:
    program = Program(files=(SourceFile(path="main.py", text=source, language="python"),), main="main.py")
    return Evidence(
        scenario="fastapi-vit",
        answer="made by hand",
        answer_sha256="0" * 64,
        program=values.pop("program", program),
        source=facts,
        **values,
    )
