"""Why a server did not start: its exit status and the last of its log, turned into one error. Pure."""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass

from pytest_qwen.engines.faults import exit_in_words
from pytest_qwen.errors import (
    DoesNotFit,
    EngineFault,
    Misuse,
    ModelUnusable,
    NotInstalled,
    QwenError,
    Unavailable,
    explain,
)

# Found in the logs of the servers themselves; matched in lower case.
_PORT = (
    "address already in use",
    "couldn't bind http server socket",
    "errno 98",
    "port is already in use",
)
_MEMORY = (
    "cuda out of memory",
    "cuda error: out of memory",
    "outofmemoryerror",
    "hip out of memory",
    "no available memory for the cache blocks",
    "is less than desired gpu memory utilization",
    "is larger than the available kv cache memory",
    "larger than the maximum number of tokens that can be stored in kv cache",
    "not enough memory",
    "failed to allocate buffer",
    "unable to allocate",
    "memoryerror",
)
_KILLED = (-signal.SIGKILL, 128 + signal.SIGKILL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """A reason for which servers do not start: how logs tell it, whose fault it is, and what we say.

    `said` and `next_step` may name "{server}", "{model}" and "{install}".
    """

    marks: tuple[str, ...]
    error: type[QwenError]
    said: str
    slip: str | None = None
    next_step: str | None = None


# In the order in which they are looked for: what says most about the cause comes first.
_CAUSES = (
    Cause(marks=_PORT, error=EngineFault, said="{server} could not listen: its port was taken"),
    Cause(
        marks=(
            "unrecognized arguments",
            "error: invalid argument",
            "no such option",
            "invalid choice",
            "expected one argument",
            "got unexpected extra argument",
            "unknown flag",
        ),
        error=Misuse,
        said="{server} does not know an argument that it was given",
        slip="args of the test, or a version of the server with other flags",
    ),
    Cause(
        marks=_MEMORY,
        error=DoesNotFit,
        said="{model!r} does not fit: {server} ran out of memory while it started",
        next_step="a smaller max_model_len, fewer bits, more GPUs (tensor_parallel), args that say "
        "how much memory the server may take",
    ),
    Cause(
        marks=(
            "is not a local folder and is not a valid model identifier",
            "repository not found",
            "repositorynotfounderror",
            "revisionnotfounderror",
            "localentrynotfounderror",
            "offline mode is enabled",
            "we couldn't connect to 'https://huggingface.co'",
            "can't load the configuration of",
            "does not appear to have a file named",
            "unrecognized model in",
            "error loading model",
            "failed to load model",
            "failed to open gguf file",
            "invalid magic",
            "are not supported for now",  # vLLM: an architecture that it does not know
            "safetensorerror",
        ),
        error=ModelUnusable,
        said="{server} cannot load {model!r}",
    ),
    Cause(
        marks=("no module named", "missing dependencies for serving", "importerror", "cannot import name"),
        error=NotInstalled,
        said="{server} lacks a package that it needs",
        next_step="{install}",
    ),
    Cause(
        marks=(
            "no cuda gpus are available",
            "failed to infer device type",
            "found no nvidia driver",
            "torch not compiled with cuda enabled",
        ),
        error=Unavailable,
        said="{server} finds no device to run on",
    ),
)
_UNKNOWN = Cause(marks=(), error=EngineFault, said="{server} ended before it was ready")
_OUT_OF_HOST_MEMORY = Cause(
    marks=(),
    error=DoesNotFit,
    said="{model!r} does not fit: {server} was killed while it started",
    slip="the kernel killed it: the host has too little memory",
)
_TAIL_LINES = 20
# lines that say what happened, among all that a log holds
_TELLING = re.compile(
    r"error|fail|exception|not found|unrecogni[sz]ed|no module|out of memory|in use", re.IGNORECASE
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """A server that ended before it was ready: what was started, how it ended (negative: the signal)."""

    server: str
    model: str
    command: str
    install: str
    status: int
    log: str


def port_taken(ending: Ending) -> bool:
    """Whether another process listens where the server was to."""
    return any(mark in ending.log.lower() for mark in _PORT)


def failure(ending: Ending) -> QwenError:
    """The error that the ending stands for, with the last lines that the server printed."""
    log = ending.log.lower()
    found = next((cause for cause in _CAUSES if any(mark in log for mark in cause.marks)), None)
    if found is None:
        found = _OUT_OF_HOST_MEMORY if ending.status in _KILLED else _UNKNOWN
    names = {"server": ending.server, "model": ending.model, "install": ending.install}
    return _error(
        found.error,
        _told(
            ending,
            found.said.format(**names),
            slip=found.slip,
            next_step=found.next_step and found.next_step.format(**names),
        ),
    )


def death(ending: Ending, doing: str) -> QwenError:
    """The error of a server that ended after it was ready."""
    if any(mark in ending.log.lower() for mark in _MEMORY):
        return DoesNotFit(_told(ending, f"{ending.server} ran out of memory and ended while {doing}"))
    return _error(EngineFault, _told(ending, f"{ending.server} ended while {doing}"))


def _error(kind: type[QwenError], message: str) -> QwenError:
    return EngineFault(message, "died") if kind is EngineFault else kind(message)


def _told(ending: Ending, problem: str, *, slip: str | None = None, next_step: str | None = None) -> str:
    return explain(
        problem,
        asked=ending.command,
        found=f"{exit_in_words(ending.status)}; {log_in_words(ending.log)}",
        slip=slip,
        next_step=next_step,
    )


def log_in_words(log: str) -> str:
    """The line that says most and the last lines, or that there were none."""
    lines = [line for line in log.splitlines() if line.strip()]
    if not lines:
        return "it printed nothing"
    telling = [line.strip() for line in lines if _TELLING.search(line)]
    said = f"{telling[-1][:300]}\n    its last output was\n" if telling else "its last output was\n"
    return said + "\n".join(f"    | {line[:300]}" for line in lines[-_TAIL_LINES:])
