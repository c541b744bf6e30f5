"""Everything that was observed of one answer: enough to score it again without a container."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pytest_qwen.exchanges import Exchange
from pytest_qwen.programs import NoProgram, Program


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One start of the program in the sandbox, as the engine saw it from outside.

    `ready` means an HTTP status line was received. `steady` means that it was still the same process two
    seconds later, `alive_after` that it was after all calls. `exit_code` is None while it runs. `ended` says
    how it ended by itself: "exited", "killed" (by a limit) or None. `missing_import` is the module without
    which it could not start. `environment` is "tf5" or "tf4". Logs are escaped text, the start and the end.
    """

    ready: bool
    steady: bool = False
    alive_after: bool = False
    ready_s: float | None = None
    exit_code: int | None = None
    ended: str | None = None
    missing_import: str | None = None
    mode: str = "module"
    environment: str = "tf5"
    log_head: str = ""
    log_tail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What scoring reads, and all that it reads.

    `source` are the facts that the analysis found in the text (see `sandbox/inside/analyse.py`). `servers`
    are the starts by purpose ("main", "slow", "empty"). `exchanges` are by call name. `facts` belong to the
    scenario (oracle answers, memory, operations). `infra_errors` are what our own harness broke; what rests
    on them is not the model's fault.
    """

    scenario: str
    answer: str
    answer_sha256: str
    program: Program | NoProgram
    source: Mapping[str, Any] = field(default_factory=dict)
    servers: Mapping[str, Server] = field(default_factory=dict)
    exchanges: Mapping[str, Exchange] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    infra_errors: tuple[str, ...] = ()
    seed: int | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    timings_s: Mapping[str, float] = field(default_factory=dict)
