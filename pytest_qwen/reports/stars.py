"""Scorecards on a terminal: one row an answer, and all that one answer's stars rest on."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from pytest_qwen.escaping import escaped, printable
from pytest_qwen.reports.text import fit, speak
from pytest_qwen.scorecards import DIMENSIONS, CheckResult, Dimension, Profile, Rating, Scorecard

MOST_STARS = 5
SHORT: dict[Dimension, str] = {
    "correctness": "corr",
    "completeness": "compl",
    "practices": "pract",
    "documentation": "docs",
    "production": "prod",
}
UNRATED = "unrated"
_GAP = "  "
_ANSWER_LEAST = 12
_LEAST_WIDTH = 40


def star_text(stars: int | None, *, unicode: bool = True) -> str:
    """Stars as a picture and a number, "★★★★☆ 4"; "unrated" for none."""
    if stars is None:
        return UNRATED
    full, empty = "★☆" if unicode else "*."
    return f"{full * stars}{empty * (MOST_STARS - stars)} {stars}"


def stars_table(cards: Sequence[Scorecard], *, width: int, unicode: bool = True) -> str:
    """A row for each answer: stars of both profiles, those of every dimension, what held them down below.

    No line is longer than `width` columns (40 at the least); "" for no scorecards.
    """
    if not cards:
        return ""
    page = _Page(max(_LEAST_WIDTH, width), unicode=unicode)
    return page.text(page.table(cards))


def scorecard_text(card: Scorecard, *, width: int, unicode: bool = True) -> str:
    """One scorecard in full: stars, what held them down, and every check with its evidence by dimension."""
    page = _Page(max(_LEAST_WIDTH, width), unicode=unicode)
    return page.text(page.card(card))


class _Page:
    """What holds for every line: the width and the alphabet."""

    def __init__(self, width: int, *, unicode: bool) -> None:
        self.width, self.unicode = width, unicode

    def text(self, lines: Iterator[str]) -> str:
        """The lines as they may be shown; where a line begins may be new, so it is looked at again."""
        return printable("\n".join(lines).encode("utf-8", "backslashreplace"))

    def table(self, cards: Sequence[Scorecard]) -> Iterator[str]:
        """The heading and a row an answer, as columns where there is room for them."""
        heading = ["run", "read", *SHORT.values()]
        rows = [self._cells(card) for card in cards]
        widths = [max(map(len, column)) for column in zip(heading, *rows, strict=True)]
        names = [self.shown(card.answer) for card in cards]
        room = self.width - sum(width + len(_GAP) for width in widths)
        if room < _ANSWER_LEAST:
            yield from self._narrow(cards, names)
            return
        first = min(room, max(len("answer"), *map(len, names)))
        yield _row("answer".ljust(first), heading, widths)
        for card, name, cells in zip(cards, names, rows, strict=True):
            yield _row(fit(name, first, unicode=self.unicode, keep="end").ljust(first), cells, widths)
            for said in _remarks(card):
                yield from self.wrapped(said, indent="    ")

    def _narrow(self, cards: Sequence[Scorecard], names: Sequence[str]) -> Iterator[str]:
        for card, name in zip(cards, names, strict=True):
            yield fit(name, self.width, unicode=self.unicode, keep="end")
            for profile, rating in card.ratings.items():
                said = f"{profile} {star_text(rating.overall, unicode=self.unicode)}: {_digits(rating)}"
                yield from self.wrapped(said, indent=_GAP)
            for said in _remarks(card):
                yield from self.wrapped(said, indent="    ")

    def _cells(self, card: Scorecard) -> list[str]:
        run, read = card.rating("run"), card.rating("read")
        overall = [star_text(one.overall, unicode=self.unicode) for one in (run, read)]
        return [*overall, *(_digit(run.stars[dimension]) for dimension in DIMENSIONS)]

    def card(self, card: Scorecard) -> Iterator[str]:
        """The whole scorecard."""
        about = [f"rubric {card.rubric}", f"scenario {card.scenario}", f"SHA-256 {card.answer_sha256[:12]}"]
        seed = [] if card.seed is None else [f"seed {card.seed}"]
        yield from self.wrapped(f"{escaped(card.answer)} ({', '.join([*about, *seed])})")
        for profile, rating in card.ratings.items():
            stars = star_text(rating.overall, unicode=self.unicode)
            yield from self.wrapped(f"{profile}: {stars}; {_words(rating)}", indent=_GAP)
        for said in _remarks(card):
            yield from self.wrapped(said, indent=_GAP)
        for dimension in DIMENSIONS:
            checks = [check for check in card.checks if check.dimension == dimension]
            if checks:
                yield ""
                yield from self.wrapped(f"{dimension}: {self._measured(card, dimension)}")
            for check in checks:
                yield from self.wrapped(_check(check), indent=_GAP)
        if card.notes:
            yield ""
        for note in card.notes:
            yield from self.wrapped(f"note: {escaped(note)}")

    def _measured(self, card: Scorecard, dimension: Dimension) -> str:
        said = []
        for profile, rating in card.ratings.items():
            stars = star_text(rating.stars[dimension], unicode=self.unicode)
            said.append(f"{profile} {stars}, {measure(rating, dimension)}")
        return "; ".join(said)

    def shown(self, text: str) -> str:
        """Text of others in one line of the terminal's alphabet."""
        return speak(escaped(text), unicode=self.unicode)

    def wrapped(self, text: str, indent: str = "") -> list[str]:
        """The text over as many lines as it needs."""
        line = speak(text, unicode=self.unicode)
        return textwrap.wrap(
            line, self.width, initial_indent=indent, subsequent_indent=f"{indent}  ", break_on_hyphens=False
        )


def measure(rating: Rating, dimension: Dimension) -> str:
    """On how much a dimension's stars rest: "80 % passed of 95 % measured"."""
    return (
        f"{100 * rating.shares[dimension]:.0f} % passed of {100 * rating.measured[dimension]:.0f} % measured"
    )


def outcome_word(check: CheckResult) -> str:
    """The outcome as it is shown, "PASS" or "NOT MEASURED"; a share that was earned stands beside a fail."""
    word = check.outcome.value.replace("_", " ").upper()
    return f"{word} ({100 * check.share:.0f} %)" if 0 < check.share < 1 else word


def profiles_word(check: CheckResult) -> str:
    """The profile that a check counts in, "" for both."""
    return check.profiles[0] if len(check.profiles) == 1 else ""


def remarks(card: Scorecard, profile: Profile) -> Iterator[str]:
    """Why a profile has no stars, or no more of them."""
    rating = card.rating(profile)
    if rating.unrated:
        yield f"unrated: {escaped(rating.unrated, 400)}"
    for cap in rating.caps:
        yield f"held down: {escaped(cap, 400)}"


def _remarks(card: Scorecard) -> Iterator[str]:
    for profile in card.ratings:
        yield from (f"{profile} {said}" for said in remarks(card, profile))


def _check(check: CheckResult) -> str:
    about = ["gate"] if check.gate else []
    about += [f"weight {check.weight:g}"] if check.weight else []
    about += [f"{word} only"] if (word := profiles_word(check)) else []
    told = f" [{escaped(check.timing)}]" if check.timing else ""
    head = f"{outcome_word(check)} {check.id} {check.title}{_in_brackets(about)}"
    return f"{head}: {escaped(check.evidence)}{told}"


def _in_brackets(words: Sequence[str]) -> str:
    return f" ({', '.join(words)})" if words else ""


def _digit(stars: int | None) -> str:
    return "-" if stars is None else str(stars)


def _digits(rating: Rating) -> str:
    return ", ".join(f"{short} {_digit(rating.stars[name])}" for name, short in SHORT.items())


def _words(rating: Rating) -> str:
    return ", ".join(f"{name} {_digit(rating.stars[name])}" for name in DIMENSIONS)


def _row(first: str, cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = [cell.ljust(width) for cell, width in zip(cells, widths, strict=True)]
    return _GAP.join([first, *padded]).rstrip()
