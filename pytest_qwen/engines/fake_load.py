"""A load on the fake engine in simulated time: a queue, a slow-down by concurrency, errors."""

from __future__ import annotations

import hashlib
import heapq
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import cycle

from pytest_qwen.engines.arrivals import pause_s
from pytest_qwen.engines.base import Request, Trace
from pytest_qwen.engines.programme import Programme
from pytest_qwen.engines.served_traces import trace_of
from pytest_qwen.engines.texts import varied
from pytest_qwen.noise import factors
from pytest_qwen.streams import Client, Load, LoadSummary, Stream, count_states

_SHORTEST_SLICE_MS = 500.0
_STALL_EVERY = 50  # requests


@dataclass(slots=True)
class Server:
    """Answers requests one after the other in order of their start, each in simulated time."""

    programme: Programme
    rng: random.Random
    noise: Iterator[float]
    served: int = 0

    @classmethod
    def of(cls, programme: Programme, seed: int) -> Server:
        """A server at its start."""
        rng = random.Random(f"{programme.seed} {seed}")  # noqa: S311 - simulation, not secrets
        name, *numbers = programme.request_jitter or ("",)
        noise = factors(name, *numbers, seed=rng.getrandbits(32)) if name else cycle((1.0,))
        return cls(programme, rng, noise)

    def answer(
        self, due_ms: float, wait_ms: float, busy: int, size: tuple[int, int], factor: float
    ) -> Stream:
        """The stream of one request; `busy` requests are served with it, `size` is its tokens in and out."""
        programme = self.programme
        prompt_tokens, tokens = size
        self.served += 1
        if programme.error_share and self.rng.random() < programme.error_share:
            return self._failed(due_ms, size, wait_ms)
        factor *= next(self.noise)
        slow = max(1.0, busy / programme.capacity) if programme.capacity else 1.0
        first = wait_ms + (programme.ttft_ms + programme.prefill_ms_per_token * prompt_tokens) * factor
        chunk = max(1, programme.tokens_a_chunk)
        gap = programme.itl_ms * slow * factor
        # a chunk comes when its last token is ready
        ends = [min(at + chunk, tokens) - min(chunk, tokens) for at in range(0, tokens, chunk)]
        stalled = 0.0 if self.served % _STALL_EVERY else programme.stall_ms
        times = tuple(first + gap * after + (stalled if place else 0.0) for place, after in enumerate(ends))
        return Stream(
            scheduled_ms=due_ms,
            sent_ms=due_ms,
            state="no-usage" if programme.no_usage else "ok",
            ttft_ms=times[0],
            last_ms=times[-1],
            e2e_ms=times[-1],
            chunk_ms=times,
            prompt_tokens=prompt_tokens,
            output_tokens=None if programme.no_usage else tokens,
            cached_tokens=round(programme.cached_share * prompt_tokens) if programme.cached_share else None,
            asked_tokens=tokens,
            finish_reason="length",
            digest=hashlib.sha256(f"{programme.text} {tokens}".encode()).hexdigest()[:16],
        )

    def _failed(self, due_ms: float, size: tuple[int, int], wait_ms: float) -> Stream:
        return Stream(
            scheduled_ms=due_ms,
            sent_ms=due_ms,
            state="http-error",
            e2e_ms=wait_ms + self.programme.ttft_ms,
            asked_tokens=size[1],
            detail="status 500 (programmed)",
        )


class FakeLoad:
    """One load from its first request on; `slice` gives its next slice. Deterministic by its seeds."""

    def __init__(self, programme: Programme, request: Request, prompt_tokens: int) -> None:
        """Nothing has been sent yet."""
        assert request.load is not None  # noqa: S101 - for the type checker: the caller has one
        self._programme = programme
        self._load: Load = request.load
        self._prompt_tokens = prompt_tokens
        self._output_tokens = request.output_tokens
        self._server = Server.of(programme, request.seed)
        self._due: list[float] = [0.0] * (self._load.concurrency or 1)  # a heap: when whoever asks next
        self._busy: list[float] = []  # a heap: when the requests in service end
        self._ended: list[tuple[float, int, Stream]] = []  # a heap: by their end
        self._all: list[Stream] = []
        self._count = 0
        self._ramp_ms: float | None = None
        self._began_ms = 0.0

    def slice(self, factor: float) -> Trace:
        """The next slice; `factor` scales every time of the requests that start in it."""
        began = self._ramp(factor) if self._ramp_ms is None else self._began_ms
        streams: list[Stream] = []
        end = began
        while len(streams) < self._load.slice_requests or end < began + _SHORTEST_SLICE_MS:
            end, stream = self._next_end(factor)
            streams.append(stream)
        self._began_ms = end
        return self._trace(tuple(streams), (end - began) / 1000)

    def rest(self) -> LoadSummary:
        """End it: what was in flight is not counted."""
        done = [stream for stream in self._all if stream.complete]
        return LoadSummary(
            seconds=self._began_ms / 1000,
            ramp_seconds=(self._ramp_ms or 0.0) / 1000,
            requests=len(self._all),
            output_tokens=sum(stream.output_tokens or 0 for stream in done),
            states=count_states(self._all),
            server={"queue_depth": float(max(0, len(self._due) - self._programme.most_at_once))}
            if self._programme.most_at_once
            else {},
        )

    def _ramp(self, factor: float) -> float:
        """Let the load come up: until each user was answered once; in an open loop two answers' time."""
        programme = self._programme
        answer_ms = programme.ttft_ms + programme.itl_ms * self._output_tokens
        ended, at = 0, 0.0
        while ended < len(self._due) or (self._load.request_rate is not None and at < 2 * answer_ms):
            at, _ = self._next_end(factor)
            ended += 1
        self._ramp_ms = at
        return at

    def _next_end(self, factor: float) -> tuple[float, Stream]:
        """The next request to end; every request that is due before that is started first."""
        while not self._ended or self._due[0] <= self._ended[0][0]:
            self._start(heapq.heappop(self._due), factor)
        end, _, stream = heapq.heappop(self._ended)
        self._all.append(stream)
        return end, stream

    def _start(self, due: float, factor: float) -> None:
        """Serve the request that is due now: at once, or when another one has left."""
        start = due
        while self._busy and self._busy[0] <= start:
            heapq.heappop(self._busy)
        most = self._programme.most_at_once
        if most and len(self._busy) >= most:
            start = max(due, heapq.heappop(self._busy))
        stream = self._server.answer(due, start - due, len(self._busy) + 1, self._size(), factor)
        end = due + (stream.e2e_ms or 0.0)
        heapq.heappush(self._busy, end)
        heapq.heappush(self._ended, (end, self._count, stream))
        self._count += 1
        if self._load.request_rate is None:
            heapq.heappush(self._due, end)
        else:
            heapq.heappush(self._due, due + 1000 * pause_s(self._load, self._server.rng))

    def _size(self) -> tuple[int, int]:
        """Tokens in and out of the next request."""
        load, rng = self._load, self._server.rng
        prompt = varied(self._prompt_tokens, load.prompt_spread, load.spread, rng)
        return prompt, varied(self._output_tokens, load.output_spread, load.spread, rng)

    def _trace(self, streams: tuple[Stream, ...], seconds: float) -> Trace:
        held = self._programme.held_ratio
        client = Client(
            seconds=seconds,
            held_ratio=held,
            lag_p99_ms=self._programme.lag_ms,
            lag_max_ms=self._programme.lag_ms,
            cpu_ratio=0.1,
            in_flight=held * (self._load.concurrency or len(self._busy)),
        )
        return replace(served_trace(streams, self._prompt_tokens), client=client)


def served_trace(streams: tuple[Stream, ...], prompt_tokens: int) -> Trace:
    """The trace of requests that a server has answered."""
    seen = trace_of(streams, ("",))
    return replace(seen, prompt_tokens=prompt_tokens, batch_size=1, clock="simulated")


def batch(
    programme: Programme, request: Request, size: tuple[int, int], factor: Callable[[], float]
) -> tuple[Stream, ...]:
    """The streams of `batch_size` requests that are sent at once and all awaited."""
    server = Server.of(programme, request.seed)
    scale = factor()
    count = request.batch_size
    return tuple(server.answer(0.0, 0.0, count, size, scale) for _ in range(count))
