"""The cheapest way to more stars is one, and is the cheapest."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from star_samples import F, P, T, U, evidence, one_each, shaped, spec

from pytest_qwen.lifts import cheapest_lift
from pytest_qwen.rubric import Cap, Rubric, score
from pytest_qwen.scorecards import DIMENSIONS, CheckOutcome, Finding, Scorecard

SHAPED = shaped()


def carded(facts: dict[str, object], rubric: Rubric = SHAPED) -> Scorecard:
    return score(evidence(facts), rubric)


def test_the_next_star_by_the_fewest_checks() -> None:
    facts = {"C7": F, "C8": F, "C9": F, "C10": F, "P0": F, "P1": F, "P2": F}
    card = carded(facts)
    assert card.stars == 4
    assert card.rating().stars == {
        "correctness": 2, "completeness": 5, "practices": 5, "documentation": 5, "production": 3,
    }  # fmt: skip
    # 3.55 now, 0.95 more are needed: 0.35 for a star of correctness (9 of 18 have passed, 13.5 are 4 stars,
    # 16.2 are 5), 0.20 for one of production (12 of 19 have passed). Correctness alone takes the fewest.
    assert cheapest_lift(card, SHAPED) == ("C7", "C8", "C9", "C10")
    assert cheapest_lift(card, SHAPED, 4) == ()


def test_the_lightest_of_equally_many() -> None:
    rubric = Rubric(
        name="r",
        checks=tuple(spec(f"C{w}", "correctness", w) for w in (5, 2, 3, 1)),
        dimension_weights={"correctness": 1.0},
    )
    card = carded({"C5": F, "C2": F, "C3": F}, rubric)
    assert card.stars == 0
    assert cheapest_lift(card, rubric, 1) == ("C2",)
    assert cheapest_lift(card, rubric, 2) == ("C3",)
    assert cheapest_lift(card, rubric, 3) == ("C5", "C2")
    assert cheapest_lift(card, rubric, 4) == ("C5", "C3")
    assert cheapest_lift(card, rubric, 5) == ("C5", "C2", "C3")


def test_a_cap_has_to_go_first() -> None:
    card = carded({"C4": F})
    assert card.stars == 2
    assert cheapest_lift(card, SHAPED) == ("C4",)
    assert cheapest_lift(card, SHAPED, 5) == ("C4",)


def test_what_is_behind_a_gate_needs_the_gate() -> None:
    card = carded({"C3": F})
    lift = cheapest_lift(card, SHAPED, 5)
    assert lift[:2] == ("C3", "C4")
    assert cheapest_lift(card, SHAPED, 3)[:2] == ("C3", "C4")


def test_a_gate_of_no_weight_comes_with_what_it_blocks() -> None:
    rubric = Rubric(
        name="r",
        checks=(
            spec("G", "practices", 0, gate=True),
            spec("A", "correctness", 1, behind="G"),
            spec("B", "correctness", 4),
        ),
        dimension_weights={"correctness": 1.0},
    )
    assert cheapest_lift(carded({"G": F}, rubric), rubric) == ("G", "A")


def test_the_cap_of_a_finding_goes_with_its_check() -> None:
    card = carded({"undefined": "main.py:3", "C10": F})
    assert card.rating().stars["correctness"] == 2
    assert cheapest_lift(card, SHAPED, 5) == ("C10",)
    assert cheapest_lift(card, SHAPED, 3, part="correctness") == ("C10",)
    stuck = one_each(caps=(Cap(lambda _evidence: "found", most=2, why="it is so"),))
    assert cheapest_lift(carded({"C": F}, stuck), stuck) == ()


def test_of_one_dimension() -> None:
    card = carded({"D1": F, "D2": F, "C2": F})
    assert card.rating().stars["documentation"] == 3
    assert cheapest_lift(card, SHAPED, part="documentation") == ("D2",)
    assert cheapest_lift(card, SHAPED, 5, part="documentation") == ("D1", "D2")


def test_of_a_profile() -> None:
    card = carded({"C10": F})
    assert card.rating("read").stars["correctness"] == 0
    assert cheapest_lift(card, SHAPED, profile="read") == ("C10",)
    assert cheapest_lift(card, SHAPED, profile="run") == ()


def test_tampering_has_to_stop() -> None:
    assert cheapest_lift(carded({"T1": T}), SHAPED, 5) == ("T1",)


@pytest.mark.parametrize(
    "facts", [{"C4": U, "C7": U, "C5": F}, {}, {**{f"P{i}": U for i in range(9)}, "T1": T}]
)
def test_none_where_it_is_unrated_or_all_there(facts: dict[str, object]) -> None:
    assert cheapest_lift(carded(facts), SHAPED) == ()


def test_partial_shares_are_counted() -> None:
    rubric = Rubric(
        name="r",
        checks=(spec("A", "correctness", 4), spec("B", "correctness", 3), spec("C", "correctness", 3)),
        dimension_weights={"correctness": 1.0},
    )
    card = carded({"A": Finding(outcome=F, evidence="", share=0.9), "B": F}, rubric)
    assert card.stars == 3  # 6.6 of 10
    assert cheapest_lift(card, rubric) == ("B",)


def test_many_different_weights_are_no_endless_search() -> None:
    checks = tuple(spec(f"C{i}", "correctness", 1 + i / 100) for i in range(60))
    rubric = Rubric(name="r", checks=checks, dimension_weights={"correctness": 1.0})
    facts = {check.id: F for check in checks}
    lift = cheapest_lift(carded(facts, rubric), rubric)
    assert carded({**facts, **dict.fromkeys(lift, P)}, rubric).stars == 1
    assert len(lift) == 8


def passing(facts: dict[str, object], lift: tuple[str, ...]) -> dict[str, object]:
    return {**facts, **dict.fromkeys(lift, P)} | ({"undefined": None} if "C10" in lift else {})


FACTS = st.fixed_dictionaries(
    {check.id: st.sampled_from([P, F]) for check in SHAPED.checks},
    optional={"undefined": st.just("main.py:3")},
)


@given(FACTS, st.integers(1, 5), st.sampled_from(["overall", *DIMENSIONS]), st.sampled_from(["run", "read"]))
@settings(max_examples=150, deadline=None)
def test_it_really_lifts(facts: dict[str, CheckOutcome], target: int, part: str, profile: str) -> None:
    def stars(of: dict[str, object]) -> int:
        rating = carded(of).ratings[profile]  # type: ignore[index]
        return rating.overall if part == "overall" else rating.stars[part]  # type: ignore[index, return-value]

    # what was not reached is failed: a lift promises nothing about checks that it does not name
    card = carded(dict(facts))
    known = {**facts, **{one.id: F for one in card.checks if "run" in one.profiles and one.outcome == F}}
    lift = cheapest_lift(card, SHAPED, target, profile=profile, part=part)  # type: ignore[arg-type]
    if lift:
        assert stars(known) < target <= stars(passing(known, lift))
        assert lift == cheapest_lift(card, SHAPED, target, profile=profile, part=part)  # type: ignore[arg-type]
    elif stars(known) < target:
        everything = tuple(check.id for check in SHAPED.checks)
        if "undefined" not in facts or facts["C10"] == F:
            reading = {"K1.read": P} | passing(known, everything)
            assert stars(reading) < target


SMALL = Rubric(
    name="small/1",
    checks=(
        spec("G", "correctness", 0, gate=True),
        spec("C1", "correctness", 2, behind="G"),
        spec("C2", "correctness", 3),
        spec("C3", "correctness", 1),
        spec("B1", "practices", 1, behind="G"),
        spec("B2", "practices", 2),
        spec("P1", "production", 3),
        spec("P2", "production", 1),
    ),
    caps=(Cap("G", most=3, why="so"), Cap("C2", most=2, why="so", dimension="correctness")),
    dimension_weights={"correctness": 0.5, "practices": 0.2, "production": 0.3},
)
WEIGHT = {check.id: check.weight for check in SMALL.checks}


@given(
    st.fixed_dictionaries({check.id: st.sampled_from([P, F]) for check in SMALL.checks}), st.integers(1, 5)
)
@settings(max_examples=100, deadline=None)
def test_nothing_cheaper_lifts_as_high(facts: dict[str, object], target: int) -> None:
    card = carded(facts, SMALL)
    failed = [one.id for one in card.checks if one.outcome == F]
    known = {**facts, **dict.fromkeys(failed, F)}
    ways = [
        (number, sum(WEIGHT[check] for check in chosen))
        for number in range(len(failed) + 1)
        for chosen in combinations(failed, number)
        if carded({**known, **dict.fromkeys(chosen, P)}, SMALL).stars >= target  # type: ignore[operator]
    ]
    lift = cheapest_lift(card, SMALL, target)
    if card.stars is not None and card.stars < target:
        assert (len(lift), sum(WEIGHT[check] for check in lift)) == min(ways)
    else:
        assert lift == ()
