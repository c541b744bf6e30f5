"""Toy rubrics whose checks read their findings from the evidence, and evidence to score by them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from pytest_qwen.exchanges import Exchange
from pytest_qwen.observations import Evidence, Server
from pytest_qwen.programs import Program, SourceFile
from pytest_qwen.rubric import Cap, CheckSpec, Rubric
from pytest_qwen.scorecards import DIMENSIONS, CheckOutcome, Finding

P, F, U = CheckOutcome.PASS, CheckOutcome.FAIL, CheckOutcome.UNMEASURED
I, T = CheckOutcome.INFRA_ERROR, CheckOutcome.TAMPER  # noqa: E741
HOSTILE = "\x1b[31mred\x1b[0m\x07 ::error::owned ##[group] <b>|`x`</b> \u202egnp \x00 \ud800"


def told(check: str) -> Callable[[Evidence], Finding]:
    """A check that finds what the evidence's facts tell of it; a pass when they tell nothing."""

    def find(evidence: Evidence) -> Finding:
        finding = evidence.facts.get(check, P)
        return finding if isinstance(finding, Finding) else Finding(outcome=finding, evidence=f"saw {check}")

    return find


def capped(evidence: Evidence) -> str | None:
    return evidence.facts.get("undefined")


def spec(check: str, dimension: str, weight: float = 1, **given: Any) -> CheckSpec:
    return CheckSpec(check, f"title of {check}", dimension, weight, told(check), **given)  # type: ignore[arg-type]


def shaped() -> Rubric:
    """Gates, dimensions, weights and caps like those of the rubric for image servers."""
    runs: Mapping[str, Any] = {"runs": True, "behind": "C3"}
    return Rubric(
        name="toy/1",
        checks=(
            spec("C1", "correctness", 0, gate=True),
            spec("C2", "correctness", 0, gate=True, runs=True),
            spec("C3", "correctness", 0, gate=True, runs=True, behind="C2"),
            spec("C4", "correctness", 4, gate=True, **runs),
            *(spec(f"C{5 + i}", "correctness", w, **runs) for i, w in enumerate((2, 1, 3, 2, 2))),
            spec("C10", "correctness", 2),
            spec("C11", "correctness", 2, **runs),
            spec("K1", "completeness", 3, runs=True, behind="C2", read=told("K1.read")),
            *(spec(f"K{2 + i}", "completeness", w) for i, w in enumerate((3, 2, 2, 2, 2, 3))),
            spec("K9", "completeness", 1, runs=True, behind="C2"),
            *(spec(f"B{i}", "practices", w) for i, w in enumerate((3, 2, 1, 2, 3, 2, 2, 2, 1, 1, 1))),
            *(spec(f"D{i}", "documentation", w) for i, w in enumerate((1, 3, 2, 1, 2, 2, 2, 2))),
            *(
                spec(f"P{i}", "production", w, **(runs if i < 5 else {}))
                for i, w in enumerate((3, 2, 2, 2, 2, 2, 1, 1, 1, 2, 1))
            ),
            spec("T1", "correctness", 0),
        ),
        caps=(
            Cap("C1", most=0, why="the source does not parse"),
            Cap("C2", most=1, why="the server does not start"),
            Cap("C3", most=2, why="no image is answered"),
            Cap("C4", most=2, why="its answers are wrong"),
            Cap(capped, most=2, why="a name is undefined", dimension="correctness", by="C10"),
        ),
    )


def one_each(weights: Mapping[str, float] | None = None, **given: Any) -> Rubric:
    """A rubric with one check of weight 1 in each dimension: C, K, B, D and P."""
    checks = tuple(
        spec(name, dimension, (weights or {}).get(name, 1))
        for name, dimension in zip("CKBDP", DIMENSIONS, strict=True)
    )
    return Rubric(name="one/1", checks=checks, **given)


def evidence(facts: Mapping[str, Any] | None = None, **given: Any) -> Evidence:
    base = Evidence(
        scenario="toy",
        answer="answer 1",
        answer_sha256="9a15fccb1faeb30d",
        program=Program(
            files=(SourceFile(path="main.py", text="x = 1\n", language="python"),), main="main.py"
        ),
        facts=dict(facts or {}),
        seed=7,
        environment={"fastapi": "0.120.0"},
        timings_s={"all": 1.5},
    )
    return replace(base, **given)


def hostile_evidence(facts: Mapping[str, Any] | None = None) -> Evidence:
    """Evidence in which everything that a guest or a model can choose is hostile."""
    files = (SourceFile(path=f"main{HOSTILE}.py", text=f"# {HOSTILE}\n````\n", language=f"py{HOSTILE}"),)
    return evidence(
        {"notes": [f"note {HOSTILE}"], "C5": Finding(outcome=F, evidence=f"body {HOSTILE}"), **(facts or {})},
        answer=f"label {HOSTILE}",
        program=Program(files=files, main=files[0].path, attachments=files, prose=HOSTILE, notes=(HOSTILE,)),
        servers={
            "main": Server(ready=True, log_head=HOSTILE, log_tail=f"~~~\n``````\n{HOSTILE}", ended="exited")
        },
        exchanges={
            "good.0": Exchange(
                name="good.0",
                method="POST",
                path=f"/p{HOSTILE}",
                status=500,
                headers=(("X", HOSTILE),),
                body=HOSTILE,
            )
        },
    )
