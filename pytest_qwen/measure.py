"""Repeat one workload until the evidence is sure: warm-up, rounds, budget. The only loop that takes time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

from pytest_qwen.engines.base import Request, Trace
from pytest_qwen.errors import EngineFault, QwenError
from pytest_qwen.evidence import Measurement, Round, Window
from pytest_qwen.metrics import RoundContext, of_round, of_served
from pytest_qwen.outcomes import NoVerdict
from pytest_qwen.pairs import with_agreement, with_ratio
from pytest_qwen.slices import facts_of_load, steady_beside_full, violations_of
from pytest_qwen.statistics import stable
from pytest_qwen.streams import LoadSummary

Kind = Literal["first_call", "warmup", "round"]
Run = Callable[[Request], Trace]
Rest = Callable[[], LoadSummary | None]


class Watched(Protocol):
    """The handle of a watched window; `window` is there once the window has closed."""

    window: Window | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """When measuring stops without a verdict.

    `budget_s` counts warm-up and rounds together, by the injected clock. Warm-up ends when `warmup_agree`
    successive rounds lie within `warmup_tolerance` of each other, or after `warmup_most` rounds.
    """

    budget_s: float = 120.0
    most_rounds: int = 600
    least_rounds: int = 3
    warmup_agree: int = 3
    warmup_tolerance: float = 0.1
    warmup_most: int = 12
    most_violated: int = 25


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What a live line can say while a measurement runs."""

    phase: Kind
    rounds: Sequence[Round]
    elapsed_s: float
    budget_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Observer:
    """The world around a round: who watches the window, who keeps the time, who wants to be told."""

    watch: Callable[[], AbstractContextManager[Watched]]
    clock_s: Callable[[], float]
    context: Callable[[Request, Trace], RoundContext]
    on_progress: Callable[[Progress], None] = lambda _progress: None


def observe(
    run: Run, request: Request, observer: Observer, *, index: int = 0, kind: Kind = "round"
) -> tuple[Round, Trace]:
    """One timed run of `request` in one watched window.

    Raises whatever `run` raises; nothing is caught here.
    """
    with observer.watch() as watched:
        trace = run(request)
    return to_round(request, trace, watched.window, observer.context(request, trace), index, kind), trace


def to_round(
    request: Request, trace: Trace, window: Window | None, context: RoundContext, index: int, kind: Kind
) -> Round:
    """The evidence of one run: times, metrics, and every reason not to count it."""
    token_ms = tuple(ns / 1e6 for ns in trace.token_ns)
    energy_j = window.energy_j if window else None
    if trace.streams or trace.client:
        found = violations_of(request, trace)
        metrics = of_served(
            trace.streams,
            client=trace.client,
            context=context,
            energy_j=energy_j,
            peak_memory_bytes=trace.peak_memory_bytes,
        )
    else:
        short = request.ignore_eos and trace.output_tokens < request.output_tokens
        found = (NoVerdict.SHORT_OUTPUT,) if short else ()
        metrics = of_round(
            token_ms,
            prompt_tokens=trace.prompt_tokens,
            batch_size=trace.batch_size,
            context=context,
            energy_j=energy_j,
            peak_memory_bytes=trace.peak_memory_bytes,
        )
    return Round(
        index=index,
        kind=kind,
        prompt_tokens=trace.prompt_tokens,
        output_tokens=trace.output_tokens,
        asked_tokens=request.output_tokens,
        batch_size=trace.batch_size,
        token_ms=token_ms,
        clock=trace.clock,
        metrics=metrics,
        tokens_digest=trace.tokens_digest,
        peak_memory_bytes=trace.peak_memory_bytes,
        peak_allocated_bytes=trace.peak_allocated_bytes,
        window=window,
        violations=(*(window.violations if window else ()), *found),
        streams=trace.streams,
        client=trace.client,
    )


@dataclass(slots=True)
class _Session:
    """The state of one measurement in progress."""

    run: Run
    request: Request
    observer: Observer
    limits: Limits
    started_s: float
    rounds: list[Round]
    rest: Rest
    simulated_s: float = 0.0
    rested: list[LoadSummary] = field(default_factory=list)

    @property
    def elapsed_s(self) -> float:
        """Time spent; an engine in simulated time spends what it simulates."""
        return self.observer.clock_s() - self.started_s + self.simulated_s

    def one(self, kind: Kind, draw: int | None = None) -> Round:
        """Run once more; a workload of random prompts gets a fresh one each time, the one numbered `draw`."""
        index = len(self.rounds)
        request = self.request
        if request.prompt_tokens is not None:
            request = replace(request, seed=request.seed + (index if draw is None else draw))
        self.observer.on_progress(
            Progress(phase=kind, rounds=self.rounds, elapsed_s=self.elapsed_s, budget_s=self.limits.budget_s)
        )
        seen, _ = observe(self.run, request, self.observer, index=index, kind=kind)
        self.rounds.append(seen)
        if seen.clock == "simulated":
            self.simulated_s += seen.seconds
        return seen

    def pause(self) -> None:
        """End the load, if there is one, and keep what it says of itself."""
        if self.request.load is not None and (summary := self.rest()) is not None:
            self.rested.append(summary)

    def out_of_budget(self) -> bool:
        """Whether another round as long as the last one would end after the budget."""
        last_s = self.rounds[-1].seconds if self.rounds else 0.0
        return self.elapsed_s + min(last_s, self.limits.budget_s / 2) > self.limits.budget_s


def measure(
    run: Run,
    request: Request,
    *,
    decided: Callable[[Sequence[Round]], bool],
    observer: Observer,
    limits: Limits,
    rest: Rest = lambda: None,
) -> Measurement:
    """Warm up until rounds agree, then repeat until `decided` or the budget ends.

    `rest` ends a load, whatever happens. An engine fault ends the measurement and is re-raised with what was
    seen so far in its `partial` attribute (a Measurement), so that no evidence is lost.
    """
    session = _Session(run, request, observer, limits, observer.clock_s(), [], rest)
    settled = True
    try:
        with _resting(session):
            settled = _warm_up(session)
            stopped = _rounds(session, decided)
    except EngineFault as fault:
        fault.partial = _close(session, stopped=fault.message.splitlines()[0], settled=settled)
        raise
    return _close(session, stopped=stopped, settled=settled)


@contextmanager
def _resting(*sessions: _Session) -> Iterator[None]:
    """No load outlives the body; after a failure of it what the engine says to that is of no interest."""
    try:
        yield
    except QwenError:
        for session in sessions:
            with suppress(QwenError):
                session.pause()
        raise
    for session in sessions:
        session.pause()


def _warm_up(session: _Session) -> bool:
    """Run until successive rounds agree; False when they never did."""
    limits = session.limits
    seen: list[float] = []
    while len(seen) < limits.warmup_most and not (seen and session.elapsed_s > limits.budget_s / 3):
        seen.append(_pace(session.one("warmup")))
        if stable(seen, rounds=limits.warmup_agree, tolerance=limits.warmup_tolerance):
            return True
    return limits.warmup_most < limits.warmup_agree  # so few that agreement was not asked for


def _pace(seen: Round) -> float:
    """What has to agree between rounds before they count; 0, which agrees with nothing, if none answered."""
    return seen.metrics.get("e2e_latency_ms", 0.0)


def _rounds(session: _Session, decided: Callable[[Sequence[Round]], bool]) -> str:
    """Repeat until sure; says why it stopped."""
    counted = violated = 0
    while counted < session.limits.most_rounds:
        if counted and session.out_of_budget():
            return "budget"
        seen = session.one("round")
        counted += 1
        violated = 0 if seen.clean else violated + 1
        if violated >= session.limits.most_violated:
            return "budget"
        if counted >= session.limits.least_rounds and decided(session.rounds):
            return "decided"
    return "budget"


def _close(session: _Session, *, stopped: str, settled: bool) -> Measurement:
    hints = () if settled else ("warm-up did not settle: successive rounds still differed",)
    observed = facts_of_load(session.rested)
    return Measurement(
        rounds=tuple(session.rounds),
        observed=observed,
        stopped=stopped,
        seconds=session.elapsed_s,
        hints=(*hints, *steady_beside_full(session.rounds, observed)),
    )


def interleave(
    run_a: Run,
    run_b: Run,
    request: Request,
    *,
    decided: Callable[[Sequence[Round]], bool],
    observer: Observer,
    limits: Limits,
    rests: tuple[Rest, Rest] = (lambda: None, lambda: None),
) -> tuple[Measurement, Measurement]:
    """Measure two sides in the order A B B A in one session; B's rounds carry `slowdown_ratio` (TPOT B / A).

    Pairing neighbours cancels whatever drifts slowly: clocks, temperature, the host. Both sides of a pair get
    the same prompts; `agreement` in what was observed of B is the share of answers that were the same, where
    decoding is greedy. Of two loads only one goes on at a time. An engine fault is re-raised with B's rounds
    so far in its `partial` attribute.
    """
    a = _Session(run_a, request, observer, limits, observer.clock_s(), [], rests[0])
    b = _Session(run_b, request, observer, limits, observer.clock_s(), [], rests[1])
    try:
        with _resting(a, b):
            settled = _warm_up(a)
            a.pause()
            settled = _warm_up(b) and settled
            b.pause()
            stopped = _pairs(a, b, decided)
    except EngineFault as fault:
        fault.partial = _close(b, stopped=fault.message.splitlines()[0], settled=True)
        raise
    first, second = (_close(side, stopped=stopped, settled=settled) for side in (a, b))
    return first, second if request.temperature else with_agreement(second, first)


def _pairs(a: _Session, b: _Session, decided: Callable[[Sequence[Round]], bool]) -> str:
    """Repeat pairs until sure; says why it stopped."""
    pairs = 0
    while pairs < b.limits.most_rounds and not (pairs and (a.out_of_budget() or b.out_of_budget())):
        first, second = (a, b) if pairs % 2 == 0 else (b, a)
        draw = max(len(a.rounds), len(b.rounds))
        for side in (first, second):
            side.one("round", draw)
            side.pause()
        pairs += 1
        b.rounds[-1] = with_ratio(b.rounds[-1], a.rounds[-1])
        if pairs >= b.limits.least_rounds and decided(b.rounds):
            return "decided"
    return "budget"
