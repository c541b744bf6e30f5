"""Keeps a load going in an event loop and cuts it into slices; knows how well it did so itself."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic_ns

from pytest_qwen.engines.answers import AnswerReader, stream_of
from pytest_qwen.engines.arrivals import allow_many_files, arrivals
from pytest_qwen.engines.asking import Asked, Lengths
from pytest_qwen.engines.base import Message
from pytest_qwen.engines.client_health import Health
from pytest_qwen.engines.http_exchange import Exchange
from pytest_qwen.engines.http_stream import HttpClient
from pytest_qwen.engines.texts import varied
from pytest_qwen.errors import EngineFault, explain
from pytest_qwen.streams import OPEN_SLICE, Client, Load, LoadSummary, Stream, count_states

# A slice is not shorter: the client's own figures, taken every 5 ms, would say little of it.
SHORTEST_SLICE_S = 0.5
# A slice that nobody has waited for this long is begun anew: what watches a window did not watch it.
_UNATTENDED_S = 1.0
# What can wait (reading answers, writing requests) is done in pieces of this length, between packets.
_PIECE_NS, _EVERY_S = 200_000, 0.001
# A user whose request failed at once asks again no sooner: a refusing server is not to be stormed.
_AFTER_FAILURE_S = 0.1
_ALL_FAILED, _EMPTY_SLICES = 20, 3


@dataclass(slots=True, eq=False)
class _User:
    """One closed-loop user, or one arrival of an open loop: asks, and goes on with its conversation."""

    due_ns: int | None = None
    turn: int = 0
    history: tuple[Message, ...] = ()
    asked: Asked | None = None


@dataclass(slots=True, eq=False)
class _Ended:
    """A request that ended and whose answer is still to be read."""

    user: _User
    exchange: Exchange
    asked: Asked
    turn: int
    reader: AnswerReader = field(default_factory=AnswerReader)


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """The requests that ended in one stretch of a load, their texts, and the client's own figures."""

    streams: tuple[Stream, ...]
    texts: tuple[str, ...]
    client: Client


class LoadGenerator:
    """One load from its start to its end. Everything but the constructor runs in the event loop.

    `write` makes the request number n of a given length that goes on a conversation. `hide` takes what must
    not be shown out of a text. `seed` decides lengths and arrivals.
    """

    def __init__(
        self,
        client: HttpClient,
        load: Load,
        write: Callable[[int, Lengths, tuple[Message, ...]], Asked],
        *,
        lengths: Lengths,
        hide: Callable[[str], str] = str,
        seed: int = 0,
    ) -> None:
        self._client, self._load, self._write = client, load, write
        self._lengths, self._hide = lengths, hide
        self._draw = random.Random(f"{seed} lengths")  # noqa: S311 - not cryptography
        self._arrivals = arrivals(load, seed)
        self._health = Health(load.concurrency)
        self._outbox: deque[_User] = deque()
        self._unread: deque[_Ended] = deque()
        self._unwritten: deque[_User] = deque()
        self._written = 0
        self._new_users: set[_User] = set()  # those of a closed loop that have not ended a request yet
        self._pumping = self._tidying = self._stopped = False
        self._timers: set[asyncio.TimerHandle] = set()
        self._cut: asyncio.TimerHandle | None = None
        self._waiter: asyncio.Future[Slice] | None = None
        self._start_ns = self._last_end_ns = 0
        self._ramp_ns: int | None = None
        self._e2e_ns: list[int] = []
        self._slice: list[tuple[Stream, str]] = []
        self._empty_slices = 0
        self._all: list[Stream] = []
        self._first_failure = ""
        self._crash: EngineFault | None = None

    async def start(self) -> None:
        """Begin: every user asks, or the first arrival is waited for."""
        allow_many_files()
        self._loop = asyncio.get_running_loop()
        users = [_User() for _ in range(self._load.concurrency or 0)]
        self._new_users.update(users)
        for user in users:
            self._prepare(user)
        self._start_ns = self._last_end_ns = monotonic_ns()
        self._health.start(self._loop)
        if users:
            self._outbox.extend(users)
            self._pump_soon()
        else:
            self._next_arrival_ns = self._start_ns
            self._await_arrival()

    async def next_slice(self) -> Slice:
        """The next slice once it is full. Raises EngineFault when nothing gets through."""
        if self._crash is not None:
            raise self._crash
        if self._health.slice_seconds > _UNATTENDED_S:
            self._begin_slice()
        self._waiter = self._loop.create_future()
        self._check()
        try:
            return await self._waiter
        finally:
            self._waiter = None

    async def stop(self) -> LoadSummary:
        """End the load: what is under way is dropped, what has ended is counted."""
        self._stopped = True
        for timer in self._timers:
            timer.cancel()
        if self._cut is not None:
            self._cut.cancel()
        self._health.stop()
        self._client.close()
        while self._unread:
            self._read_one(self._unread.popleft())
        ramp_ns = self._ramp_ns if self._ramp_ns is not None else self._last_end_ns
        return LoadSummary(
            seconds=(self._last_end_ns - self._start_ns) / 1e9,
            ramp_seconds=(ramp_ns - self._start_ns) / 1e9,
            requests=len(self._all),
            output_tokens=sum(stream.output_tokens or 0 for stream in self._all),
            states=count_states(self._all),
        )

    def crashed(self, error: BaseException) -> None:
        """Something of ours failed in the loop: whoever waits is told."""
        self._crash = self._crash or EngineFault(f"the load generator failed: {error!r}")
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(self._crash)

    # sending

    def _later(self, seconds: float, call: Callable[[], None]) -> None:
        def now() -> None:
            self._timers.discard(handle)
            call()

        handle = self._loop.call_later(seconds, now)
        self._timers.add(handle)

    def _await_arrival(self) -> None:
        """Put everybody who is due into the outbox, and wait for the next one."""
        if self._stopped:
            return
        now = monotonic_ns()
        while self._next_arrival_ns <= now:
            user = _User(due_ns=self._next_arrival_ns)
            self._health.due += 1
            self._outbox.append(user)
            self._next_arrival_ns += next(self._arrivals)
            self._pump_soon()
        self._later((self._next_arrival_ns - now) / 1e9, self._await_arrival)

    def _pump_soon(self) -> None:
        if not self._pumping and self._outbox:
            self._pumping = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        """Send one request; the next one after the packets that came meanwhile."""
        self._pumping = False
        if self._stopped or not self._outbox:
            return
        self._send(self._outbox.popleft())
        self._pump_soon()

    def _send(self, user: _User) -> None:
        if user.asked is None:
            self._prepare(user)
        asked, user.asked = user.asked, None
        assert asked is not None  # noqa: S101 - prepared above
        ended = _Ended(user, _NOTHING, asked, user.turn)
        exchange = Exchange(
            self._client.request("POST", asked.path, asked.body), self._on_end, due_ns=user.due_ns, tag=ended
        )
        ended.exchange = exchange
        self._health.sent(user.due_ns)
        self._client.begin(exchange)
        if self._load.turns == 1 and self._load.concurrency is not None:
            self._unwritten.append(user)
            self._tidy_soon()

    def _prepare(self, user: _User) -> None:
        """Write the user's next request."""
        load, draw = self._load, self._draw
        lengths = Lengths(
            prompt=varied(self._lengths.prompt, load.prompt_spread, load.spread, draw),
            output=varied(self._lengths.output, load.output_spread, load.spread, draw),
            shared=self._lengths.shared,
        )
        user.asked = self._write(self._written, lengths, user.history)
        self._written += 1

    # what comes back

    def _on_end(self, exchange: Exchange) -> None:
        """An answer ended: first of all its user goes on, so that the load is held."""
        ended = exchange.tag
        assert isinstance(ended, _Ended)  # noqa: S101 - set in _send
        user = ended.user
        self._new_users.discard(user)
        failed = exchange.failure is not None or exchange.framer.status != 200
        self._last_end_ns = exchange.end_ns
        if self._ramp_ns is None:
            self._e2e_ns.append(exchange.end_ns - (exchange.due_ns or exchange.sent_ns))
            self._end_ramp(exchange.end_ns)
        if user.turn + 1 < self._load.turns and not failed:
            self._go_on(user, ended)
        else:
            self._begin_anew(user, exchange, failed=failed)
        self._unread.append(ended)
        self._tidy_soon()

    def _go_on(self, user: _User, ended: _Ended) -> None:
        """The next turn of a conversation: it needs the answer at once."""
        ended.reader.take(ended.exchange)
        said = Message(role="assistant", content=ended.reader.text)
        user.history = (*ended.asked.messages, said)
        user.turn += 1
        user.due_ns = None
        self._health.left()
        self._outbox.append(user)
        self._pump_soon()

    def _begin_anew(self, user: _User, exchange: Exchange, *, failed: bool) -> None:
        """A closed-loop user asks something new; one of an open loop is gone."""
        user.turn, user.history = 0, ()
        wait_s = _AFTER_FAILURE_S - (exchange.end_ns - exchange.sent_ns) / 1e9
        if self._load.concurrency is None:
            self._health.left()
        elif failed and wait_s > 0:
            self._later(wait_s, lambda: self._again(user))  # the failure holds its user for so long
        else:
            self._again(user)

    def _again(self, user: _User) -> None:
        self._health.left()
        self._outbox.append(user)
        self._pump_soon()

    # what can wait

    def _tidy_soon(self) -> None:
        if not self._tidying and not self._stopped:
            self._tidying = True
            self._later(_EVERY_S, self._tidy)

    def _tidy(self) -> None:
        """Write requests and read answers for a short while."""
        self._tidying = False
        if self._stopped:
            return
        stop_ns = monotonic_ns() + _PIECE_NS
        if self._unwritten:
            user = self._unwritten.popleft()
            if user.asked is None:
                self._prepare(user)
        while self._unread and monotonic_ns() < stop_ns:
            first = self._unread[0]
            if first.reader.take(first.exchange, most=8):
                self._unread.popleft()
                self._read_one(first)
                self._check()
        if self._unread or self._unwritten:
            self._tidy_soon()

    def _read_one(self, ended: _Ended) -> None:
        """Turn an ended request into a stream, and count it."""
        stream = stream_of(
            ended.exchange,
            ended.reader,
            start_ns=self._start_ns,
            asked_tokens=ended.asked.tokens,
            turn=ended.turn,
            hide=self._hide,
        )
        self._all.append(stream)
        if not stream.complete and not self._first_failure:
            self._first_failure = f"{stream.state}: {stream.detail}"
        if self._ramp_ns is not None and ended.exchange.end_ns > self._ramp_ns:
            self._slice.append((stream, ended.reader.text))

    # slices

    def _end_ramp(self, now: int) -> None:
        """Begin to count once the load is what it was asked to be."""
        if self._load.concurrency is not None:
            over = not self._new_users
        else:
            over = now - self._start_ns >= 2 * sum(self._e2e_ns) / len(self._e2e_ns)
        if over:
            self._ramp_ns = now
            self._begin_slice()

    def _begin_slice(self) -> None:
        self._slice = []
        self._health.begin_slice()
        self._await_cut()

    def _check(self) -> None:
        """Give the slice to whoever waits if it is full, or the fault if nothing gets through."""
        if self._waiter is None or self._waiter.done():
            return
        if self._hopeless():
            self._waiter.set_exception(self._fault(f"all of the first {len(self._all)} requests failed"))
        elif self._full():
            self._deliver(self._waiter)

    def _hopeless(self) -> bool:
        """Whether nothing got through, of many requests or for long."""
        for_long = self._last_end_ns - self._start_ns >= 2 * self._load.silence_s * 1e9
        tried = len(self._all) >= _ALL_FAILED or (self._all and for_long)
        return bool(tried) and not any(stream.complete for stream in self._all)

    def _full(self) -> bool:
        """Whether a closed loop's slice can be cut; an open one's is cut by the clock."""
        closed = self._load.concurrency is not None
        return closed and self._enough() and self._health.slice_seconds >= SHORTEST_SLICE_S

    def _enough(self) -> bool:
        return self._ramp_ns is not None and len(self._slice) >= max(1, self._load.slice_requests)

    def _await_cut(self) -> None:
        """Look when an open loop's slice is over; one that lacks requests lasts as long once more."""
        if self._load.request_rate is None or self._stopped:
            return
        if self._cut is not None:
            self._cut.cancel()
        needed_s = OPEN_SLICE * self._load.slice_requests / self._load.request_rate
        self._cut = self._loop.call_later(max(SHORTEST_SLICE_S, needed_s), self._look)

    def _look(self) -> None:
        if self._waiter is not None and not self._waiter.done() and self._enough():
            self._deliver(self._waiter)
        else:
            self._await_cut()

    def _deliver(self, waiter: asyncio.Future[Slice]) -> None:
        streams = tuple(stream for stream, _ in self._slice)
        self._empty_slices = 0 if any(one.complete for one in streams) else self._empty_slices + 1
        if self._empty_slices >= _EMPTY_SLICES:
            waiter.set_exception(self._fault(f"nothing was answered over {_EMPTY_SLICES} slices of the load"))
            return
        texts = tuple(text for _, text in self._slice)
        waiter.set_result(Slice(streams=streams, texts=texts, client=self._health.of_slice()))
        self._begin_slice()

    def _fault(self, what: str) -> EngineFault:
        states = ", ".join(f"{count} {state}" for state, count in count_states(self._all).items())
        return EngineFault(explain(f"{what} ({states})", found=f"the first one was {self._first_failure}"))


_NOTHING = Exchange(b"", lambda _exchange: None)
