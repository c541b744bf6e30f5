"""The text of a missed bound on stars says why, the heaviest first, and the way up."""

from __future__ import annotations

from star_samples import F, T, U, evidence, hostile_evidence, shaped

from pytest_qwen.rubric import score
from pytest_qwen.scorecards import Finding
from pytest_qwen.star_texts import explain_stars

SHAPED = shaped()


def text(facts: dict[str, object], wanted: int = 4, **given: object) -> str:
    return explain_stars(score(evidence(facts), SHAPED), SHAPED, wanted, **given)  # type: ignore[arg-type]


def line(text: str, start: str) -> str:
    return next(one.strip() for one in text.splitlines() if one.strip().startswith(start))


def test_stars_caps_and_failed_checks_heaviest_first() -> None:
    said = text({"C4": F, "C6": F, "K2": F, "B2": F, "C5": Finding(outcome=U, evidence="could not look")})
    assert said.splitlines()[0] == "min_stars: run overall ≥ 4 stars: 2 stars"
    assert line(said, "held down") == "held down: C4 failed, its answers are wrong: overall at most 2 stars"
    order = [said.index(f"{check} (") for check in ("C4", "K2", "C6", "B2")]
    assert order == sorted(order)
    assert "C4 (gate, weight 4) title of C4: saw C4" in said
    assert line(said, "unmeasured") == "unmeasured: C5: could not look"
    assert line(said, "run:").endswith("completeness 4, practices 5, documentation 5, production 5")
    assert "read: " in said


def test_the_cheapest_way_to_the_next_star_and_to_those_asked_for() -> None:
    said = text({"C7": F, "C8": F, "C9": F, "C10": F, "K2": F, "P0": F, "P1": F, "P2": F, "C4": F}, 5)
    assert line(said, "cheapest: +C4").endswith("→ 3 stars")
    assert sum(one.strip().startswith("cheapest") for one in said.splitlines()) == 2


def test_what_a_failed_gate_left_unreached_is_one_line() -> None:
    said = text({"C2": F})
    assert "C2 (gate) title of C2: saw C2" in said
    assert line(said, "not reached: C2 failed, and with it C3, C4")
    assert said.count("not reached") == 1


def test_a_dimension_speaks_of_its_own_checks_and_of_gates() -> None:
    said = text({"D1": F, "D2": F, "D4": F, "B0": F}, part="documentation")
    assert said.startswith("min_stars: run documentation ≥ 4 stars: 2 stars")
    assert "D1 (weight 3)" in said
    assert "B0" not in said
    assert "cheapest: +D2 → 3 stars" in said  # 8 of 15 passed, 8.25 are 3 stars: D1 is heavier


def test_unrated_says_why_and_our_own_fault_is_named() -> None:
    said = text({"C2": Finding(outcome=U, evidence="environment-limited"), "C4": U, "C7": U})
    assert line(said, "unrated: only 61 % of correctness")
    assert "cheapest" not in said


def test_many_failures_are_cut_and_their_ids_kept() -> None:
    facts = {check.id: F for check in SHAPED.checks if check.id[0] in "BDP"}
    said = " ".join(text(facts).split())
    assert "and " in said
    assert all(check in said for check in facts)
    assert said.count("title of") == 12


def test_when_nothing_measured_can_lift_it_that_is_said() -> None:
    facts = {"undefined": "main.py:1 x"}
    assert "no failed checks would give" in text(facts, part="correctness")


def test_guests_cannot_write_to_the_terminal() -> None:
    card = score(hostile_evidence({"T1": T}), SHAPED)
    said = explain_stars(card, SHAPED, 4)
    assert all(one.isprintable() for one in said.splitlines())
    assert not any(one.strip().startswith("::") for one in said.splitlines())
    assert "##" not in said
    assert "T1 (tampering)" in said


def test_one_way_to_two_goals_is_told_once() -> None:
    said = text({"C4": F})
    assert line(said, "cheapest") == "cheapest: +C4 → 4 stars"
    assert said.count("cheapest") == 1
