"""From findings to stars: thresholds, rounding, gates, caps, what is not measured, both profiles."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from star_samples import F, I, P, T, U, evidence, one_each, shaped, spec, told

from pytest_qwen.errors import Misuse
from pytest_qwen.rubric import Cap, CheckSpec, Rubric, overall_of, score, stars_of_share
from pytest_qwen.scorecards import DIMENSIONS, CheckOutcome, Finding, Rating, Scorecard

SHAPED = shaped()


def rated(facts: dict[str, object], rubric: Rubric = SHAPED, profile: str = "run") -> Rating:
    return score(evidence(facts), rubric).ratings[profile]  # type: ignore[index]


def result(card: Scorecard, check: str, profile: str = "run") -> CheckOutcome:
    return next(one.outcome for one in card.checks if one.id == check and profile in one.profiles)


# ---- shares and rounding


@pytest.mark.parametrize(
    ("share", "stars"),
    [
        *((1.0, 5), (0.90, 5), (0.8999, 4), (0.75, 4), (0.7499, 3), (0.55, 3), (0.5499, 2), (0.35, 2)),
        *((0.3499, 1), (0.15, 1), (0.1499, 0), (0.0, 0), (0.1 + 0.2 + 0.6, 5)),
    ],
)
def test_stars_of_a_share(share: float, stars: int) -> None:
    assert stars_of_share(share) == stars


@pytest.mark.parametrize(
    ("passed", "stars"), [(18, 5), (17, 4), (15, 4), (14, 3), (11, 3), (7, 2), (3, 1), (2, 0)]
)
def test_a_dimension_of_twenty_equal_checks(passed: int, stars: int) -> None:
    rubric = Rubric(name="twenty/1", checks=tuple(spec(f"C{i}", "correctness") for i in range(20)))
    assert rated({f"C{i}": F for i in range(passed, 20)}, rubric).stars["correctness"] == stars


@pytest.mark.parametrize(
    ("failing", "overall"),
    [
        ("", 5),
        ("D", 5),  # 4.5: the half goes up
        ("B", 4),  # 4.25
        ("P", 4),
        ("BD", 4),  # 3.75
        ("PD", 4),  # 3.5, which sums of floats miss
        ("C", 3),  # 3.25
        ("CP", 2),
        ("CKP", 1),
        ("CKBDP", 0),
    ],
)
def test_overall_is_the_weighted_mean_rounded(failing: str, overall: int) -> None:
    assert rated(dict.fromkeys(failing, F), one_each()).overall == overall


def test_sums_that_floats_miss_are_still_halves() -> None:
    assert overall_of(0.35 * 5 + 0.15 * 5 + 0.20 * 5) == 4
    assert overall_of(3.4999) == 3


def test_a_share_of_a_failed_check_is_earned() -> None:
    half = Finding(outcome=F, evidence="3 of 4", share=0.75)
    rating = rated({"C": half}, one_each())
    assert rating.shares["correctness"] == 0.75
    assert rating.stars["correctness"] == 4


def test_a_share_beyond_one_earns_no_more_than_the_weight_and_none_where_unmeasured() -> None:
    card = score(
        evidence(
            {"C": Finding(outcome=F, evidence="", share=7), "K": Finding(outcome=U, evidence="", share=1)}
        ),
        one_each(),
    )
    assert [check.share for check in card.checks[:2]] == [1.0, 0.0]


def test_other_weights_of_dimensions() -> None:
    weights = {"correctness": 1.0}
    assert rated(dict.fromkeys("KBDP", F), one_each(dimension_weights=weights)).overall == 5


# ---- unmeasured


@pytest.mark.parametrize("outcome", [U, I])
def test_what_is_not_measured_does_not_count(outcome: CheckOutcome) -> None:
    rating = rated({"C5": outcome, "C7": F})
    assert rating.measured["correctness"] == pytest.approx(16 / 18)
    assert rating.shares["correctness"] == pytest.approx(13 / 16)
    assert rating.overall is not None


@pytest.mark.parametrize(("blind", "is_rated"), [(1, True), (2, True), (3, False)])
def test_below_eighty_percent_a_dimension_is_unrated(blind: int, is_rated: bool) -> None:
    rubric = Rubric(
        name="ten/1",
        checks=(*(spec(f"C{i}", "correctness") for i in range(10)), *one_each().checks[1:]),
    )
    rating = rated({f"C{i}": U for i in range(blind)}, rubric)
    assert (rating.stars["correctness"] is not None) == is_rated
    assert (rating.overall is not None) == is_rated
    assert (rating.unrated is None) == is_rated


def test_the_reason_names_dimension_share_and_the_first_check() -> None:
    rating = rated({"C2": Finding(outcome=U, evidence="environment-limited: no 'foo'"), "C4": U, "C7": U})
    assert rating.unrated == (
        "only 61 % of correctness could be measured, 80 % are needed: C2 environment-limited: no 'foo'"
    )
    assert rating.stars["practices"] == 5


def test_nothing_measured_is_no_division_by_zero() -> None:
    rating = rated(dict.fromkeys("CKBDP", U), one_each())
    assert set(rating.stars.values()) == {None}
    assert rating.overall is None


def test_a_dimension_without_weight_needs_no_checks() -> None:
    rubric = Rubric(
        name="c/1",
        checks=(spec("C", "correctness"),),
        dimension_weights={"correctness": 1.0, "production": 0.0},
    )
    rating = rated({}, rubric)
    assert rating.overall == 5
    assert rating.stars["production"] is None


def test_a_flaky_check_is_unmeasured_and_fails_where_it_is_strict() -> None:
    facts = {"C6": Finding(outcome=U, evidence="flaky: 1 of 3", flaky=True)}
    assert result(score(evidence(facts), SHAPED), "C6") == U
    assert result(score(evidence(facts), SHAPED, strict=True), "C6") == F


def raises(_evidence: object) -> Finding:
    raise KeyError("ours")


def test_a_check_that_raises_is_our_own_fault() -> None:
    broken = CheckSpec("X", "broken", "correctness", 1, raises)
    rubric = Rubric(name="broken/1", checks=(spec("C", "correctness", 9), broken, *one_each().checks[1:]))
    card = score(evidence(), rubric)
    assert card.checks[1].outcome == I
    assert "KeyError" in card.checks[1].evidence
    assert card.stars == 5


# ---- gates, caps, tampering


@pytest.mark.parametrize(
    ("facts", "overall", "run_caps"),
    [
        ({"C1": F}, 0, ["C1"]),
        ({"C2": F}, 1, ["C2"]),
        ({"C3": F}, 2, ["C3"]),
        ({"C4": F}, 2, ["C4"]),
        ({"C3": F, "C4": F}, 2, ["C3"]),
        ({"C1": F, "C4": F}, 0, ["C1", "C4"]),
        ({"C7": F}, 5, []),
    ],
)
def test_caps_of_gates(facts: dict[str, object], overall: int, run_caps: list[str]) -> None:
    rating = rated(facts)
    assert rating.overall == overall
    assert [cap.split()[0] for cap in rating.caps] == run_caps


def test_caps_say_what_they_do() -> None:
    assert rated({"C2": F}).caps == ("C2 failed, the server does not start: overall at most 1 star",)
    assert rated({"undefined": "main.py:3 x"}).caps == (
        "a name is undefined: correctness at most 2 stars (main.py:3 x)",
    )


def test_what_is_behind_a_failed_gate_fails() -> None:
    card = score(evidence({"C2": F, "C5": U, "C7": I}), SHAPED)
    behind = [one for one in card.checks if one.id in ("C3", "C4", "C5", "C7", "K9")]
    assert {one.outcome for one in behind} == {F}
    assert {one.evidence for one in behind} == {"not reached: C2 failed"}
    assert result(card, "C10") == P
    assert result(card, "K1") == F
    assert result(card, "K1", "read") == P


def test_the_nearer_gate_speaks_when_it_alone_failed() -> None:
    card = score(evidence({"C3": F}), SHAPED)
    assert {one.evidence for one in card.checks if one.id in ("C4", "C5")} == {"not reached: C3 failed"}
    assert result(card, "K9") == P


def test_where_our_harness_broke_at_a_gate_nothing_behind_it_counts() -> None:
    card = score(evidence({"C2": I, "C5": F}), SHAPED)
    assert {one.outcome for one in card.checks if one.id in ("C2", "C3", "C5", "C11")} == {I}
    assert card.stars is None
    assert card.rating("read").overall == 5


def test_a_dimension_can_be_held_down_alone() -> None:
    rating = rated({"undefined": "main.py:3 x"})
    assert rating.stars["correctness"] == 2
    assert rating.overall == 4  # 3.95


def test_a_cap_that_raises_leaves_no_rating() -> None:
    rubric = one_each(caps=(Cap(raises, most=2, why="a name is undefined"),))  # type: ignore[arg-type]
    rating = rated({}, rubric)
    assert rating.overall is None
    assert rating.unrated == "whether a name is undefined could not be decided: KeyError"


@pytest.mark.parametrize("check", ["T1", "C5", "P10"])
def test_tampering_takes_every_star_of_both_profiles(check: str) -> None:
    for profile in ("run", "read"):
        rating = rated({check: T, "C2": F}, profile=profile)
        assert rating.overall == 0
        assert any("tampers" in cap for cap in rating.caps)


def test_no_stars_are_certain_even_where_little_was_measured() -> None:
    facts = {f"C{i}": U for i in range(2, 12)}
    assert rated({**facts, "C1": F}).overall == 0
    assert rated({**facts, "C1": F}).unrated is None


# ---- profiles


def test_reading_counts_only_what_was_not_run() -> None:
    facts = dict.fromkeys(("C2", "P0", "K9"), F)
    assert rated(facts, profile="read").overall == 5
    assert rated(facts, profile="read").caps == ()
    assert rated(facts).overall == 1


def test_the_check_for_reading_counts_in_its_place() -> None:
    card = score(evidence({"K1.read": F}), SHAPED)
    assert result(card, "K1") == P
    assert result(card, "K1", "read") == F
    assert [one.profiles for one in card.checks if one.id == "K1"] == [("run",), ("read",)]
    assert card.rating("read").shares["completeness"] == pytest.approx(14 / 17)


def test_a_rule_of_one_profile() -> None:
    rubric = one_each(caps=(Cap("C", most=1, why="so", profiles=("run",)),))
    assert rated({"C": F}, rubric).overall == 1
    assert rated({"C": F}, rubric, "read").overall == 3


# ---- scorecards


def test_a_scorecard_carries_the_evidence_identity_and_notes() -> None:
    facts = {"notes": ["run with transformers 4", "same"], "cut": "cut by us", "cannot_ask": "same"}
    card = score(evidence(facts), SHAPED)
    assert (card.answer, card.answer_sha256, card.scenario, card.seed) == (
        "answer 1",
        "9a15fccb1faeb30d",
        "toy",
        7,
    )
    assert card.rubric == "toy/1"
    assert card.environment == {"fastapi": "0.120.0"}
    assert card.notes == ("run with transformers 4", "same", "cut by us")


def test_evidence_is_one_harmless_line() -> None:
    text = (
        score(evidence({"C5": Finding(outcome=F, evidence="\x1b[2J\n" + "x" * 999)}), SHAPED)
        .checks[4]
        .evidence
    )
    assert text.startswith(r"\x1b[2J\n")
    assert len(text) == 200


@pytest.mark.parametrize(
    ("rubric", "said"),
    [
        (lambda: Rubric(name="r", checks=(spec("A", "correctness"), spec("A", "practices"))), "two checks"),
        (lambda: Rubric(name="r", checks=(spec("A", "correctness", -1),)), "weight -1"),
        (lambda: Rubric(name="r", checks=(spec("A", "correctness", behind="A"),)), "no gate above it"),
        (
            lambda: Rubric(name="r", checks=(spec("A", "correctness"), spec("B", "practices", behind="A"))),
            "no gate",
        ),
        (lambda: Rubric(name="r", checks=(), caps=(Cap("Z", most=1, why=""),)), "'Z'"),
        (lambda: Rubric(name="r", checks=(), dimension_weights={"correctness": 0.5}), "not 1"),
    ],
)
def test_rubrics_that_contradict_themselves(rubric: object, said: str) -> None:
    with pytest.raises(Misuse, match=said):
        rubric()  # type: ignore[operator]


# ---- whatever is found

OUTCOMES = st.sampled_from([P, F, F, U])
FACTS = st.fixed_dictionaries(
    {check.id: OUTCOMES for check in SHAPED.checks},
    optional={"undefined": st.just("main.py:3"), "K1.read": OUTCOMES},
)


@given(FACTS, st.sampled_from(SHAPED.checks))
@settings(max_examples=150, deadline=None)
def test_a_pass_instead_of_a_fail_never_lowers_stars(facts: dict[str, object], check: CheckSpec) -> None:
    before, after = rated({**facts, check.id: F}), rated({**facts, check.id: P})
    for dimension in DIMENSIONS:
        if before.stars[dimension] is not None and after.stars[dimension] is not None:
            assert after.shares[dimension] >= before.shares[dimension] or before.measured != after.measured
    if before.overall is not None and after.overall is not None:
        known = {name: P if outcome == U else outcome for name, outcome in facts.items()}
        low, high = rated({**known, check.id: F}), rated({**known, check.id: P})
        assert high.overall >= low.overall  # type: ignore[operator]
        assert all(high.stars[name] >= low.stars[name] for name in DIMENSIONS)  # type: ignore[operator]


@given(FACTS)
@settings(max_examples=50, deadline=None)
def test_scoring_is_deterministic_and_within_bounds(facts: dict[str, object]) -> None:
    card = score(evidence(facts), SHAPED)
    assert card == score(evidence(facts), SHAPED)
    for rating in card.ratings.values():
        assert rating.overall is None or 0 <= rating.overall <= 5
        assert (rating.overall is None) == (rating.unrated is not None)


def test_a_check_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    check = CheckSpec("C", "c", "correctness", 1, lambda seen: (asked.append("C"), told("C")(seen))[1])
    score(evidence(), Rubric(name="r", checks=(check,)))
    assert asked == ["C"]
