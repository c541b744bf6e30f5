"""Scorecards as data for other programs: properties of a JUnit file, rows of a spreadsheet."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

from pytest_qwen.escaping import escaped
from pytest_qwen.reports.junit import Scalar
from pytest_qwen.reports.stars import UNRATED
from pytest_qwen.scorecards import DIMENSIONS, PROFILES, CheckOutcome, Scorecard

# New columns go to the end: readers may count on the order.
COLUMNS = (
    "answer",
    "scenario",
    "rubric",
    *(f"{profile}_{part}" for profile in PROFILES for part in ("stars", *DIMENSIONS)),
    "held_down",
    "unrated",
    "failed",
    "unmeasured",
    "notes",
    "seed",
    "answer_sha256",
)
_SEPARATOR = "; "


def star_properties(cards: Sequence[Scorecard]) -> list[tuple[str, Scalar]]:
    """The pairs for pytest's `user_properties`.

    `qwen.stars.run`, `qwen.stars.run.correctness` and so on for every profile and dimension, "unrated" where
    there are none; `qwen.answer`, `qwen.rubric`, and where they apply `qwen.held_down`, `qwen.unrated`,
    `qwen.failed`. Of several answers each has its number: `qwen.2.stars.run`.
    """
    found: list[tuple[str, Scalar]] = []
    for number, card in enumerate(cards, start=1):
        prefix = "qwen" if len(cards) == 1 else f"qwen.{number}"
        row = _row(card)
        found += [(f"{prefix}.{name}", str(row[name])) for name in ("answer", "scenario", "rubric")]
        for profile, rating in card.ratings.items():
            stars = f"{prefix}.stars.{profile}"
            found.append((stars, _value(rating.overall)))
            found += [(f"{stars}.{name}", _value(rating.stars[name])) for name in DIMENSIONS]
        told = ("held_down", "unrated", "failed", "unmeasured", "notes")
        found += [(f"{prefix}.{name}", str(row[name])) for name in told if row[name]]
    return found


def stars_csv(cards: Iterable[Scorecard]) -> str:
    """The text of a file with a row for each scorecard; an empty cell of stars is unrated."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_row(card) for card in cards)
    return text.getvalue()


def _row(card: Scorecard) -> dict[str, object]:
    stars: dict[str, object] = {}
    for profile, rating in card.ratings.items():
        stars[f"{profile}_stars"] = rating.overall
        stars |= {f"{profile}_{name}": rating.stars[name] for name in DIMENSIONS}
    caps = dict.fromkeys(cap for rating in card.ratings.values() for cap in rating.caps)
    return {
        "answer": escaped(card.answer),
        "scenario": escaped(card.scenario),
        "rubric": escaped(card.rubric),
        **stars,
        "held_down": _SEPARATOR.join(escaped(cap, 400) for cap in caps),
        "unrated": escaped(card.rating().unrated or "", 400),
        "failed": _ids(card, CheckOutcome.FAIL, CheckOutcome.TAMPER),
        "unmeasured": _ids(card, CheckOutcome.UNMEASURED, CheckOutcome.INFRA_ERROR),
        "notes": _SEPARATOR.join(map(escaped, card.notes)),
        "seed": card.seed,
        "answer_sha256": escaped(card.answer_sha256),
    }


def _ids(card: Scorecard, *outcomes: CheckOutcome) -> str:
    """The checks of the profile `run` that came out so, by their ids."""
    return " ".join(one.id for one in card.checks if "run" in one.profiles and one.outcome in outcomes)


def _value(stars: int | None) -> Scalar:
    return UNRATED if stars is None else stars
