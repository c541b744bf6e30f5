"""The pool: one load a spec, eviction, memory, faults and remembered refusals."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_qwen.engines.base import Engine, LoadSpec, Request
from pytest_qwen.engines.child import ChildEngine
from pytest_qwen.engines.fake import FakeEngine
from pytest_qwen.errors import DoesNotFit, EngineFault, Misuse, ModelUnusable, QwenError, Unavailable
from pytest_qwen.locks import DeviceLock
from pytest_qwen.pool import Pool, PoolLimits
from pytest_qwen.testing import ManualClock, fake_spec

ROUND = Request(prompt_tokens=10, output_tokens=4, ignore_eos=True)
A, B, C = (fake_spec(model=name) for name in "abc")
GB = 10**9


class Device:
    """Memory that engines take at load and give back some polls after they are closed."""

    def __init__(self, polls_to_free: int = 0) -> None:
        self.used = 1 * GB
        self.leaving = 0
        self.polls_to_free = polls_to_free

    def memory_used_bytes(self) -> int | None:
        if self.leaving:
            self.polls_to_free -= 1
            if self.polls_to_free < 0:
                self.used -= self.leaving
                self.leaving = 0
        return self.used

    def processes(self) -> tuple[tuple[int, str], ...] | None:
        return ((42, "python (pid 42)"),)

    def make_engine(self, spec: LoadSpec) -> Engine:
        return _Tenant(self)


class _Tenant(FakeEngine):
    def __init__(self, device: Device) -> None:
        super().__init__()
        self.device = device
        self.size = 0

    def load(self, spec):
        self.device.used += 10 * GB
        self.size = 10 * GB
        return super().load(spec)

    def close(self):
        self.device.leaving += self.size
        self.size = 0
        super().close()


class Factory:
    """Makes fake engines and keeps them."""

    def __init__(self) -> None:
        self.made: list[FakeEngine] = []

    def __call__(self, spec: LoadSpec) -> Engine:
        self.made.append(FakeEngine())
        return self.made[-1]

    @property
    def open(self) -> int:
        return sum(engine._programme is not None for engine in self.made)


@pytest.fixture
def factory() -> Factory:
    return Factory()


def test_equal_specs_share_one_load(factory: Factory) -> None:
    pool = Pool(factory)
    leases = [pool.lease(fake_spec(model="a", ttft_ms=5.0)) for _ in range(5)]
    assert [lease.fresh for lease in leases] == [True, False, False, False, False]
    assert len({id(lease.engine) for lease in leases}) == 1
    assert len(pool.loads) == 1
    assert leases[0].engine.run(ROUND).output_tokens == 4
    assert leases[0].engine.count_tokens("two words") == 2


def test_a_hundred_tests_over_three_models_are_three_loads(factory: Factory) -> None:
    pool = Pool(factory)
    for spec in sorted((A, B, C) * 33, key=lambda spec: spec.key):
        pool.lease(spec).engine.run(ROUND)
    assert len(pool.loads) == 3


def test_another_spec_evicts(factory: Factory) -> None:
    pool = Pool(factory)
    pool.lease(A)
    pool.lease(B)
    assert (len(factory.made), factory.open) == (2, 1)
    assert pool.lease(A).fresh


def test_evict_unloads_and_keeps_the_device(factory: Factory, tmp_path: Path) -> None:
    lock = DeviceLock("GPU-1", directory=tmp_path)
    pool = Pool(factory, locks=[lock])
    pool.lease(A)
    pool.evict()
    assert (factory.open, lock.held) == (0, True)
    assert pool.lease(A).fresh
    pool.close()


def test_kept_specs_stay_for_a_comparison(factory: Factory) -> None:
    pool = Pool(factory)
    first = pool.lease(A)
    second = pool.lease(B, keep=[A])
    assert factory.open == 2
    assert first.engine.run(ROUND).clock == second.engine.run(ROUND).clock
    assert not pool.lease(A, keep=[B]).fresh
    pool.lease(B)
    assert factory.open == 1


@pytest.mark.parametrize("fault", ["cuda@1", "oom@1"])
def test_a_spent_engine_is_discarded(factory: Factory, fault: str) -> None:
    pool = Pool(factory)
    spec = fake_spec(fault=fault)
    lease = pool.lease(spec)
    with pytest.raises((EngineFault, DoesNotFit)):
        lease.engine.run(ROUND)
    assert pool.lease(spec).fresh
    assert (len(factory.made), factory.open) == (2, 1)


def test_misuse_spends_no_engine(factory: Factory) -> None:
    pool = Pool(factory)
    with pytest.raises(Misuse):
        pool.lease(A).engine.run(Request())
    assert not pool.lease(A).fresh


@pytest.mark.parametrize(("fault", "error"), [("oom@load", DoesNotFit), ("missing", ModelUnusable)])
def test_a_refused_load_is_remembered(factory: Factory, fault: str, error: type[QwenError]) -> None:
    pool = Pool(factory)
    texts = []
    for _ in range(3):
        with pytest.raises(error) as caught:
            pool.lease(fake_spec(fault=fault))
        texts.append(str(caught.value))
    assert len(factory.made) == 1
    assert len(set(texts)) == 1
    assert pool.loads[0].error == texts[0]
    assert pool.lease(A).fresh


def test_a_faulty_load_is_tried_twice(factory: Factory) -> None:
    pool = Pool(factory)
    for _ in range(4):
        with pytest.raises(EngineFault, match="segv"):
            pool.lease(fake_spec(fault="segv@load"))
    assert len(factory.made) == 2


def test_misuse_at_load_is_not_remembered(factory: Factory) -> None:
    pool = Pool(factory)
    for _ in range(2):
        with pytest.raises(Misuse):
            pool.lease(LoadSpec(engine="fake", model="a", options=(("nonsense", 1),)))
    assert len(factory.made) == 2


def test_the_next_load_waits_for_memory() -> None:
    device, clock = Device(polls_to_free=7), ManualClock()
    pool = Pool(device.make_engine, memory=device, clock=clock, sleep=clock.sleep)
    assert pool.lease(A).memory_before_load_bytes == 1 * GB
    assert pool.lease(B).memory_before_load_bytes == 1 * GB
    assert clock.now_s > 0


def test_memory_that_stays_away_is_named() -> None:
    device, clock = Device(polls_to_free=10**6), ManualClock()
    limits = PoolLimits(memory_timeout_s=30)
    pool = Pool(device.make_engine, memory=device, limits=limits, clock=clock, sleep=clock.sleep)
    pool.lease(A)
    with pytest.raises(Unavailable, match=r"11\.00 GB in use by python \(pid 42\)"):
        pool.lease(B)
    assert clock.now_s == pytest.approx(30, abs=1)
    assert pool.lease(B).fresh  # what is lost is lost: the wait is not repeated


def test_memory_of_a_failed_load_is_waited_for_too() -> None:
    device, clock = Device(polls_to_free=7), ManualClock()
    pool = Pool(device.make_engine, memory=device, clock=clock, sleep=clock.sleep)
    with pytest.raises(DoesNotFit):
        pool.lease(fake_spec(fault="oom@load"))
    assert pool.lease(A).memory_before_load_bytes == 1 * GB


def test_memory_is_not_waited_for_while_another_model_stays() -> None:
    device, clock = Device(polls_to_free=10**6), ManualClock()
    pool = Pool(device.make_engine, memory=device, clock=clock, sleep=clock.sleep)
    pool.lease(A)
    pool.lease(B, keep=[A])
    pool.lease(C, keep=[A])
    assert clock.now_s == 0


def test_locks_are_held_from_the_first_lease_to_the_end(factory: Factory, tmp_path: Path) -> None:
    locks = [DeviceLock(name, directory=tmp_path) for name in ("GPU-1", "GPU-2")]
    pool = Pool(factory, locks=locks)
    assert not any(lock.held for lock in locks)
    pool.lease(A)
    pool.lease(B)
    assert all(lock.held for lock in locks)
    pool.close()
    pool.close()
    assert not any(lock.held for lock in locks)
    assert factory.open == 0


def test_a_device_in_use_is_waited_for_once(factory: Factory, tmp_path: Path) -> None:
    other, clock = DeviceLock("GPU-1", directory=tmp_path), ManualClock()
    other.acquire(0)
    mine = DeviceLock("GPU-1", directory=tmp_path, clock=clock, sleep=clock.sleep)
    told: list[str] = []
    pool = Pool(factory, locks=[mine], limits=PoolLimits(lock_timeout_s=60), on_wait=told.append)
    for spec in (A, B):
        with pytest.raises(Unavailable, match="in use by another"):
            pool.lease(spec)
    assert clock.now_s == pytest.approx(60, abs=1)
    assert len(told) == 1
    assert factory.made == []
    other.release()


def test_seconds_of_a_load_are_kept(factory: Factory) -> None:
    clock = ManualClock()

    def slow(spec: LoadSpec) -> Engine:
        clock.sleep(12.0)
        return factory(spec)

    pool = Pool(slow, clock=clock)
    pool.lease(A)
    assert [(load.spec, load.seconds, load.error) for load in pool.loads] == [(A, 12.0, "")]


def test_with_real_processes_a_death_costs_one_lease(tmp_path: Path) -> None:
    log = tmp_path / "loads"
    pool = Pool(lambda spec: ChildEngine(spec.engine))
    spec = fake_spec(fault="die@2", load_log=str(log))
    first = pool.lease(spec)
    first.engine.run(ROUND)
    with pytest.raises(EngineFault, match="SIGKILL"):
        first.engine.run(ROUND)
    second = pool.lease(spec)
    assert second.engine.run(ROUND).output_tokens == 4
    assert second.loaded.pid != first.loaded.pid
    pool.close()
    assert len(log.read_text().splitlines()) == 2


class _Interrupted(FakeEngine):
    closed = False

    def load(self, spec):
        raise KeyboardInterrupt

    def close(self):
        self.closed = True


def test_ctrl_c_while_loading_closes_the_engine() -> None:
    engine = _Interrupted()
    pool = Pool(lambda spec: engine)
    with pytest.raises(KeyboardInterrupt):
        pool.lease(A)
    assert engine.closed
