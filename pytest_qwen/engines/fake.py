"""A programmable engine in simulated time: any TTFT, ITL, noise and fault, thousands of rounds in a blink."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Literal, NoReturn

from pytest_qwen.engines import HOSTED
from pytest_qwen.engines.base import Likelihood, Loaded, LoadSpec, Pair, Request, Trace
from pytest_qwen.engines.faults import translate
from pytest_qwen.errors import EngineFault, Misuse, ModelUnusable, closest, explain
from pytest_qwen.noise import factors

_FAULTS = ("die", "segv", "hang", "cuda", "oom", "raise", "short", "missing", "corrupt")
_PIECE = re.compile(r"\S+\s*|\s+")


class OutOfMemoryError(RuntimeError):
    """Stands in for torch.OutOfMemoryError, which is known by its name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Programme:
    """What the fake engine will do; each field is one pair of `LoadSpec.options`.

    `jitter` is ("iid", 0.03) and the like: a noise model of `noise.factors` and its numbers; one factor a
    round scales every time of that round. `warmup` holds factors for the first rounds, slower than the rest.
    `fault` is "what@when": what is one of die, segv, hang, cuda, oom, raise, short, missing, corrupt; when is
    "load" or the number of the run that it strikes, the first being 1. `load_log` is a file that gets one
    line a load. `prefill_ms_per_token` is added to the TTFT for each prompt token. `favours` is the text
    that it holds certain to follow anything; every other one is the less likely the longer it is.
    """

    ttft_ms: float = 100.0
    itl_ms: float = 20.0
    prefill_ms_per_token: float = 0.0
    jitter: tuple[Any, ...] = ()
    warmup: tuple[float, ...] = ()
    seed: int = 0
    fault: str = ""
    load_s: float = 1.0
    memory_gb: float = 1.0
    text: str = "def add(a, b):\n    return a + b\n"
    load_log: str = ""
    favours: str = ""

    @property
    def strikes(self) -> tuple[str, str]:
        """What goes wrong and when; ("", "") for never."""
        what, _, when = self.fault.partition("@")
        return what, when or ("load" if what else "")

    def options(self) -> tuple[tuple[str, Any], ...]:
        """As `LoadSpec.options`: only what differs from the defaults, sorted."""
        default = Programme()
        changed = (f.name for f in fields(self) if getattr(self, f.name) != getattr(default, f.name))
        return tuple((name, getattr(self, name)) for name in sorted(changed))


def programme_of(options: Mapping[str, Any]) -> Programme:
    """Read the programme; raises Misuse for an unknown option or fault."""
    known = [f.name for f in fields(Programme)]
    for name in options:
        if name not in known:
            near = closest(name, known)
            slip = f"did you mean {near!r}?" if near else None
            raise Misuse(explain("the fake engine has no such option", asked=name, slip=slip, choices=known))
    programme = replace(Programme(), **options)
    what, when = programme.strikes
    if what and (what not in _FAULTS or not (when == "load" or when.isdecimal())):
        raise Misuse(
            explain(
                "the fake engine has no such fault",
                asked=repr(programme.fault),
                slip='want "what@load" or "what@3" (the third run)',
                choices=_FAULTS,
            )
        )
    return programme


class FakeEngine:
    """An Engine that sleeps never: its traces carry programmed times and clock "simulated".

    Deterministic by `Programme.seed`. It misbehaves in the same way in-process and in a child of its own,
    except that "die" and "hang" become the EngineFault of that kind in-process.
    """

    def __init__(self) -> None:
        """Nothing is loaded yet."""
        self._programme: Programme | None = None
        self._noise: Iterator[float] = iter(())
        self._runs = 0

    def load(self, spec: LoadSpec) -> Loaded:
        """Read the programme from the spec's options and pretend to load.

        Raises Misuse for a bad programme, and whatever the programme says.
        """
        programme = programme_of(dict(spec.options))
        if programme.load_log:
            with Path(programme.load_log).open("a", encoding="utf-8") as log:
                log.write(f"{spec.key} {os.getpid()}\n")
        self._strike(programme, "load", spec.model)
        self._programme = programme
        self._noise = _noise(programme)
        size = round(programme.memory_gb * 1e9)
        return Loaded(
            load_s=programme.load_s,
            weights_bytes=size,
            device_memory_bytes=size,
            device_name="fake",
            applied=("simulated time",),
            tokenizer="fake",
            pid=os.getpid(),
        )

    def run(self, request: Request, on_token: Callable[[str], None] | None = None) -> Trace:
        """Answer with the programmed text in the programmed time.

        Raises Misuse for an ill-formed request, EngineFault before load and after close, and whatever the
        programme says.
        """
        programme = self._ready()
        prompt_tokens = self._prompt_tokens(request)
        self._runs += 1
        self._strike(programme, str(self._runs), "")
        pieces, finish_reason = self._answer(programme, request)
        if on_token is not None:
            for piece in pieces:
                on_token(piece)
        text = "".join(pieces)
        return Trace(
            prompt_tokens=prompt_tokens,
            output_tokens=len(pieces),
            batch_size=request.batch_size,
            token_ns=self._token_ns(programme, prompt_tokens, len(pieces)),
            texts=(text,) * request.batch_size,
            finish_reason=finish_reason,
            tokens_digest=hashlib.sha256(text.encode()).hexdigest()[:16],
            clock="simulated",
            peak_memory_bytes=round(programme.memory_gb * 1e9),
        )

    def count_tokens(self, text: str) -> int:
        """Words of `text`, each with the white space after it."""
        return len(_PIECE.findall(text))

    def encode(self, text: str) -> tuple[int, ...]:
        """One id a word, equal for equal words in any process; white space does not count."""
        return tuple(zlib.crc32(word.encode()) for word in text.split())

    def score(self, pairs: Sequence[Pair]) -> tuple[Likelihood, ...]:
        """Certainty for what the programme favours; anything else is worth a negative log a word."""
        favoured = self.encode(self._ready().favours)
        return tuple(
            Likelihood(log_probability=0.0, greedy=True)
            if pair.continuation == favoured
            else Likelihood(log_probability=-1.0 * len(pair.continuation), greedy=False)
            for pair in pairs
        )

    def rest(self) -> None:
        """Nothing goes on between runs."""

    def close(self) -> None:
        """Forget the programme; safe to call twice."""
        self._programme = None

    def _ready(self) -> Programme:
        if self._programme is None:
            raise EngineFault("nothing is loaded: load() was not called, or close() was")
        return self._programme

    def _prompt_tokens(self, request: Request) -> int:
        given = [request.prompt is not None, request.messages is not None, request.prompt_tokens is not None]
        if sum(given) != 1:
            raise Misuse(
                explain(
                    "a request wants exactly one of prompt, messages and prompt_tokens",
                    found=f"{sum(given)} of them",
                )
            )
        if request.prompt_tokens is not None:
            return request.prompt_tokens
        messages = request.messages or ()
        return self.count_tokens(request.prompt or " ".join(message.content for message in messages))

    def _answer(
        self, programme: Programme, request: Request
    ) -> tuple[tuple[str, ...], Literal["stop", "length"]]:
        """The pieces of the answer, one a token, and why it ended."""
        pieces = tuple(_PIECE.findall(programme.text)) or ("",)
        wanted = request.output_tokens
        if programme.strikes == ("short", str(self._runs)):
            return tuple(islice(cycle(pieces), max(1, wanted // 2))), "stop"
        if request.ignore_eos:
            return tuple(islice(cycle(pieces), wanted)), "length"
        return pieces[:wanted], "stop" if len(pieces) <= wanted else "length"

    def _token_ns(self, programme: Programme, prompt_tokens: int, steps: int) -> tuple[int, ...]:
        """TTFT, then one ITL a step, all scaled by this round's factor."""
        factor = next(self._noise)
        if self._runs <= len(programme.warmup):
            factor *= programme.warmup[self._runs - 1]
        first = programme.ttft_ms + programme.prefill_ms_per_token * prompt_tokens
        return tuple(round((first + step * programme.itl_ms) * factor * 1e6) for step in range(steps))

    def _strike(self, programme: Programme, now: str, model: str) -> None:
        """Do the programmed harm if it is due."""
        what, when = programme.strikes
        if when != now or what in ("", "short"):
            return
        try:
            _harm(what, model)
        except Exception as error:
            if HOSTED in os.environ:
                raise
            raise translate(error) from error


def _harm(what: str, model: str) -> NoReturn:
    """Misbehave the way a real engine would."""
    if what in ("die", "segv", "hang"):
        _end_process(what)
    if what == "cuda":
        raise RuntimeError("CUDA error: device-side assert triggered")
    if what == "oom":
        raise OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB (programmed)")
    if what == "missing":
        raise ModelUnusable(explain("the model was not found", asked=model))
    if what == "corrupt":
        raise ModelUnusable(explain("the model's weights are corrupt", asked=model))
    raise RuntimeError("programmed failure")


def _end_process(what: str) -> NoReturn:
    """Die or hang; in-process it is only said."""
    if HOSTED not in os.environ:  # the process is the user's
        kind = "hang" if what == "hang" else "died"
        raise EngineFault(f"programmed: {what}", kind)
    if what == "hang":
        threading.Event().wait()
    os.kill(os.getpid(), signal.SIGSEGV if what == "segv" else signal.SIGKILL)
    threading.Event().wait()  # the signal is on its way
    raise AssertionError("unreachable")


def _noise(programme: Programme) -> Iterator[float]:
    """One factor a round, for ever."""
    if not programme.jitter:
        return cycle((1.0,))
    name, *numbers = programme.jitter
    return factors(name, *numbers, seed=programme.seed)
