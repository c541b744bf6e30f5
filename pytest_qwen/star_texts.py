"""Stars in words: why an answer has no more of them, and what would lift it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from pytest_qwen.escaping import escaped, printable
from pytest_qwen.lifts import Part, cheapest_lift
from pytest_qwen.rubric import FAILURES, Rubric, counted, is_unreached
from pytest_qwen.scorecards import CheckOutcome, CheckResult, Profile, Rating, Scorecard

_SHOWN_CHECKS = 12
_WIDTH = 100


def explain_stars(
    card: Scorecard, rubric: Rubric, wanted: int, profile: Profile = "run", part: Part = "overall"
) -> str:
    """The text of a missed bound on the stars of a part.

    Stars against what was asked, what held them down, the failed checks, heaviest first, with their
    evidence, what could not be measured, and the cheapest way to the next star and to those asked for.
    """
    rating = card.rating(profile)
    found = rating.overall if part == "overall" else rating.stars[part]
    checks = [one for one in counted(card.checks, profile) if part in ("overall", one.dimension) or one.gate]
    lines = [
        f"min_stars: {profile} {part} ≥ {_stars(wanted)}: {_stars(found)}",
        f"answer: {escaped(card.answer)}, rubric {card.rubric}, profile {profile}",
    ]
    lines += [f"{name}: {_dimensions(other)}" for name, other in card.ratings.items()]
    if found is None:
        lines.append(f"unrated: {rating.unrated or f'less than 80 % of {part} could be measured'}")
    lines += [f"held down: {cap}" for cap in rating.caps]
    lines += _failed(checks)
    lines += _blind(checks)
    lines += _ways(card, rubric, wanted, profile=profile, part=part, found=found)
    lines += [f"note: {note}" for note in card.notes]
    text = "\n".join([lines[0], *(_wrapped(line) for line in lines[1:])])
    return printable(text.encode("utf-8", "backslashreplace"))  # a line's start may be new


def heaviest_first(checks: Sequence[CheckResult]) -> list[CheckResult]:
    """Gates before what weighs, heavy before light, the table's order among equals."""
    return sorted(checks, key=lambda one: (one.outcome != CheckOutcome.TAMPER, not one.gate, -one.weight))


def _stars(stars: int | None) -> str:
    return "unrated" if stars is None else "1 star" if stars == 1 else f"{stars} stars"


def _dimensions(rating: Rating) -> str:
    parts = [f"{name} {'unrated' if n is None else n}" for name, n in rating.stars.items()]
    return f"{_stars(rating.overall)} overall; {', '.join(parts)}"


def _failed(checks: Sequence[CheckResult]) -> Iterator[str]:
    failed = [one for one in checks if one.outcome in FAILURES]
    own = heaviest_first([one for one in failed if not is_unreached(one)])
    alike: dict[str, list[str]] = {}
    for one in own:
        alike.setdefault(one.evidence, []).append(one.id)
    own = [one for one in own if alike[one.evidence][0] == one.id]
    if own:
        yield "failed, heaviest first:"
    for one in own[:_SHOWN_CHECKS]:
        about = ["gate"] if one.gate else []
        about += ["tampering"] if one.outcome == CheckOutcome.TAMPER else []
        about += [f"weight {one.weight:g}"] if one.weight else []
        yield f"  {one.id} ({', '.join(about) or 'no weight'}) {one.title}: {one.evidence}"
        if alike[one.evidence][1:]:
            yield f"    and for the same reason {', '.join(alike[one.evidence][1:])}"
    if own[_SHOWN_CHECKS:]:
        yield f"  and {', '.join(one.id for one in own[_SHOWN_CHECKS:])}"
    behind: dict[str, list[str]] = {}
    for one in failed:
        if is_unreached(one):
            behind.setdefault(one.evidence, []).append(one.id)
    for why, ids in behind.items():
        yield f"{why}, and with it {', '.join(ids)}"


def _blind(checks: Sequence[CheckResult]) -> Iterator[str]:
    """Checks without a result by the reason, which many of them share."""
    why: dict[tuple[CheckOutcome, str], list[str]] = {}
    for one in checks:
        if one.outcome in (CheckOutcome.UNMEASURED, CheckOutcome.INFRA_ERROR):
            why.setdefault((one.outcome, one.evidence), []).append(one.id)
    words = {CheckOutcome.UNMEASURED: "unmeasured", CheckOutcome.INFRA_ERROR: "not measured by our own fault"}
    for (outcome, evidence), ids in why.items():
        yield f"{words[outcome]}: {', '.join(ids)}: {evidence}"


def _ways(
    card: Scorecard, rubric: Rubric, wanted: int, *, profile: Profile, part: Part, found: int | None
) -> Iterator[str]:
    if found is None:
        return
    ways: dict[tuple[str, ...], int] = {}
    for target in (min(found + 1, wanted), wanted):
        ways[cheapest_lift(card, rubric, target, profile=profile, part=part)] = target
    for lift, target in ways.items():
        if lift:
            yield f"cheapest: {', '.join(f'+{check}' for check in lift)} → {_stars(target)}"
        elif target > found:
            yield f"no failed checks would give {_stars(target)} by passing"


def _wrapped(line: str) -> str:
    inner = line.lstrip(" ")
    indent = " " * (2 + len(line) - len(inner))
    return textwrap.fill(
        inner,
        _WIDTH,
        initial_indent=indent,
        subsequent_indent=f"{indent}  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
