"""A programmable engine in simulated time: any TTFT, ITL, noise and fault, thousands of rounds in a blink."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from typing import Literal, NoReturn

from pytest_qwen.engines import HOSTED
from pytest_qwen.engines.base import Likelihood, Loaded, LoadSpec, Pair, Request, Trace
from pytest_qwen.engines.fake_load import FakeLoad, batch, served_trace
from pytest_qwen.engines.faults import translate
from pytest_qwen.engines.programme import Programme, programme_of
from pytest_qwen.errors import EngineFault, Misuse, ModelUnusable, explain
from pytest_qwen.noise import factors
from pytest_qwen.streams import LoadSummary

_PIECE = re.compile(r"\S+\s*|\s+")


class OutOfMemoryError(RuntimeError):
    """Stands in for torch.OutOfMemoryError, which is known by its name."""


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
        self._load: tuple[Request, FakeLoad] | None = None

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
        if request.load is not None:
            return self._slice(programme, request, prompt_tokens)
        pieces, finish_reason = self._answer(programme, request)
        if on_token is not None:
            for piece in pieces:
                on_token(piece)
        text = "".join(pieces)
        if programme.served:
            streams = batch(programme, request, (prompt_tokens, len(pieces)), self._factor)
            served = served_trace(streams, prompt_tokens)
            texts = (text,) * request.batch_size
            return replace(served, batch_size=request.batch_size, texts=texts, finish_reason=finish_reason)
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

    def rest(self) -> LoadSummary | None:
        """End the load that goes on between runs, if there is one."""
        ended, self._load = self._load, None
        return ended[1].rest() if ended else None

    def _slice(self, programme: Programme, request: Request, prompt_tokens: int) -> Trace:
        """The next slice of a load, which goes on while the request is equal apart from its seed."""
        alike = replace(request, seed=0)
        if self._load is None or self._load[0] != alike:
            self._load = (alike, FakeLoad(programme, request, prompt_tokens))
        return self._load[1].slice(self._factor())

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
        factor = self._factor()
        first = programme.ttft_ms + programme.prefill_ms_per_token * prompt_tokens
        return tuple(round((first + step * programme.itl_ms) * factor * 1e6) for step in range(steps))

    def _factor(self) -> float:
        """How slow this run is."""
        warmup = self._ready().warmup
        return next(self._noise) * (warmup[self._runs - 1] if self._runs <= len(warmup) else 1.0)

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
