"""Stars that humans published beside ours: how far they agree, and what causes the differences."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import sqrt

from pytest_qwen.errors import Misuse, explain
from pytest_qwen.rubric import FAILURES, counted, is_unreached
from pytest_qwen.scorecards import Profile, Scorecard
from pytest_qwen.star_texts import heaviest_first

# From this many stars on, a difference has to be explained.
FAR_STARS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class HumanRating:
    """One rating that a human gave to one answer; `date` in ISO 8601."""

    sample: str
    sha256: str
    rater: str
    date: str
    stars: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A human's stars and ours for one answer; ours are None where it is unrated.

    `caps` held our stars down and `checks` failed on their own, the heaviest first.
    """

    rating: HumanRating
    ours: int | None
    caps: tuple[str, ...] = ()
    checks: tuple[str, ...] = ()

    @property
    def difference(self) -> int | None:
        """Our stars less the human's."""
        return None if self.ours is None else self.ours - self.rating.stars


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How ratings agree. Unrated answers are in `pairs` and in no figure; None is a figure of nothing.

    `tau_b` is Kendall's (-1 to 1), `mean_absolute_error` in stars. `far` are the pairs that differ by two
    stars or more.
    """

    profile: Profile
    pairs: tuple[Pair, ...]
    tau_b: float | None
    mean_absolute_error: float | None

    @property
    def far(self) -> tuple[Pair, ...]:
        """The pairs whose difference has to be explained."""
        return tuple(one for one in self.pairs if abs(one.difference or 0) >= FAR_STARS)


def agreement(
    ratings: Iterable[HumanRating], cards: Iterable[Scorecard], *, profile: Profile = "run"
) -> Agreement:
    """Ratings beside the scorecards of the same answers, matched by checksum.

    Raises Misuse for a rating without a scorecard: agreement over a part of the answers is another figure.
    """
    by_sha256 = {card.answer_sha256: card for card in cards}
    pairs = tuple(_pair(rating, by_sha256, profile) for rating in ratings)
    both = [(one.rating.stars, one.ours) for one in pairs if one.ours is not None]
    human, ours = [h for h, _ in both], [o for _, o in both]
    return Agreement(
        profile=profile,
        pairs=pairs,
        tau_b=kendall_tau_b(human, ours),
        mean_absolute_error=sum(abs(h - o) for h, o in both) / len(both) if both else None,
    )


def kendall_tau_b(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Rank correlation with ties: (concordant - discordant) / √((n₀ - n₁)(n₀ - n₂)).

    n₀ are all pairs, n₁ and n₂ those tied in the first and in the second (Kendall 1945). None where all of
    one side are tied, or there are fewer than two.
    """
    pairs = list(combinations(zip(first, second, strict=True), 2))
    signs = [(_sign(a - c), _sign(b - d)) for (a, b), (c, d) in pairs]
    untied = sum(x != 0 for x, _ in signs) * sum(y != 0 for _, y in signs)
    return sum(x * y for x, y in signs) / sqrt(untied) if untied else None


def read_ratings(text: str) -> tuple[HumanRating, ...]:
    """The ratings in a CSV text with the columns sample, sha256, rater, date, stars, reason.

    Raises Misuse for a column that is missing and for stars that are not 0 to 5.
    """
    found = []
    for number, row in enumerate(csv.DictReader(io.StringIO(text)), start=2):
        try:
            stars = int(row["stars"])
            if not 0 <= stars <= 5:
                raise ValueError(f"stars {stars}")
            names = ("sample", "sha256", "rater", "date", "reason")
            found.append(HumanRating(stars=stars, **{name: row[name] or "" for name in names}))
        except (KeyError, TypeError, ValueError) as error:
            raise Misuse(
                explain(
                    f"the ratings cannot be read: line {number}",
                    found=f"{type(error).__name__}: {error}",
                    slip="columns are sample, sha256, rater, date, stars (0 to 5), reason",
                )
            ) from error
    return tuple(found)


def _pair(rating: HumanRating, cards: Mapping[str, Scorecard], profile: Profile) -> Pair:
    card = cards.get(rating.sha256)
    if card is None:
        raise Misuse(
            explain(
                "a published rating has no scorecard to stand beside",
                asked=f"{rating.sample}, SHA-256 {rating.sha256}",
                found=f"{len(cards)} scorecard(s) of other answers",
                slip="the answer's file was changed after it was rated, or it was not rated by us",
            )
        )
    failed = [
        one for one in counted(card.checks, profile) if one.outcome in FAILURES and not is_unreached(one)
    ]
    return Pair(
        rating=rating,
        ours=card.rating(profile).overall,
        caps=card.rating(profile).caps,
        checks=tuple(one.id for one in heaviest_first(failed)),
    )


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)
