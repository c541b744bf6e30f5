"""The engines of one device: each model loaded once for all tests that share it, memory back in between."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from pytest_qwen.engines.base import Engine, Likelihood, Loaded, LoadSpec, Pair, Request, Trace, sleeping
from pytest_qwen.engines.faults import again
from pytest_qwen.errors import DoesNotFit, EngineFault, Misuse, ModelUnusable, QwenError, Unavailable, explain
from pytest_qwen.locks import DeviceLock
from pytest_qwen.streams import LoadSummary

_FAULTY_LOADS = 2
_POLL_S = 0.1
_SLEEP_LEVELS = (1, 2)  # as vLLM counts them


class MemoryReader(Protocol):
    """Says how much of the device's memory is in use, and by whom (a part of `readers.GpuReader`)."""

    def memory_used_bytes(self) -> int | None:
        """Bytes in use by everybody, None when unknown."""

    def processes(self) -> tuple[tuple[int, str], ...] | None:
        """(pid, name) of who computes on the device, None when unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolLimits:
    """How long the pool waits (seconds), and how much memory may stay away before that is a leak."""

    lock_timeout_s: float = 600.0
    memory_timeout_s: float = 60.0
    memory_tolerance_bytes: int = 512 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadRecord:
    """One load of this session: what, how long by the session's clock, and its error ("" when it worked)."""

    spec: LoadSpec
    seconds: float
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A loaded engine, good until the next lease of another spec.

    `fresh` says that it was loaded for this lease. `memory_before_load_bytes` is what everybody used on the
    device before the load, None when unknown.
    """

    spec: LoadSpec
    engine: Engine
    loaded: Loaded
    fresh: bool
    memory_before_load_bytes: int | None = None


class _Watched:
    """An engine that remembers whether it may be used again."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.spent = False
        self.asleep = False

    def load(self, spec: LoadSpec) -> Loaded:
        return self._engine.load(spec)

    def run(self, request: Request, on_token: Callable[[str], None] | None = None) -> Trace:
        if self.asleep:
            raise Misuse(explain("the model sleeps and cannot answer", next_step="llm.wake() first"))
        with self._spent_by_a_fault():
            return self._engine.run(request, on_token)

    def count_tokens(self, text: str) -> int:
        with self._spent_by_a_fault():
            return self._engine.count_tokens(text)

    def encode(self, text: str) -> tuple[int, ...]:
        with self._spent_by_a_fault():
            return self._engine.encode(text)

    def score(self, pairs: Sequence[Pair]) -> tuple[Likelihood, ...]:
        with self._spent_by_a_fault():
            return self._engine.score(pairs)

    def rest(self) -> LoadSummary | None:
        with self._spent_by_a_fault():
            return self._engine.rest()

    def sleep(self, level: int = 1) -> float:
        if level not in _SLEEP_LEVELS:
            raise Misuse(explain("there is no such level of sleep", asked=repr(level), choices=("1", "2")))
        with self._spent_by_a_fault():
            self._engine.rest()  # no request may be on its way
            seconds = sleeping(self._engine).sleep(level)
        self.asleep = True
        return seconds

    def wake(self) -> float:
        with self._spent_by_a_fault():
            seconds = sleeping(self._engine).wake()
        self.asleep = False
        return seconds

    @contextlib.contextmanager
    def _spent_by_a_fault(self) -> Iterator[None]:
        try:
            yield
        except (EngineFault, DoesNotFit):
            self.spent = True
            raise

    def close(self) -> None:
        self.spent = True
        self._engine.close()


class Pool:
    """Keeps the engine of the last lease; another spec evicts it. The device's locks are held until close."""

    def __init__(
        self,
        make_engine: Callable[[LoadSpec], Engine],
        *,
        locks: Sequence[DeviceLock] = (),
        memory: MemoryReader | None = None,
        limits: PoolLimits | None = None,
        on_wait: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Nothing is taken or loaded yet. `on_wait` is told what a lease waits for."""
        self._make_engine = make_engine
        self._locks = locks
        self._memory = memory
        self._limits = limits or PoolLimits()
        self._on_wait = on_wait
        self._clock = clock
        self._sleep = sleep
        self._loaded: dict[str, tuple[Lease, _Watched]] = {}  # by the spec's key, oldest first
        self._refused: dict[str, QwenError] = {}
        self._faulty: Counter[str] = Counter()
        self._lock_error: Unavailable | None = None
        self._loads: list[LoadRecord] = []
        self._owed_bytes: int | None = None  # memory in use that closed models have to come back to

    @property
    def loads(self) -> tuple[LoadRecord, ...]:
        """Every load that was tried, in order."""
        return tuple(self._loads)

    def lease(self, spec: LoadSpec, *, keep: Collection[LoadSpec] = ()) -> Lease:
        """The engine loaded for `spec`; whatever else is loaded is closed first, except the specs in `keep`.

        Raises Unavailable (the device is in use, its memory does not come back) and what the load raises. A
        load refused by DoesNotFit, ModelUnusable or Unavailable, or that met an EngineFault twice in a row,
        is not tried again: the same error is raised at once.
        """
        if spec.key in self._refused:
            raise again(self._refused[spec.key])
        self._take_locks()
        self._evict({spec.key, *(other.key for other in keep)})
        if spec.key in self._loaded:
            lease, engine = self._loaded[spec.key]
            if engine.asleep:  # left so by the test before
                engine.wake()
            return replace(lease, fresh=False)
        return self._load(spec)

    def evict(self) -> None:
        """Close every engine, so that the next lease loads afresh; the device stays ours."""
        self._evict(())

    def close(self) -> None:
        """Close every engine and give the device back; safe to call twice."""
        try:
            self.evict()
        finally:
            for lock in self._locks:
                lock.release()

    def _take_locks(self) -> None:
        """Be alone on the device; one long wait in vain is enough for a session."""
        if self._lock_error is not None:
            raise again(self._lock_error)
        try:
            for lock in self._locks:
                lock.acquire(self._limits.lock_timeout_s, self._on_wait)
        except Unavailable as error:
            self._lock_error = error
            raise

    def _evict(self, wanted: Collection[str]) -> None:
        """Close what is not wanted or must not be used again."""
        for key, (lease, engine) in tuple(self._loaded.items()):
            if key not in wanted or engine.spent:
                del self._loaded[key]
                engine.close()
                self._owe(lease.memory_before_load_bytes)

    def _owe(self, before_bytes: int | None) -> None:
        """A model was closed: the next load waits for what was in use before it, if nothing else is loaded.

        With a model still loaded, what the others must leave behind is not known.
        """
        self._owed_bytes = None if self._loaded else before_bytes

    def _await_memory(self) -> None:
        """Wait until no more memory is in use than before the models that are now closed."""
        before_bytes, self._owed_bytes = self._owed_bytes, None
        if self._memory is None or before_bytes is None:
            return
        deadline = self._clock() + self._limits.memory_timeout_s
        while (used := self._memory.memory_used_bytes()) is not None:
            if used <= before_bytes + self._limits.memory_tolerance_bytes:
                return
            if self._clock() >= deadline:
                raise self._memory_stays(used, before_bytes)
            self._sleep(_POLL_S)

    def _memory_stays(self, used: int, before: int) -> Unavailable:
        holders = ", ".join(name for _, name in (self._memory and self._memory.processes()) or ())
        timeout_s = self._limits.memory_timeout_s
        return Unavailable(
            explain(
                "the device's memory did not come back after the last model was closed",
                asked=f"at most {before / 1e9:.2f} GB in use within {timeout_s:g} s, as before its load",
                found=f"{used / 1e9:.2f} GB in use by {holders or 'processes that the driver does not name'}",
                next_step="end the processes that hold it",
            )
        )

    def _load(self, spec: LoadSpec) -> Lease:
        """Load in a new engine and keep it; a failed engine is closed."""
        self._await_memory()
        before = self._memory.memory_used_bytes() if self._memory else None
        started_s = self._clock()
        engine = self._make_engine(spec)
        try:
            loaded = engine.load(spec)
        except BaseException as error:
            self._loads.append(LoadRecord(spec=spec, seconds=self._clock() - started_s, error=str(error)))
            self._remember(spec, error)
            engine.close()
            self._owe(before)
            raise
        self._faulty.pop(spec.key, None)
        self._loads.append(LoadRecord(spec=spec, seconds=self._clock() - started_s))
        watched = _Watched(engine)
        lease = Lease(spec=spec, engine=watched, loaded=loaded, fresh=True, memory_before_load_bytes=before)
        self._loaded[spec.key] = lease, watched
        return lease

    def _remember(self, spec: LoadSpec, error: BaseException) -> None:
        """Note what need not be tried again."""
        if isinstance(error, EngineFault):
            self._faulty[spec.key] += 1
        hopeless = isinstance(error, DoesNotFit | ModelUnusable | Unavailable)
        if isinstance(error, QwenError) and (hopeless or self._faulty[spec.key] >= _FAULTY_LOADS):
            self._refused[spec.key] = error
