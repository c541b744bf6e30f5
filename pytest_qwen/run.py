"""One test's work with a leased model: its generations, its measurements, its verdicts. Knows no pytest."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING

from pytest_qwen import judge as judging
from pytest_qwen import searching
from pytest_qwen.ask import RunRequest
from pytest_qwen.bounds import Bound
from pytest_qwen.comparing import EVEN, Comparison, with_slowdown
from pytest_qwen.deciding import all_decided
from pytest_qwen.engines.base import Engine, Loaded, LoadSpec, Request, Trace, sleeping
from pytest_qwen.errors import EngineFault, Misuse, explain
from pytest_qwen.evidence import Measurement, Round
from pytest_qwen.levels import Highest, Kind
from pytest_qwen.load_search import Range
from pytest_qwen.loading import check_load, workload_request
from pytest_qwen.measure import Limits, Observer, interleave, measure, observe
from pytest_qwen.memory import Fit
from pytest_qwen.metrics import slice_needed
from pytest_qwen.outcomes import Outcome
from pytest_qwen.sentinel import launch_bound
from pytest_qwen.streams import Load
from pytest_qwen.verdicts import Verdict

if TYPE_CHECKING:
    from pytest_qwen.generators import Recording


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What `llm.generate` gives: the text and how it came about.

    Times in milliseconds. `tokens_per_sec` is the decode rate of this one request, None for one token.
    `allocated_gb` is what the engine's tensors took at most during it, None where no allocator counts.
    """

    text: str
    texts: tuple[str, ...]
    prompt_tokens: int
    output_tokens: int
    finish_reason: str
    ttft_ms: float
    e2e_ms: float
    tokens_per_sec: float | None
    request: Request
    allocated_gb: float | None = None

    @classmethod
    def of(cls, request: Request, seen: Round, trace: Trace) -> Answer:
        """The answer of one observed run."""
        return cls(
            text=trace.texts[0],
            texts=trace.texts,
            prompt_tokens=trace.prompt_tokens,
            output_tokens=trace.output_tokens,
            finish_reason=trace.finish_reason,
            # a server may end an answer before it has sent a word of it
            ttft_ms=seen.metrics.get("ttft_ms", 1000 * seen.seconds),
            e2e_ms=1000 * seen.seconds,
            tokens_per_sec=seen.metrics.get("decode_tokens_per_sec"),
            request=request,
            allocated_gb=None if trace.peak_allocated_bytes is None else trace.peak_allocated_bytes / 1e9,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What holds for a whole run: error rate, limits of measuring, what physics allows each metric.

    `ceilings_of` gives the physical limit of each bounded metric, where it is known, for the work of a round,
    `fit_of` the memory plan of a request, `overload_of` why no card could keep up with a load.
    """

    alpha: float
    limits: Limits
    ceilings_of: Callable[[Round], Mapping[str, float]] = lambda _seen: {}
    overload_of: Callable[[Request], str | None] = lambda _asked: None
    fit_of: Callable[[Request], Fit | None] = lambda _asked: None


class Run:
    """The state of one test on one loaded model.

    Errors: Misuse when a bound was set and nothing was measured, or a prompt does not fit; EngineFault,
    DoesNotFit and the other engine errors come through as they are.
    """

    def __init__(
        self,
        *,
        request: RunRequest,
        spec: LoadSpec,
        engine: Engine,
        loaded: Loaded,
        observer: Observer,
        conditions: Conditions,
        observed: Mapping[str, float],
    ) -> None:
        self.request = request
        self.spec = spec
        self.engine = engine
        self.loaded = loaded
        self.answers: list[Answer] = []
        self.measurements: list[Measurement] = []
        self.searches: list[Highest] = []
        self.verdicts: list[Verdict] = []
        self.baseline: Measurement | None = None  # a stored run that rounds are compared with
        self._observer = observer
        self._conditions = conditions
        self._observed = dict(observed)
        self._single: list[Round] = []

    @property
    def alpha(self) -> float:
        """The error rate of either side of a verdict."""
        return self._conditions.alpha

    @property
    def limits(self) -> Limits:
        """When measuring stops without a verdict."""
        return self._conditions.limits

    def overload(self, request: Request) -> str | None:
        """Why no card of this run could keep up with a load; None where nothing says so."""
        return self._conditions.overload_of(request)

    def memory_plan(self, request: Request) -> Fit | None:
        """What a request needs by the plan; None on a CPU or where it is not known."""
        return self._conditions.fit_of(request)

    @property
    def ceilings(self) -> Mapping[str, float]:
        """The physical limit of each bounded metric, where it is known, for what was measured last."""
        return self._ceilings_of(self.measurements[-1].rounds) if self.measurements else {}

    def _ceilings_of(self, rounds: Sequence[Round]) -> Mapping[str, float]:
        return self._conditions.ceilings_of(rounds[-1]) if rounds else {}

    @property
    def own_bounds(self) -> tuple[Bound, ...]:
        """The bounds that this model can meet without another one loaded beside it."""
        return tuple(
            b
            for b in self.request.bounds
            if b.marker != "max_slowdown" or (b.vs == "baseline" and self.baseline is not None)
        )

    def generate(self, request: Request, on_token: Callable[[str], None] | None = None) -> Answer:
        """One request, timed; it is repeated later if the test sets bounds."""
        run = partial(self.engine.run, on_token=on_token)
        seen, trace = observe(run, request, self._observer, index=len(self._single))
        self._single.append(seen)
        answer = Answer.of(request, seen, trace)
        self.answers.append(answer)
        return answer

    def sleep(self, level: int) -> float:
        """Put the engine to sleep; seconds. Raises Unavailable for one that has no sleep mode."""
        return sleeping(self.engine).sleep(level)

    def wake(self) -> float:
        """Wake the engine; seconds until it can answer."""
        return sleeping(self.engine).wake()

    def stream(self, request: Request) -> Iterator[str]:
        """Pieces of text as they are ready; the answer is kept when the last one is out."""
        pieces: SimpleQueue[str | None] = SimpleQueue()
        failed: list[BaseException] = []

        def work() -> None:
            try:
                self.generate(request, pieces.put)
            except BaseException as error:  # handed to the consumer below
                failed.append(error)
            pieces.put(None)

        worker = Thread(target=work, name="qwen-stream")
        worker.start()
        try:
            while (piece := pieces.get()) is not None:
                yield piece
        finally:
            worker.join()
        if failed:
            raise failed[0]

    def measure(self, request: Request | None = None) -> Measurement:
        """Repeat a workload until every bound of the test is sure or the budget ends."""
        request = request or workload_request(self.request.workload)
        loaded = request.load is not None
        decided = partial(self._decided, under_load=loaded)
        return self.repeat(request, decided, self._limits(under_load=loaded))

    def repeat(
        self,
        request: Request,
        decided: Callable[[Sequence[Round]], bool],
        limits: Limits,
        bounds: Sequence[Bound] | None = None,
    ) -> Measurement:
        """Repeat a request until `decided`, for these bounds (the test's own), and keep the measurement.

        Raises Misuse for a load on an engine that answers one batch at a time.
        """
        request = self._sliced(request, self.own_bounds if bounds is None else bounds)
        with self._keeping_partial():
            found = measure(
                self.engine.run,
                request,
                decided=decided,
                observer=self._observer,
                limits=limits,
                rest=self.engine.rest,
            )
        return self._keep(found)

    def highest(
        self, request: Request, kind: Kind, asked: Range, *, budget_s: float | None = None
    ) -> Highest:
        """The highest level of a load that meets every bound of the test; see `searching.highest`."""
        found = searching.highest(self, request, kind, asked, budget_s or self.limits.budget_s)
        self.searches.append(found)
        return found

    def take(self, recording: Recording) -> Measurement:
        """Keep a load that another tool made of this model as if it were measured here.

        Raises Misuse when it is too short for a single slice.
        """
        from pytest_qwen.recorded_loads import measurement_of

        request = workload_request(self.request.workload)
        request = self._sliced(replace(request, load=request.load or Load()), self.own_bounds)
        found = measurement_of(recording, request, self._observer)
        if not found.rounds:
            raise Misuse(
                explain(
                    "the recorded load is too short for a single slice",
                    asked="; ".join(str(bound) for bound in self.own_bounds) or "no bound",
                    found=f"{len(recording.streams)} requests, ramp and drain with them",
                    next_step="record a longer load",
                )
            )
        return self._keep(found)

    def _sliced(self, request: Request, bounds: Sequence[Bound]) -> Request:
        """A load's slices with as many requests as the bounds' percentiles need. Raises Misuse.

        Misuse is a load on an engine that answers one batch at a time.
        """
        if request.load is None:
            return request
        check_load(self.spec.engine, request.load)
        least = max(request.load.slice_requests, slice_needed(bounds))
        # users of a closed loop keep in step with each other: a slice holds whole turns of all of them
        users = request.load.concurrency or 1
        slices = math.ceil(least / users) * users
        return replace(request, load=replace(request.load, slice_requests=slices))

    def settle(self) -> Sequence[Verdict]:
        """Judge every bound, after repeating what the test generated if it did not measure by itself.

        Raises Misuse when a bound was set and the body neither generated nor measured.
        """
        if not self.own_bounds:
            return self.verdicts
        if not self.measurements:
            self.measure_last()
        for bound in self.own_bounds:
            self.verdicts.append(self.judge(bound, self.measurements[-1]))
        return self.verdicts

    def compare(self, other: Engine, bounds: Sequence[Bound] = ()) -> Comparison:
        """Interleave this model (B) with another (A), A B B A; judge the given slowdown bounds.

        Without bounds the rounds go on until the interval excludes 1 or the budget ends.
        """
        alpha = self._conditions.alpha
        wanted = tuple(bounds) or (EVEN,)
        request = self._sliced(workload_request(self.request.workload), wanted)
        with self._keeping_partial():
            a, b = interleave(
                other.run,
                self.engine.run,
                request,
                decided=lambda rounds: all_decided(wanted, rounds, alpha=alpha),
                observer=self._observer,
                limits=self._conditions.limits,
                rests=(other.rest, self.engine.rest),
            )
        self._keep(b)
        self.verdicts += [self.judge(bound, b) for bound in bounds]
        return Comparison.of(a, b, alpha=alpha)

    def measure_last(self) -> Measurement:
        """Repeat what the test generated last, its output length fixed. Raises Misuse when it did nothing."""
        if not self.answers:
            raise Misuse(nothing_measured(self.request.bounds))
        return self.measure(_repeatable(self.answers[-1]))

    def fixed_rounds(self, count: int) -> Measurement:
        """Exactly `count` rounds after warm-up, for calibration."""
        request = _repeatable(self.answers[-1]) if self.answers else workload_request(self.request.workload)
        limits = replace(self._conditions.limits, most_rounds=count, least_rounds=count)
        return self.repeat(request, lambda _rounds: False, limits)

    @property
    def _sequential(self) -> bool:
        """Whether a bound of the test needs rounds to be sure of."""
        return any(bound.judged == "sequential" for bound in self.own_bounds)

    def _limits(self, *, under_load: bool) -> Limits:
        """Session facts need one round; a test without bounds gets a few rounds for its report."""
        limits = self._conditions.limits
        if self._sequential or under_load or not self.own_bounds:
            return limits
        return replace(limits, least_rounds=1, warmup_most=1)

    def _decided(self, rounds: Sequence[Round], *, under_load: bool) -> bool:
        if not self.own_bounds or (under_load and not self._sequential):
            enough = sum(seen.clean for seen in rounds) >= _ROUNDS_WITHOUT_BOUNDS
            if not enough or not self.own_bounds:
                return enough
        return all_decided(
            self.own_bounds, with_slowdown(rounds, self.baseline), alpha=self._conditions.alpha
        )

    @contextmanager
    def _keeping_partial(self) -> Iterator[None]:
        """Keep what was measured before an engine fault, which is raised on."""
        try:
            yield
        except EngineFault as fault:
            if isinstance(fault.partial, Measurement):
                self._keep(fault.partial)
            raise

    def _keep(self, found: Measurement) -> Measurement:
        """Add the session's facts and what every window saw of memory."""
        peaks = [
            used
            for r in (*self._single, *found.rounds)
            if (used := _memory_above(r, self._observed)) is not None
        ]
        observed = {k: v for k, v in self._observed.items() if k != _BASELINE}
        if peaks:
            observed["vram_gb"] = max(peaks) / 1e9
        allocated = [r.peak_allocated_bytes for r in found.rounds if r.peak_allocated_bytes is not None]
        if allocated:
            observed["allocated_gb"] = max(allocated) / 1e9
        rounds = with_slowdown(found.rounds, self.baseline)
        hints = (*found.hints, *self._launch_bound(rounds))
        kept = replace(found, rounds=rounds, observed={**observed, **found.observed}, hints=hints)
        self.measurements.append(kept)
        return kept

    def _launch_bound(self, rounds: Sequence[Round]) -> Sequence[str]:
        """The hint that decoding measured the host, judged on the middle one of the watched rounds."""
        watched = [
            seen
            for seen in rounds
            if seen.window is not None and not seen.streams and "decode_tokens_per_sec" in seen.metrics
        ]
        if not watched:
            return ()
        middle = sorted(watched, key=lambda r: r.metrics["decode_tokens_per_sec"])[len(watched) // 2]
        rate = middle.metrics["decode_tokens_per_sec"]
        ceiling = self._ceilings_of(rounds).get("decode_tokens_per_sec")
        hint = launch_bound(middle.window, rate, ceiling) if middle.window else None
        return (hint,) if hint else ()

    def judge(self, bound: Bound, measurement: Measurement) -> Verdict:
        """The verdict of one bound on one measurement of this run."""
        return judging.judge(
            bound,
            measurement,
            alpha=self._conditions.alpha,
            ceilings=self._ceilings_of(measurement.rounds),
        )


_ROUNDS_WITHOUT_BOUNDS = 10
_BASELINE = "memory_before_load_bytes"


def _memory_above(seen: Round, observed: Mapping[str, float]) -> float | None:
    """Device memory that this model took: what the card shows above what it showed before the load.

    Counts context, allocator cache and graphs, which the engine's own figure leaves out.
    """
    used = seen.window.memory_used_bytes if seen.window else None
    before = observed.get(_BASELINE)
    if used is None or before is None:
        return seen.peak_memory_bytes
    return max(used - before, seen.peak_memory_bytes or 0)


def _repeatable(answer: Answer) -> Request:
    """The same request with its length fixed to what came out, so that every round does equal work."""
    tokens = answer.output_tokens or answer.request.output_tokens  # a server may not say how many there were
    return replace(answer.request, output_tokens=tokens, ignore_eos=True)


def nothing_measured(bounds: Sequence[Bound]) -> str:
    """The message of a bound that no measurement stands behind."""
    steps = any(bound.marker == "max_step_time" for bound in bounds)
    calls = ["llm.generate(prompt)", "llm.chat(messages)", "llm.measure()"]
    return explain(
        "a bound was set, but nothing was measured",
        asked="; ".join(str(bound) for bound in bounds),
        found="the test neither generated nor measured anything",
        slip="the test body lacks a call",
        choices=["finetune(method, tokens=N)"] if steps else calls,
    )


def failure_text(verdicts: Sequence[Verdict], *, no_verdict_fails: bool) -> str | None:
    """Why a test fails on its verdicts, one line a bound that was not met; None when it does not.

    Compared by value: within pytester two copies of a module can be in use, and only a PASS may pass.
    """
    tolerated = {Outcome.PASS} if no_verdict_fails else {Outcome.PASS, Outcome.NO_VERDICT}
    bad = [v.explanation for v in verdicts if v.outcome not in tolerated]
    return "\n".join(bad) or None
