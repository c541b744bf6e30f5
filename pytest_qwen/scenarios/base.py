"""What a kind of generated program is to us: what is asked of a model, how it is tried, how it is scored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pytest_qwen.exchanges import Exchange
from pytest_qwen.observations import Server
from pytest_qwen.programs import Program
from pytest_qwen.rubric import Rubric
from pytest_qwen.sandbox.base import Sandbox, SandboxFault

MissingImports = Literal["unrated", "fail", "stub"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What an observer is given: the program, what its text says, where to run it, what was prepared.

    `source` are the facts of the analysis. `material` is what the scenario's `prepare` made for this session.
    `brief` asks for what correctness needs alone, as the self-check does; `deep` for the optional fuzzing.
    """

    sandbox: Sandbox
    program: Program
    source: Mapping[str, Any]
    material: Any
    seed: int
    missing_imports: MissingImports = "unrated"
    brief: bool = False
    deep: bool = False


@dataclass(slots=True, kw_only=True)
class Seen:
    """What an observer saw, gathered as it goes; what is there when the sandbox breaks is kept."""

    servers: dict[str, Server] = field(default_factory=dict)
    exchanges: dict[str, Exchange] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    infra_errors: list[str] = field(default_factory=list)
    timings_s: dict[str, float] = field(default_factory=dict)

    def forget(self) -> None:
        """Before another start of the same program: what its failed start showed counts no more."""
        self.servers.clear()
        self.exchanges.clear()
        self.facts.clear()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One kind of generated program.

    `prompt` is what a model is asked. `image` names the guest image. `entry` is a pattern that the main file
    of an answer matches. `model_ids` are the models that the prompt names. `prepare(sandbox, seed)` makes
    what a session needs once; it must cross JSON (`pack`, `unpack`) so that parallel workers share it.
    `observe(trial, seen)` runs the program and fills `seen`. `good` and `bad` are the answers that the
    self-check rates first: the good one must pass every check of correctness, the bad one may have at most
    `bad_most_stars` for it.
    """

    name: str
    prompt: str
    image: Literal["guest", "guest-slim"]
    entry: str
    rubric: Rubric
    observe: Callable[[Trial, Seen], None]
    good: Path
    bad: Path
    bad_most_stars: int = 2
    model_ids: tuple[str, ...] = ()
    prepare: Callable[[Sandbox, int], Any] = lambda _sandbox, _seed: None
    pack: Callable[[Any], Any] = lambda material: material
    unpack: Callable[[Any], Any] = lambda data: data


def result_of(future: Future[None], seen: Seen) -> None:
    """Take a part's result; a breakdown of the sandbox is noted and the other parts go on."""
    try:
        future.result()
    except SandboxFault as fault:
        seen.infra_errors.append(str(fault))
