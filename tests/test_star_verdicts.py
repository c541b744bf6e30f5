"""Bounds on stars: which verdict scorecards give, and in which words."""

from __future__ import annotations

from dataclasses import replace

import pytest
from star_samples import HOSTILE, F, I, U, evidence, one_each

import pytest_qwen as q
from pytest_qwen.bounds import Bound
from pytest_qwen.outcomes import NoVerdict, Outcome
from pytest_qwen.parsing import parse, rated_bounds
from pytest_qwen.rubric import Rubric, score
from pytest_qwen.scorecards import DIMENSIONS, Scorecard
from pytest_qwen.star_verdicts import judge_stars, stars_for
from pytest_qwen.verdicts import Verdict

RUBRIC = one_each()  # one check a dimension, C K B D P: it has 5 stars or none
# The failed checks of an answer with so many stars overall; I is what our own sandbox broke.
STARS = {5: "", 4: "B", 3: "C", 2: "CP", 1: "CKP", 0: "CKBDP"}


def card(failing: str = "", label: str = "answer 1", **facts: object) -> Scorecard:
    seen = dict.fromkeys(failing, F) | facts
    return score(evidence(seen, answer=label), RUBRIC)


def unrated(label: str = "answer 1", failing: str = "") -> Scorecard:
    return replace(card(failing, label, C=I), answer=label)


def bounds(decorator: pytest.MarkDecorator) -> tuple[Bound, ...]:
    return rated_bounds(parse(decorator.mark))  # type: ignore[arg-type]


def judged(decorator: pytest.MarkDecorator, *cards: Scorecard, good: int = 4) -> Verdict:
    (bound,) = bounds(decorator)
    return judge_stars(bound, cards, [RUBRIC] * len(cards), sample_stars=good)


def test_the_cards_of_this_file_have_the_stars_that_they_are_said_to_have() -> None:
    assert [card(failing).stars for failing in STARS.values()] == list(STARS)
    assert unrated().stars is None
    assert unrated().rating().unrated


@pytest.mark.parametrize(
    ("stars", "least", "outcome"),
    [
        ([5], 5, Outcome.PASS),
        ([4], 4, Outcome.PASS),  # equality meets it
        ([0], 0, Outcome.PASS),
        ([5, 4, 4], 4, Outcome.PASS),
        ([3], 4, Outcome.FAIL),
        ([5, 3, 5], 4, Outcome.FAIL),
        ([0], 1, Outcome.FAIL),
        ([None], 4, Outcome.NO_VERDICT),
        ([None], 0, Outcome.NO_VERDICT),  # also no stars at all have to be rated
        ([5, None], 4, Outcome.NO_VERDICT),
        ([None, 3], 4, Outcome.FAIL),  # whatever the other one has
        ([3, None], 4, Outcome.FAIL),
    ],
)
def test_every_answer_has_to_have_the_stars(stars: list[int | None], least: int, outcome: Outcome) -> None:
    cards = [unrated() if n is None else card(STARS[n]) for n in stars]
    verdict = judged(q.min_stars(least), *cards)
    assert verdict.outcome == outcome
    rated = [n for n in stars if n is not None]
    assert verdict.estimate == (None if outcome == Outcome.NO_VERDICT else min(rated))
    assert verdict.n == len(stars)
    assert (verdict.low, verdict.high) == (verdict.estimate, verdict.estimate)


def test_a_pass_says_the_least_stars() -> None:
    verdict = judged(q.min_stars(3), card(), card("B"))
    assert verdict.explanation == "min_stars: run overall ≥ 3 stars: 4 stars"
    assert verdict.reason == ""


def test_a_failure_speaks_of_the_answer_with_the_fewest_stars() -> None:
    verdict = judged(q.min_stars(4), card("C", "the third"), card("CKP", "the first"), card("", "the fifth"))
    assert "answer: the first" in verdict.explanation
    assert "1 star" in verdict.explanation.splitlines()[0]
    assert "cheapest: " in verdict.explanation
    assert "the third" not in verdict.explanation


def test_no_verdict_says_which_answer_and_why() -> None:
    verdict = judged(q.min_stars(4), card("", "fine"), unrated("broken"))
    assert verdict.reason == NoVerdict.UNRATED
    assert verdict.explanation.startswith("min_stars: run overall ≥ 4 stars: NO VERDICT: broken is unrated: ")
    assert "correctness" in verdict.explanation


def test_an_answers_label_cannot_write_to_the_terminal() -> None:
    for verdict in (
        judged(q.min_stars(4), card("C", HOSTILE)),
        judged(q.min_stars(4), unrated(HOSTILE)),
    ):
        assert not {"\x1b", "\x07", "\x00", "\u202e"} & set(verdict.explanation)
        verdict.explanation.encode("utf-8")


# ---- dimensions and profiles


@pytest.mark.parametrize(
    ("failing", "dimension"),
    list(zip("CKBDP", DIMENSIONS, strict=True)),
)
def test_a_dimension_is_judged_by_itself(failing: str, dimension: str) -> None:
    for name in DIMENSIONS:
        verdict = judged(q.min_stars(**{name: 1}), card(failing))
        assert verdict.outcome == (Outcome.FAIL if name == dimension else Outcome.PASS)
        assert verdict.bound.metric == f"run {name}"


def test_a_rated_dimension_of_an_unrated_answer_has_its_verdict() -> None:
    assert judged(q.min_stars(documentation=5), unrated()).outcome == Outcome.PASS
    assert judged(q.min_stars(documentation=5), unrated(failing="D")).outcome == Outcome.FAIL
    assert judged(q.min_stars(correctness=5), unrated()).outcome == Outcome.NO_VERDICT


def test_an_unrated_dimension_of_a_rated_answer_says_what_is_missing() -> None:
    given = card(D=U)
    rating = replace(given.rating(), overall=4, unrated=None)
    given = replace(given, ratings={**given.ratings, "run": rating})
    verdict = judged(q.min_stars(documentation=3), given)
    assert verdict.outcome == Outcome.NO_VERDICT
    assert "less than 80 % of documentation could be measured" in verdict.explanation


def test_one_mark_with_several_ratings_is_several_bounds() -> None:
    found = [
        judge_stars(bound, [card("D")], [RUBRIC], sample_stars=4)
        for bound in bounds(q.min_stars(4, documentation=1, practices=5))
    ]
    assert [(one.bound.metric, one.outcome) for one in found] == [
        ("run overall", Outcome.PASS),
        ("run practices", Outcome.PASS),
        ("run documentation", Outcome.FAIL),
    ]


def test_the_profile_chooses_the_rating() -> None:
    run_low = card()
    ratings = {"run": card("CKBDP").rating("run"), "read": card().rating("read")}
    run_low = replace(run_low, ratings=ratings)
    assert judged(q.min_stars(4), run_low).outcome == Outcome.FAIL
    assert judged(q.min_stars(4, profile="read"), run_low).outcome == Outcome.PASS
    (bound,) = bounds(q.min_stars(4, profile="read"))
    assert (stars_for(bound, run_low), bound.metric) == (5, "read overall")


def test_each_answer_is_explained_with_its_own_rubric() -> None:
    other = Rubric(name="other/1", checks=RUBRIC.checks)
    low = score(evidence({"C": F}, answer="of the other"), other)
    (bound,) = bounds(q.min_stars(4))
    verdict = judge_stars(bound, [card(), low], [RUBRIC, other], sample_stars=4)
    assert "rubric other/1" in verdict.explanation


# ---- pass@k


@pytest.mark.parametrize(
    ("samples", "limit", "k", "outcome", "low", "high"),
    [
        ([5, 4, 3, 0], 0.5, 1, Outcome.PASS, 0.5, 0.5),  # equality meets it
        ([5, 3, 3, 0], 0.5, 1, Outcome.FAIL, 0.25, 0.25),
        ([5, 3, 3, 0], 0.5, 2, Outcome.PASS, 0.5, 0.5),
        ([5, 3, 3, 0], 0.51, 2, Outcome.FAIL, 0.5, 0.5),
        ([3, 3], 0.01, 2, Outcome.FAIL, 0.0, 0.0),
        ([5], 1, 1, Outcome.PASS, 1.0, 1.0),
        ([5, 5, 3], 1, 2, Outcome.PASS, 1.0, 1.0),
        # unrated samples: decided where they cannot turn it, open where they can
        ([5, 4, None, 0], 0.5, 1, Outcome.PASS, 0.5, 0.75),
        ([5, None, 3, 0], 0.5, 1, Outcome.NO_VERDICT, 0.25, 0.5),
        ([5, None, 3, 0], 0.6, 1, Outcome.FAIL, 0.25, 0.5),
        ([None], 0.1, 1, Outcome.NO_VERDICT, 0.0, 1.0),
        ([None, None, 5], 0.6, 2, Outcome.PASS, 2 / 3, 1.0),
    ],
)
def test_pass_at_k(
    samples: list[int | None], limit: float, k: int, outcome: Outcome, low: float, high: float
) -> None:
    cards = [unrated() if n is None else card(STARS[n]) for n in samples]
    verdict = judged(q.min_pass_at_k(limit, k=k), *cards)
    assert verdict.outcome == outcome
    assert (verdict.estimate, verdict.high) == (pytest.approx(low), pytest.approx(high))
    assert verdict.n == len(samples)
    assert f"pass@{k} = {low:.3g}" in verdict.explanation
    assert (verdict.reason == NoVerdict.UNRATED) == (outcome == Outcome.NO_VERDICT)


def test_which_samples_are_good_is_the_marks_word() -> None:
    samples = [card(STARS[n]) for n in (5, 4, 3, 2)]
    for good, share in ((5, 0.25), (4, 0.5), (3, 0.75), (2, 1.0)):
        assert judged(q.min_pass_at_k(0.1, stars=good), *samples, good=good).estimate == pytest.approx(share)


def test_an_open_pass_at_k_says_what_it_could_be() -> None:
    text = judged(q.min_pass_at_k(0.5), card(), unrated(), card("C")).explanation
    assert text.startswith("min_pass_at_k: pass@1 ≥ 0.5 ratio: NO VERDICT: 1 of 3 samples have 4 stars")
    assert "up to 0.667 if the 1 unrated ones were good" in text
