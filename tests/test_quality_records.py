"""Evidence and scorecards go through JSON unchanged; what differs from run to run is no difference."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from star_samples import F, T, U, evidence, hostile_evidence, shaped

from pytest_qwen.errors import Misuse
from pytest_qwen.exchanges import Exchange
from pytest_qwen.observations import Evidence, Server
from pytest_qwen.programs import NoProgram, Program, SourceFile
from pytest_qwen.quality_records import (
    EVIDENCE_VERSION,
    SCORECARD_VERSION,
    evidence_from_json,
    evidence_to_json,
    fingerprint,
    rated_of,
    scorecard_from_json,
    scorecard_to_json,
)
from pytest_qwen.records import RunRecord, from_json, to_json
from pytest_qwen.rubric import score
from pytest_qwen.scorecards import Finding

SHAPED = shaped()
TIMED = {"C5": Finding(outcome=F, evidence="4 of 7", share=4 / 7, timing="12 ms"), "C7": U, "T1": T}


def full(**given: Any) -> Evidence:
    file = SourceFile(path="main.py", text="print()\n", language="python")
    return evidence(
        {"oracle": {"a": [0.5, 1]}, "notes": ["one"], "nothing": None, "C5": F},
        program=Program(
            files=(file,), main="main.py", attachments=(file,), clients=(file,), truncated=True, notes=("n",)
        ),
        source={"parse": {"ok": True, "errors": []}},
        servers={"main": Server(ready=True, ready_s=1.25, exit_code=-9, ended="killed", log_tail="end\n")},
        exchanges={
            "good.0": Exchange(
                name="good.0",
                method="POST",
                path="/p",
                status=200,
                headers=(("A", "b"), ("A", "c")),
                body="{}",
                elapsed_ms=3.5,
            )
        },
        infra_errors=("the engine went away",),
        **given,
    )


def through(data: object) -> Any:
    return json.loads(json.dumps(data, allow_nan=False))


def test_evidence_comes_back_as_it_was() -> None:
    assert evidence_from_json(through(evidence_to_json(full()))) == full()


def test_evidence_without_a_program_comes_back_as_it_was() -> None:
    none = evidence(program=NoProgram(reason="no code", detail="12 words"))
    assert evidence_from_json(through(evidence_to_json(none))) == none


def score_of(facts: dict[str, Any], **given: Any) -> Any:
    return score(evidence(facts, **given), SHAPED)


def test_a_scorecard_comes_back_as_it_was() -> None:
    card = score_of(TIMED)
    again = scorecard_from_json(through(scorecard_to_json(card)))
    assert again == card
    assert again.checks[0].profiles == card.checks[0].profiles
    assert again.rating("read") == card.rating("read")


def test_stored_evidence_scores_the_same() -> None:
    stored = evidence_from_json(through(evidence_to_json(full())))
    assert fingerprint(score(stored, SHAPED)) == fingerprint(score(full(), SHAPED))


def test_what_no_json_can_hold_is_escaped_and_can_be_stored() -> None:
    text = json.dumps(evidence_to_json(hostile_evidence()), ensure_ascii=False)
    text.encode("utf-8")
    assert evidence_from_json(json.loads(text)).program is not None


def test_a_fingerprint_leaves_out_times_and_nothing_else() -> None:
    card = score_of(TIMED)
    slower = replace(
        card,
        timings_s={"all": 99.0},
        checks=tuple(replace(check, timing="1 s") for check in card.checks),
    )
    assert fingerprint(slower) == fingerprint(card)
    for other in (
        replace(card, seed=8),
        replace(card, notes=("x",)),
        replace(card, environment={}),
        replace(card, checks=card.checks[1:]),
        score_of({**TIMED, "C7": F}),
    ):
        assert fingerprint(other) != fingerprint(card)


def test_a_fingerprint_does_not_depend_on_the_order_of_mappings() -> None:
    card = score_of({}, environment={"a": "1", "b": "2"})
    assert fingerprint(replace(card, environment={"b": "2", "a": "1"})) == fingerprint(card)


@pytest.mark.parametrize(
    ("read", "version", "kind"),
    [
        (evidence_from_json, EVIDENCE_VERSION, "evidence"),
        (scorecard_from_json, SCORECARD_VERSION, "scorecard"),
    ],
)
def test_other_data_is_refused(read: Any, version: str, kind: str) -> None:
    for data in (None, [], {}, {"version": f"{version}0"}, "text"):
        with pytest.raises(Misuse, match=f"no {kind} that this version can read"):
            read(data)
    for data in ({"version": version}, {"version": version, "checks": 3, "program": [], "ratings": {}}):
        with pytest.raises(Misuse, match=f"a field of the {kind} is missing or malformed"):
            read(data)


def test_an_unknown_outcome_is_refused_and_an_unknown_field_is_not() -> None:
    data = scorecard_to_json(score_of({}))
    assert scorecard_from_json({**data, "later": 1}).answer == "answer 1"
    data["checks"][0]["outcome"] = "perhaps"
    with pytest.raises(Misuse, match="perhaps"):
        scorecard_from_json(data)


def test_what_a_record_rated() -> None:
    card = score(full(), SHAPED)
    rated = ({"evidence": evidence_to_json(full()), "scorecard": scorecard_to_json(card)},)
    record = RunRecord(nodeid="t", outcome="passed", started="2026-01-01T00:00:00+00:00", rated=rated)
    ((seen, found),) = rated_of(from_json(through(to_json(record))))
    assert seen == full()
    assert found == card
    with pytest.raises(Misuse):
        rated_of(replace(record, rated=({},)))
