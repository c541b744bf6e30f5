"""One answer of a server as its client saw it, the load it was part of, the client's own health. Values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

Arrival = Literal["poisson", "constant"]

# Slices of an open loop end by the clock, not with their last request: cut at an arrival they would be
# shorter than their requests took to come, and their rates too high. This much longer than the requests need
# on average, so that few slices lack some.
OPEN_SLICE = 1.5

# How a request ended. "ok": the server said that it was finished, and how many tokens it had sent.
# "no-usage": finished, but it never said how many. "http-error": another status than 200, or an error in
# the stream. "unreachable": no connection. "cut": the connection or the body ended before the answer did.
# "silent": nothing came for the silence limit. "malformed": what came is not the protocol.
State = Literal["ok", "no-usage", "http-error", "unreachable", "cut", "silent", "malformed"]
COMPLETE = frozenset({"ok", "no-usage"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Many requests at once: a closed loop of `concurrency` users, or an open one of `request_rate` a second.

    Exactly one of the two is set. `arrival` is how an open loop's requests are spread. A slice, the unit of
    evidence, holds `slice_requests` ended requests at least. Lengths vary by `prompt_spread` and
    `output_spread` around the request's own: with "uniform" by that share to either side, with "lognormal"
    it is the logarithm's standard deviation. The first `shared_prefix_tokens` of every prompt are the same;
    all others are fresh. With `turns` above 1 a user asks so many times in a row, each time with what was
    said before. After `silence_s` seconds without a byte a request has failed.
    """

    concurrency: int | None = None
    request_rate: float | None = None
    arrival: Arrival = "poisson"
    slice_requests: int = 1
    prompt_spread: float = 0.0
    output_spread: float = 0.0
    spread: Literal["uniform", "lognormal"] = "uniform"
    shared_prefix_tokens: int = 0
    turns: int = 1
    silence_s: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """One streamed answer. Times in milliseconds by the client's monotonic clock.

    `scheduled_ms` and `sent_ms` count from the start of the load; the others from when the request was due:
    its scheduled time in an open loop, its sending in a closed one. `ttft_ms` is the first chunk with text in
    it, `last_ms` the last such chunk, `e2e_ms` the end of the answer. `chunk_ms` are the times of all chunks
    with text. The token counts are the server's own, None where it gave none; nothing here is ever taken
    from what was asked. `digest` stands for the text. `detail` says in words what went wrong.
    """

    scheduled_ms: float
    sent_ms: float
    state: State
    ttft_ms: float | None = None
    last_ms: float | None = None
    e2e_ms: float | None = None
    chunk_ms: tuple[float, ...] = ()
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    asked_tokens: int | None = None
    finish_reason: str = ""
    digest: str = ""
    detail: str = ""
    turn: int = 0

    @property
    def complete(self) -> bool:
        """Whether the whole answer came."""
        return self.state in COMPLETE

    @property
    def end_ms(self) -> float:
        """When it ended, since the start of the load; for one that failed, the last that is known of it."""
        return self.sent_ms + (self.e2e_ms or self.last_ms or 0.0)

    @property
    def gaps_ms(self) -> tuple[float, ...]:
        """Times between neighbouring chunks with text."""
        return tuple(later - earlier for earlier, later in pairwise(self.chunk_ms))

    @property
    def longest_gap_ms(self) -> float | None:
        """The longest time without text after the first chunk; None before two chunks came."""
        return max(self.gaps_ms, default=None)

    @property
    def one_token_a_chunk(self) -> bool:
        """Whether chunks can stand for tokens; only then is a gap an inter-token latency."""
        return self.output_tokens is not None and len(self.chunk_ms) == self.output_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """What a client knows of itself over one slice of `seconds`.

    `held_ratio` is the share of the load that it really held: in a closed loop the mean number of requests
    in flight over the asked one, in an open loop the requests sent over those due. `lag_p99_ms` and
    `lag_max_ms` say how late its event loop woke up, `cpu_ratio` what share of one CPU it used,
    `late_p99_ms` how long after its due time a request was sent. None is unknown: the client was not ours.
    """

    seconds: float
    held_ratio: float | None
    lag_p99_ms: float | None
    lag_max_ms: float | None
    cpu_ratio: float | None
    late_p99_ms: float = 0.0
    in_flight: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadSummary:
    """A whole load from its first request to its last answer: ramp, steady state, warm-up and drain together.

    `states` counts how requests ended; `server` holds facts that the server told (queue depth, cache hits).
    """

    seconds: float
    ramp_seconds: float
    requests: int
    output_tokens: int
    states: dict[str, int] = field(default_factory=dict)
    server: dict[str, float] = field(default_factory=dict)


def count_states(streams: Sequence[Stream]) -> dict[str, int]:
    """How many requests ended in which state, the commonest first."""
    found: dict[str, int] = {}
    for stream in streams:
        found[stream.state] = found.get(stream.state, 0) + 1
    return dict(sorted(found.items(), key=lambda one: -one[1]))
