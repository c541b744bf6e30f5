"""Agreement with human stars, against values worked out by hand."""

from __future__ import annotations

from math import sqrt

import pytest
from star_samples import F, U, evidence, one_each, shaped

from pytest_qwen.agreement import HumanRating, agreement, kendall_tau_b, read_ratings
from pytest_qwen.data import fixtures_dir
from pytest_qwen.errors import Misuse
from pytest_qwen.rubric import score
from pytest_qwen.scorecards import Scorecard

SHAPED = shaped()


@pytest.mark.parametrize(
    ("first", "second", "tau"),
    [
        ((1, 2, 3), (1, 2, 3), 1.0),
        ((1, 2, 3), (3, 2, 1), -1.0),
        ((1, 2, 3, 4), (1, 3, 2, 4), 4 / 6),  # five pairs agree, one does not
        ((1, 1, 2), (1, 2, 3), 2 / sqrt(2 * 3)),  # one pair tied in the first
        ((1, 1, 2, 2), (1, 2, 1, 2), 0.0),
        # 8 of 10 pairs agree, 1 does not, 1 is tied in the second: 7 / √(10·9)
        ((1, 4, 0, 3, 5), (4, 5, 2, 3, 5), 7 / sqrt(90)),
    ],
)
def test_tau_b(first: tuple[int, ...], second: tuple[int, ...], tau: float) -> None:
    assert kendall_tau_b(first, second) == pytest.approx(tau)
    assert kendall_tau_b(second, first) == pytest.approx(tau)


def test_the_published_example() -> None:
    tau = kendall_tau_b((1, 4, 0, 3, 5), (4, 5, 2, 3, 5))
    assert tau is not None
    assert round(tau, 2) == 0.74


@pytest.mark.parametrize("values", [((), ()), ((1,), (2,)), ((3, 3, 3), (1, 2, 3))])
def test_no_tau_without_an_order(values: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    assert kendall_tau_b(*values) is None


def human(stars: int, sample: str = "a") -> HumanRating:
    return HumanRating(
        sample=sample, sha256=f"sha-{sample}", rater="r", date="2025-08-03", stars=stars, reason=""
    )


def card(facts: dict[str, object], sample: str = "a") -> Scorecard:
    return score(evidence(facts, answer_sha256=f"sha-{sample}"), SHAPED)


def test_ratings_meet_the_scorecards_of_the_same_answer() -> None:
    cards = [card({}, "b"), card({"C3": F, "C10": F}, "a"), card({"C7": F}, "c")]
    found = agreement([human(5, "b"), human(4, "a"), human(4, "c")], cards)
    assert [(one.rating.sample, one.ours, one.difference) for one in found.pairs] == [
        ("b", 5, 0),
        ("a", 2, -2),
        ("c", 5, 1),
    ]
    assert found.mean_absolute_error == pytest.approx(1.0)
    assert found.tau_b == pytest.approx(1 / 2)


def test_far_ratings_name_what_caused_them() -> None:
    found = agreement(
        [human(4, "a"), human(5, "b")], [card({"C3": F, "C10": F, "D1": F}, "a"), card({}, "b")]
    )
    (far,) = found.far
    assert far.caps == ("C3 failed, no image is answered: overall at most 2 stars",)
    assert far.checks == ("C3", "D1", "C10")


def test_unrated_answers_are_listed_and_in_no_figure() -> None:
    unrated = score(evidence({"C": U}, answer_sha256="sha-a"), one_each())
    found = agreement([human(5, "a"), human(4, "b")], [unrated, card({}, "b")])
    assert found.pairs[0].ours is None
    assert found.pairs[0].difference is None
    assert found.mean_absolute_error == 1
    assert agreement([human(5, "a")], [unrated]).mean_absolute_error is None
    assert found.far == ()


def test_of_the_other_profile() -> None:
    assert agreement([human(5)], [card({"C4": F})], profile="read").pairs[0].ours == 5


def test_a_rating_without_its_answer_is_no_agreement() -> None:
    with pytest.raises(Misuse, match="SHA-256 sha-b"):
        agreement([human(5, "b")], [card({}, "a")])


def test_the_published_ratings_are_read() -> None:
    ratings = read_ratings((fixtures_dir() / "answers" / "ratings.csv").read_text(encoding="utf-8"))
    assert [one.stars for one in ratings] == [4, 5, 2, 3, 5]
    assert all(len(one.sha256) == 64 and one.reason for one in ratings)


@pytest.mark.parametrize("stars", ["6", "-1", "four", ""])
def test_ratings_that_cannot_be(stars: str) -> None:
    with pytest.raises(Misuse, match="line 2"):
        read_ratings(f"sample,sha256,rater,date,stars,reason\na,b,c,d,{stars},f\n")
    with pytest.raises(Misuse, match="line 2"):
        read_ratings("sample,rater\na,b\n")
