"""Verdicts on stars: the least of every rated answer against what was asked, and pass@k of the samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from pytest_qwen.bounds import Bound
from pytest_qwen.escaping import escaped
from pytest_qwen.lifts import Part
from pytest_qwen.outcomes import NoVerdict, Outcome
from pytest_qwen.pass_at_k import pass_at_k
from pytest_qwen.rubric import Rubric
from pytest_qwen.scorecards import Profile, Scorecard
from pytest_qwen.star_texts import explain_stars
from pytest_qwen.verdicts import Verdict


def judge_stars(
    bound: Bound, cards: Sequence[Scorecard], rubrics: Sequence[Rubric], *, sample_stars: int
) -> Verdict:
    """The verdict of one bound on stars over the scorecards of a test, each with its rubric.

    Every answer has to meet a `min_stars`; an answer that could not be rated leaves no verdict, unless
    another one fails already. For pass@k an unrated sample leaves none either: it could be a good one.
    """
    if bound.marker == "min_pass_at_k":
        return _pass_at_k(bound, cards, sample_stars)
    found = [stars_for(bound, card) for card in cards]
    low = [stars for stars in found if stars is not None and not bound.met_by(stars)]
    if low:
        worst = found.index(min(low))
        text = explain_stars(cards[worst], rubrics[worst], int(bound.limit), _profile(bound), _part(bound))
        return _verdict(bound, Outcome.FAIL, float(min(low)), len(cards), text)
    unrated = [card for card, stars in zip(cards, found, strict=True) if stars is None]
    if unrated:
        profile = unrated[0].rating(_profile(bound))
        why = profile.unrated or f"less than 80 % of {_part(bound)} could be measured"
        text = f"{bound}: NO VERDICT: {escaped(unrated[0].answer)} is unrated: {escaped(why, 400)}"
        return _verdict(bound, Outcome.NO_VERDICT, None, len(cards), text, NoVerdict.UNRATED)
    least = float(min(stars for stars in found if stars is not None))
    return _verdict(bound, Outcome.PASS, least, len(cards), f"{bound}: {least:g} stars")


def stars_for(bound: Bound, card: Scorecard) -> int | None:
    """The stars of a scorecard that a bound speaks of; None where they are not rated."""
    rating = card.rating(_profile(bound))
    part = _part(bound)
    return rating.overall if part == "overall" else rating.stars[part]


def _profile(bound: Bound) -> Profile:
    return "read" if bound.metric.startswith("read") else "run"


def _part(bound: Bound) -> Part:
    return cast(Part, bound.metric.partition(" ")[2])


def _pass_at_k(bound: Bound, cards: Sequence[Scorecard], sample_stars: int) -> Verdict:
    """Bounded from both sides by what unrated samples could be."""
    n, k = len(cards), int(bound.metric.partition("@")[2])
    good = sum(card.stars is not None and card.stars >= sample_stars for card in cards)
    unrated = sum(card.stars is None for card in cards)
    low, high = pass_at_k(n, good, k), pass_at_k(n, good + unrated, k)
    said = f"{good} of {n} samples have {sample_stars} stars or more: pass@{k} = {low:.3g}"
    if bound.met_by(low):
        return _verdict(bound, Outcome.PASS, low, n, f"{bound}: {said}", high=high)
    if not bound.met_by(high):
        return _verdict(bound, Outcome.FAIL, low, n, f"{bound}: {said}", high=high)
    text = f"{bound}: NO VERDICT: {said}, up to {high:.3g} if the {unrated} unrated ones were good"
    return _verdict(bound, Outcome.NO_VERDICT, low, n, text, NoVerdict.UNRATED, high=high)


def _verdict(
    bound: Bound,
    outcome: Outcome,
    estimate: float | None,
    n: int,
    text: str,
    reason: NoVerdict | None = None,
    *,
    high: float | None = None,
) -> Verdict:
    return Verdict(
        bound=bound,
        outcome=outcome,
        reason=str(reason) if reason else "",
        estimate=estimate,
        low=estimate,
        high=high if high is not None else estimate,
        n=n,
        ceiling=None,
        explanation=text,
    )
