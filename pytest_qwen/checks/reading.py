"""What every check of a running server reads: exchanges by name, what is missing, and one line about them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from pytest_qwen.checks.findings import failed, infra, passed, unmeasured
from pytest_qwen.escaping import escaped
from pytest_qwen.exchanges import Exchange
from pytest_qwen.observations import Evidence, Server
from pytest_qwen.programs import NoProgram
from pytest_qwen.scorecards import Finding

Reader = Callable[[Evidence, Sequence[Exchange]], Finding]


def named(evidence: Evidence, *starts: str) -> list[Exchange]:
    """The exchanges whose names begin with one of these, in the order of their names."""
    return [seen for name, seen in sorted(evidence.exchanges.items()) if name.startswith(starts)]


def why_silent(evidence: Evidence) -> Finding | None:
    """The finding of every check that needs a running server, where there was none; None where it ran."""
    main = server(evidence, "main")
    if main is not None and main.ready:
        return None
    if evidence.infra_errors:
        return infra(evidence.infra_errors[0])
    if "limited" in evidence.facts:
        return unmeasured(str(evidence.facts["limited"]))
    if isinstance(evidence.program, NoProgram):
        return failed(escaped(f"no program ({evidence.program.reason}): {evidence.program.detail}"))
    return failed("it was not started" if main is None else "the server never answered")


def why_missing(evidence: Evidence, what: str) -> Finding:
    """The finding where calls were never made: nothing ran, we cannot ask, or there is nothing to ask."""
    silent = why_silent(evidence)
    if silent:
        return silent
    if evidence.infra_errors:
        return infra(evidence.infra_errors[0])
    if "cannot_ask" in evidence.facts:
        return unmeasured(str(evidence.facts["cannot_ask"]))
    if "hung" in evidence.facts:
        return failed(f"{what}: not asked any more, {evidence.facts['hung']}")
    return failed(
        f"{what} could not be asked: no operation that takes an image was found, or it answers none"
    )


def on(*starts: str, what: str) -> Callable[[Reader], Callable[[Evidence], Finding]]:
    """Make a check of a reader of the exchanges with these names; where there are none it says why."""

    def check_of(reader: Reader) -> Callable[[Evidence], Finding]:
        def check(evidence: Evidence) -> Finding:
            seen = named(evidence, *starts)
            return reader(evidence, seen) if seen else why_missing(evidence, what)

        check.__name__, check.__doc__ = reader.__name__, reader.__doc__
        return check

    return check_of


def all_meet(seen: Iterable[Exchange], meets: Callable[[Exchange], bool], good: str) -> Finding:
    """A pass saying `good` when every exchange meets it, else a fail that names those that do not."""
    wrong = [one for one in seen if not meets(one)]
    return failed("; ".join(brief(one) for one in wrong)) if wrong else passed(good)


def brief(seen: Exchange) -> str:
    """An exchange in a few words: its name, how it ended, the start of what it said."""
    said = lasting(" ".join(seen.body.split())[:80])
    ended = seen.failure or str(seen.status)
    return f"{seen.name} → {ended}{f' {said}' if said and not seen.ok else ''}"


def server(evidence: Evidence, purpose: str) -> Server | None:
    """The start of the program for a purpose; None where it was never started."""
    return evidence.servers.get(purpose)


def last_words(server: Server) -> str:
    """The last line of a server's log that says something."""
    lines = [line.strip() for line in (server.log_tail or server.log_head).splitlines() if line.strip()]
    return lasting(lines[-1]) if lines else "no output"


def lasting(text: str) -> str:
    """The text with what differs from run to run made alike: addresses, identifiers, times, fractions."""
    return _PASSING.sub("#", escaped(text))


# 0x7f3a…, 8 and more hexadecimal digits with one figure at least, dates and clock times, decimal fractions
_PASSING = re.compile(
    r"0x[0-9a-f]+|\b(?=[0-9a-f-]*\d)[0-9a-f]{8,}(?:-[0-9a-f]+)*\b|\d{4}-\d\d-\d\d|\d\d:\d\d:\d\d(?:[.,]\d+)?|\d+\.\d+(?:e-?\d+)?",
    re.IGNORECASE,
)


def median(values: Sequence[float]) -> float:
    """The middle of an odd number of values."""
    return sorted(values)[len(values) // 2]
