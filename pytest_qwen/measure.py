"""Repeat one workload until the evidence is sure: warm-up, rounds, budget. The only loop that takes time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from pytest_qwen.engines.base import Request, Trace
from pytest_qwen.errors import EngineFault
from pytest_qwen.evidence import Measurement, Round, Window
from pytest_qwen.metrics import RoundContext, of_round
from pytest_qwen.outcomes import NoVerdict
from pytest_qwen.statistics import stable

Kind = Literal["first_call", "warmup", "round"]
Run = Callable[[Request], Trace]


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
    violations = list(window.violations) if window else []
    if request.ignore_eos and trace.output_tokens < request.output_tokens:
        violations.append(NoVerdict.SHORT_OUTPUT)
    metrics = of_round(
        token_ms,
        prompt_tokens=trace.prompt_tokens,
        batch_size=trace.batch_size,
        context=context,
        energy_j=window.energy_j if window else None,
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
        violations=tuple(violations),
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
    simulated_s: float = 0.0

    @property
    def elapsed_s(self) -> float:
        """Time spent; an engine in simulated time spends what it simulates."""
        return self.observer.clock_s() - self.started_s + self.simulated_s

    def one(self, kind: Kind) -> Round:
        """Run once more; a workload of random prompts gets a fresh one each time."""
        index = len(self.rounds)
        request = self.request
        if request.prompt_tokens is not None:
            request = replace(request, seed=request.seed + index)
        self.observer.on_progress(
            Progress(phase=kind, rounds=self.rounds, elapsed_s=self.elapsed_s, budget_s=self.limits.budget_s)
        )
        seen, _ = observe(self.run, request, self.observer, index=index, kind=kind)
        self.rounds.append(seen)
        if seen.clock == "simulated":
            self.simulated_s += seen.token_ms[-1] / 1000
        return seen

    def out_of_budget(self) -> bool:
        """Whether another round as long as the last one would end after the budget."""
        last_s = self.rounds[-1].metrics["e2e_latency_ms"] / 1000 if self.rounds else 0.0
        return self.elapsed_s + min(last_s, self.limits.budget_s / 2) > self.limits.budget_s


def measure(
    run: Run,
    request: Request,
    *,
    decided: Callable[[Sequence[Round]], bool],
    observer: Observer,
    limits: Limits,
) -> Measurement:
    """Warm up until rounds agree, then repeat until `decided` or the budget ends.

    An engine fault ends the measurement and is re-raised with what was seen so far in its `partial`
    attribute (a Measurement), so that no evidence is lost.
    """
    session = _Session(run, request, observer, limits, observer.clock_s(), [])
    try:
        settled = _warm_up(session)
        stopped = _rounds(session, decided)
    except EngineFault as fault:
        fault.partial = _close(session, stopped=fault.message.splitlines()[0], settled=True)
        raise
    return _close(session, stopped=stopped, settled=settled)


def _warm_up(session: _Session) -> bool:
    """Run until successive rounds agree; False when they never did."""
    limits = session.limits
    seen: list[float] = []
    while len(seen) < limits.warmup_most and not (seen and session.elapsed_s > limits.budget_s / 3):
        seen.append(session.one("warmup").metrics["e2e_latency_ms"])
        if stable(seen, rounds=limits.warmup_agree, tolerance=limits.warmup_tolerance):
            return True
    return limits.warmup_most < limits.warmup_agree  # so few that agreement was not asked for


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
    return Measurement(rounds=tuple(session.rounds), stopped=stopped, seconds=session.elapsed_s, hints=hints)


def interleave(
    run_a: Run,
    run_b: Run,
    request: Request,
    *,
    decided: Callable[[Sequence[Round]], bool],
    observer: Observer,
    limits: Limits,
) -> tuple[Measurement, Measurement]:
    """Measure two sides in the order A B B A in one session; B's rounds carry `slowdown_ratio` (TPOT B / A).

    Pairing neighbours cancels whatever drifts slowly: clocks, temperature, the host. An engine fault is
    re-raised with B's rounds so far in its `partial` attribute.
    """
    a = _Session(run_a, request, observer, limits, observer.clock_s(), [])
    b = _Session(run_b, request, observer, limits, observer.clock_s(), [])
    try:
        settled = _warm_up(a) and _warm_up(b)
        stopped = _pairs(a, b, decided)
    except EngineFault as fault:
        fault.partial = _close(b, stopped=fault.message.splitlines()[0], settled=True)
        raise
    return _close(a, stopped=stopped, settled=settled), _close(b, stopped=stopped, settled=settled)


def _pairs(a: _Session, b: _Session, decided: Callable[[Sequence[Round]], bool]) -> str:
    """Repeat pairs until sure; says why it stopped."""
    pairs = 0
    while pairs < b.limits.most_rounds and not (pairs and (a.out_of_budget() or b.out_of_budget())):
        first, second = (a, b) if pairs % 2 == 0 else (b, a)
        first.one("round")
        second.one("round")
        pairs += 1
        b.rounds[-1] = _with_ratio(b.rounds[-1], a.rounds[-1])
        if pairs >= b.limits.least_rounds and decided(b.rounds):
            return "decided"
    return "budget"


def _with_ratio(b: Round, a: Round) -> Round:
    """B's round with its slowdown against A's; a violation on either side spoils the pair."""
    metric = "tpot_ms" if "tpot_ms" in a.metrics else "e2e_latency_ms"
    ratio = b.metrics[metric] / a.metrics[metric]
    violations = tuple(dict.fromkeys((*b.violations, *a.violations)))
    return replace(b, metrics={**b.metrics, "slowdown_ratio": ratio}, violations=violations)
