"""Verdicts on right answers: decided by exact intervals, paired by question, and explained."""

import pytest

from pytest_qwen.accuracy_verdicts import judge_drop, judge_share
from pytest_qwen.bounds import Bound
from pytest_qwen.correctness import Graded, Item, discordant
from pytest_qwen.outcomes import NoVerdict, Outcome


def graded(rights: str, *, of: int = 1000, first: int = 0) -> Graded:
    """One item a letter: "r" for right."""
    items = (
        Item(task="t", number=n, digest=f"d{n}", right=letter == "r")
        for n, letter in enumerate(rights, first)
    )
    return Graded(task="quiz", metric="acc,none", of=of, items=tuple(items))


def least(limit: float) -> Bound:
    return Bound(
        marker="min_accuracy", metric="", direction="at least", limit=limit, unit="ratio", judged="counted"
    )


def drop(limit: float) -> Bound:
    return Bound(
        marker="max_accuracy_drop",
        metric="",
        direction="at most",
        limit=limit,
        unit="ratio",
        judged="counted",
        vs="bf16",
    )


@pytest.mark.parametrize(
    ("limit", "outcome"),
    [(0.5, Outcome.PASS), (0.95, Outcome.FAIL), (0.75, Outcome.NO_VERDICT), (0.85, Outcome.NO_VERDICT)],
)
def test_a_share_is_decided_where_its_interval_ends(limit, outcome):
    verdict = judge_share(least(limit), graded("r" * 80 + "w" * 20), alpha=0.01)
    assert verdict.outcome is outcome
    assert verdict.estimate == 0.8
    assert verdict.low < 0.75 < 0.85 < verdict.high
    assert verdict.bound.metric == "quiz"


def test_without_a_verdict_it_says_how_many_questions_would_give_one():
    verdict = judge_share(least(0.75), graded("r" * 80 + "w" * 20), alpha=0.01)
    assert verdict.reason == NoVerdict.TOO_FEW_QUESTIONS
    assert "80 of 100 right" in verdict.explanation
    needed = int(verdict.explanation.split("about ")[1].split()[0])
    more = graded("r" * round(0.8 * needed) + "w" * (needed - round(0.8 * needed)), of=10**6)
    assert judge_share(least(0.75), more, alpha=0.01).outcome is Outcome.PASS


def test_where_the_data_set_is_used_up_it_says_so():
    verdict = judge_share(least(0.75), graded("r" * 80 + "w" * 20, of=100), alpha=0.01)
    assert "quiz has no more than these 100" in verdict.explanation


@pytest.mark.parametrize(
    ("before", "after", "outcome"),
    [
        ("r" * 200, "r" * 200, Outcome.PASS),
        ("r" * 200, "r" * 100 + "w" * 100, Outcome.FAIL),
        ("r" * 200, "r" * 188 + "w" * 12, Outcome.NO_VERDICT),
        ("w" * 200, "r" * 200, Outcome.PASS),
        # as many right as before, but of other questions: nothing is known of a drop of 5 points
        ("r" * 100 + "w" * 100, "w" * 100 + "r" * 100, Outcome.NO_VERDICT),
    ],
)
def test_a_drop_is_judged_on_the_questions_that_one_side_alone_got_right(before, after, outcome):
    verdict = judge_drop(drop(0.05), graded(before), graded(after), alpha=0.01)
    assert verdict.outcome is outcome
    assert verdict.estimate == pytest.approx((before.count("r") - after.count("r")) / 200)


def test_the_words_of_a_drop_name_both_sides():
    verdict = judge_drop(drop(0.05), graded("rrrw" * 50), graded("rrwr" * 50), alpha=0.01)
    assert "150 of 200 right with bf16, here 150: 50 lost, 50 gained" in verdict.explanation


def test_pairs_are_made_by_question_not_by_place():
    one = graded("rw")
    turned = Graded(task="quiz", metric="acc", of=2, items=one.items[::-1])
    assert discordant(one, turned) == (0, 0, 2)


def test_sides_that_were_asked_different_questions_cannot_be_compared():
    with pytest.raises(ValueError, match="2 questions were asked of one side only"):
        discordant(graded("rr"), graded("rr", first=1))


def test_an_evaluation_prints_as_a_line_and_not_as_all_its_questions() -> None:
    text = str(graded("r" * 90 + "w" * 10))
    assert text.startswith("quiz: 90 of 100 right, 90.0% [")
    assert "99% confidence" in text
    assert "Item(" not in text
