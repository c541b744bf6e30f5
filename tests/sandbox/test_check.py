"""The check of a sandbox keeps a line for everything it tried, and never ends well when something got out."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pytest_qwen.errors import QwenError
from pytest_qwen.sandbox import check
from pytest_qwen.sandbox.attacks import Attack, Canary, NotChecked
from pytest_qwen.sandbox.base import SandboxFault
from pytest_qwen.sandbox.container import ContainerSandbox

ENGINE = os.environ.get("DOCKER_HOST", "auto")


@pytest.fixture(scope="module")
def here(engine: Any, slim: str) -> Iterator[check._Here]:
    sandbox = ContainerSandbox(engine, slim, session=f"check-{secrets.token_hex(4)}")
    with Canary(engine) as canary:
        yield check._Here(sandbox=sandbox, canary=canary, engine=ENGINE, image=slim)
    sandbox.close()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "promise"), check._PROMISES, ids=[name for name, _ in check._PROMISES])
def test_promise(name: str, promise: Callable[[check._Here], str | None], here: check._Here) -> None:
    assert promise(here) is None


def fails(*_: object) -> str | None:
    return "it got \x1b[2J out"


def cannot_be_seen(*_: object) -> str | None:
    raise NotChecked("the engine runs elsewhere")


def breaks(*_: object) -> str | None:
    raise SandboxFault("the engine is gone")


def holds(*_: object) -> str | None:
    return None


@pytest.fixture
def said(slim: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """The lines of a check with these attacks in place of the shipped ones."""

    def report(*attacks: Callable[..., str | None], promise: Callable[..., str | None] = holds) -> list[str]:
        monkeypatch.setattr(check, "_PROMISES", (("a promise", promise),))
        tried = tuple(Attack(number, "name", "wall", run) for number, run in enumerate(attacks, 1))
        monkeypatch.setattr(check, "ATTACKS", tried)
        lines: list[str] = []
        try:
            lines.append(check.report(ENGINE, say=lines.append))
        except check.SandboxBroken as error:
            lines.append(f"raised {error}")
        return lines

    return report


def test_everything_held(said: Callable[..., list[str]]) -> None:
    first, *_, promise, attack, summary = said(holds)
    assert "image pytest-qwen/guest" in first
    assert promise.startswith("held")
    assert promise.endswith("a promise")
    assert attack == "held       1 name (wall)"
    assert summary == "2 of 2 checks held"


def test_what_cannot_be_seen_is_said_and_is_no_failure(said: Callable[..., list[str]]) -> None:
    *_, line, summary = said(cannot_be_seen)
    assert line == "not seen   1 name (wall): the engine runs elsewhere"
    assert summary == "1 of 2 checks held, 1 could not be seen from here"


@pytest.mark.parametrize(
    ("attack", "promise", "word"),
    [(fails, holds, "ESCAPED"), (breaks, holds, "FAULT"), (holds, fails, "BROKEN")],
)
def test_what_got_out_ends_it_badly(
    attack: Callable[..., Any], promise: Callable[..., Any], word: str, said: Callable[..., list[str]]
) -> None:
    lines = said(attack, holds, promise=promise)
    assert [line for line in lines if line.startswith(word)]
    assert "\x1b" not in "".join(lines)
    assert "raised 1 of 3 checks failed: do not run generated programs here" in lines[-1]
    assert f"({word})" in lines[-1]


def test_a_broken_sandbox_is_an_error_that_the_command_line_tells() -> None:
    assert issubclass(check.SandboxBroken, QwenError)
