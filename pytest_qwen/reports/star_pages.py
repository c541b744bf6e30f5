"""Scorecards as markdown: a page for every rated answer, and a table of all of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from pytest_qwen.escaping import escaped as one_line
from pytest_qwen.escaping import visible
from pytest_qwen.observations import Evidence, Server
from pytest_qwen.programs import NoProgram, Program, SourceFile
from pytest_qwen.reports.markdown import escaped, fenced, table
from pytest_qwen.reports.stars import measure, outcome_word, profiles_word, remarks, star_text
from pytest_qwen.scorecards import DIMENSIONS, PROFILES, Dimension, Scorecard

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_LANGUAGE = re.compile(r"[^A-Za-z0-9+#-]+")


def stars_section(cards: Sequence[Scorecard]) -> str:
    """A table with a row for each answer; "" for none."""
    if not cards:
        return ""
    names = ("answer", "run", "read", *DIMENSIONS, "held down or unrated")
    return table(names, [_overview(card) for card in cards])


def star_pages(rated: Iterable[tuple[Evidence, Scorecard]]) -> Iterator[tuple[str, str]]:
    """File name and text of a page for each rated answer: `answer-1__9a15fccb1fae__stars.md`.

    The same answer rated again gets _2, _3 and so on.
    """
    taken: set[str] = set()
    for evidence, card in rated:
        label = _UNSAFE.sub("-", card.answer)[:100].strip(".-") or "answer"
        stem = base = f"{label}__{_UNSAFE.sub('', card.answer_sha256)[:12]}__stars"
        count = 1
        while stem.lower() in taken:  # some file systems do not tell upper case from lower
            count += 1
            stem = f"{base}_{count}"
        taken.add(stem.lower())
        yield f"{stem}.md", star_page(evidence, card)


def star_page(evidence: Evidence, card: Scorecard) -> str:
    """One answer: stars, every check with its evidence, what was sent and seen, the logs, the code."""
    parts = [f"# {escaped(one_line(card.answer))}", table(("", ""), _facts(card)), "## Stars", _stars(card)]
    said = [f"- {profile}: {escaped(text)}" for profile in PROFILES for text in remarks(card, profile)]
    said += [f"- note: {escaped(one_line(note))}" for note in card.notes]
    parts += ["\n".join(said)] if said else []
    parts += ["## Checks", *_checks(card), *_exchanges(evidence), *_logs(evidence), *_code(evidence)]
    return "\n\n".join(parts) + "\n"


def _overview(card: Scorecard) -> tuple[str, ...]:
    run, read = card.rating("run"), card.rating("read")
    why = "; ".join(dict.fromkeys(remarks(card, "run")))
    dimensions = [star_text(run.stars[name]) for name in DIMENSIONS]
    return one_line(card.answer), star_text(run.overall), star_text(read.overall), *dimensions, why


def _facts(card: Scorecard) -> list[tuple[str, str]]:
    facts = [
        *((f"stars ({profile})", star_text(card.rating(profile).overall)) for profile in PROFILES),
        ("scenario", card.scenario),
        ("rubric", card.rubric),
        ("SHA-256", card.answer_sha256),
        ("seed", "" if card.seed is None else str(card.seed)),
        ("environment", ", ".join(f"{name} {version}" for name, version in card.environment.items())),
        ("seconds", ", ".join(f"{name} {seconds:.1f}" for name, seconds in card.timings_s.items())),
    ]
    return [(name, one_line(value, 1000)) for name, value in facts if value]


def _stars(card: Scorecard) -> str:
    names = [f"{profile} {what}".strip() for profile in PROFILES for what in ("", "rests on")]
    return table(("dimension", *names), [(name, *_of(card, name)) for name in DIMENSIONS])


def _of(card: Scorecard, dimension: Dimension) -> Iterator[str]:
    for profile in PROFILES:
        rating = card.rating(profile)
        yield star_text(rating.stars[dimension])
        yield measure(rating, dimension)


def _checks(card: Scorecard) -> Iterator[str]:
    names = ("", "check", "outcome", "weight", "counts in", "evidence", "time")
    for dimension in DIMENSIONS:
        rows = [
            (
                check.id,
                check.title,
                outcome_word(check),
                "gate" if check.gate and not check.weight else f"{check.weight:g}",
                profiles_word(check) or " and ".join(check.profiles),
                one_line(check.evidence),
                one_line(check.timing or ""),
            )
            for check in card.checks
            if check.dimension == dimension
        ]
        if rows:
            yield f"### {dimension}"
            yield table(names, rows)


def _exchanges(evidence: Evidence) -> Iterator[str]:
    rows = [
        (
            one_line(name),
            one_line(f"{seen.method} {seen.path}"),
            one_line(str(seen.failure or seen.status)),
            str(seen.body_bytes),
            f"{seen.elapsed_ms:.0f}",
            one_line(seen.body),
        )
        for name, seen in evidence.exchanges.items()
    ]
    if rows:
        yield "## Exchanges"
        yield table(("call", "request", "answer", "bytes", "ms", "body"), rows)


def _logs(evidence: Evidence) -> Iterator[str]:
    for number, (purpose, server) in enumerate(evidence.servers.items()):
        if not number:
            yield "## Logs"
        yield f"### {escaped(one_line(purpose))}"
        yield escaped(one_line(_server(server))) + "."
        log = server.log_head
        if server.log_tail and server.log_tail != server.log_head:
            log = f"{server.log_head}\n…\n{server.log_tail}" if server.log_head else server.log_tail
        if log:
            yield fenced(visible(log.expandtabs(4)))


def _server(server: Server) -> str:
    words = ["answered" if server.ready else "never answered"]
    words += [f"after {server.ready_s:.1f} s"] if server.ready_s is not None else []
    words += [server.ended] if server.ended else []
    words += [f"code {server.exit_code}"] if server.exit_code is not None else []
    words += [f"it lacked {server.missing_import}"] if server.missing_import else []
    return ", ".join([*words, f"started as {server.mode}", server.environment])


def _code(evidence: Evidence) -> Iterator[str]:
    yield "## Code"
    if isinstance(evidence.program, NoProgram):
        yield escaped(one_line(f"No program ({evidence.program.reason}): {evidence.program.detail}"))
        return
    for kind, files in _files(evidence.program):
        for file in files:
            yield f"### {escaped(one_line(file.path))}{f' ({kind})' if kind else ''}"
            yield fenced(visible(file.text.expandtabs(4)), _LANGUAGE.sub("", file.language)[:20] or "text")


def _files(program: Program) -> Iterator[tuple[str, Sequence[SourceFile]]]:
    yield "", program.files
    yield "read, never run", program.attachments
    yield "client", program.clients
