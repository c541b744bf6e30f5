"""The fake engine: conformance, its programme, its faults in-process, its register entry."""

from __future__ import annotations

import time

import pytest

from pytest_qwen.engines import create, engine_names, register
from pytest_qwen.engines.base import Engine, LoadSpec, Request
from pytest_qwen.engines.fake import FakeEngine, Programme, programme_of
from pytest_qwen.errors import DoesNotFit, EngineFault, Misuse, ModelUnusable, QwenError, Unavailable
from pytest_qwen.testing import EngineConformance, fake_spec

ROUND = Request(prompt_tokens=10, output_tokens=4, ignore_eos=True)


class TestFakeEngine(EngineConformance):
    @classmethod
    def make_engine(cls) -> Engine:
        return FakeEngine()

    @classmethod
    def spec(cls) -> LoadSpec:
        return fake_spec()


def loaded(**programme: object) -> FakeEngine:
    engine = FakeEngine()
    engine.load(fake_spec(**programme))
    return engine


def test_times_are_as_programmed() -> None:
    engine = loaded(ttft_ms=200.0, itl_ms=10.0, prefill_ms_per_token=1.0)
    trace = engine.run(ROUND)
    assert trace.token_ns == (210_000_000, 220_000_000, 230_000_000, 240_000_000)
    assert trace.clock == "simulated"


def test_thousands_of_rounds_take_no_programmed_time() -> None:
    engine = loaded(ttft_ms=3_600_000.0)
    started = time.monotonic()
    assert sum(engine.run(ROUND).token_ns[0] for _ in range(2000)) == 2000 * 3_600_000 * 10**6
    assert time.monotonic() - started < 3600  # a single programmed TTFT


def first_tokens(**programme: object) -> list[int]:
    engine = loaded(**programme)
    return [engine.run(ROUND).token_ns[0] for _ in range(20)]


def test_noise_is_of_the_named_model_and_of_the_seed() -> None:
    noisy = first_tokens(ttft_ms=100.0, jitter=("ar1", 0.6, 0.03), seed=1)
    assert len(set(noisy)) == 20
    assert noisy == first_tokens(ttft_ms=100.0, jitter=("ar1", 0.6, 0.03), seed=1)
    assert noisy != first_tokens(ttft_ms=100.0, jitter=("ar1", 0.6, 0.03), seed=2)
    assert [ns * 2 for ns in noisy] == pytest.approx(
        first_tokens(ttft_ms=200.0, jitter=("ar1", 0.6, 0.03), seed=1), abs=2
    )


def test_noise_scales_a_round_as_a_whole() -> None:
    times = loaded(ttft_ms=100.0, itl_ms=100.0, jitter=("iid", 0.3)).run(ROUND).token_ns
    assert times == pytest.approx([times[0] * n for n in (1, 2, 3, 4)], abs=4)
    assert times[0] != 100_000_000


def test_an_unknown_noise_is_misuse_at_load() -> None:
    with pytest.raises(Misuse, match=r"did you mean 'drift'\?"):
        loaded(jitter=("drifts", 0.1))


def test_warm_up_is_slower() -> None:
    engine = loaded(ttft_ms=100.0, warmup=(5.0, 2.0))
    assert [engine.run(ROUND).token_ns[0] // 10**6 for _ in range(3)] == [500, 200, 100]


def test_text_ends_by_itself_or_at_the_limit() -> None:
    engine = loaded(text="def f(): pass")
    short = engine.run(Request(prompt="p", output_tokens=50))
    cut = engine.run(Request(prompt="p", output_tokens=2))
    assert (short.texts[0], short.finish_reason) == ("def f(): pass", "stop")
    assert (cut.texts[0], cut.finish_reason) == ("def f(): ", "length")


def test_memory_is_as_programmed() -> None:
    engine = FakeEngine()
    told = engine.load(fake_spec(memory_gb=15.5, load_s=7.0))
    assert (told.device_memory_bytes, told.load_s) == (15_500_000_000, 7.0)
    assert engine.run(ROUND).peak_memory_bytes == 15_500_000_000


def test_short_output_is_short_once() -> None:
    engine = loaded(fault="short@2")
    assert [engine.run(ROUND).output_tokens for _ in range(3)] == [4, 2, 4]


@pytest.mark.parametrize(
    ("fault", "error", "kind"),
    [
        ("die@2", EngineFault, "died"),
        ("segv@2", EngineFault, "died"),
        ("hang@2", EngineFault, "hang"),
        ("cuda@2", EngineFault, "device"),
        ("raise@2", EngineFault, "error"),
        ("oom@2", DoesNotFit, None),
    ],
)
def test_faults_strike_at_their_run(fault: str, error: type[QwenError], kind: str | None) -> None:
    engine = loaded(fault=fault)
    engine.run(ROUND)
    with pytest.raises(error) as caught:
        engine.run(ROUND)
    assert getattr(caught.value, "kind", None) == kind


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("oom@load", DoesNotFit),
        ("die@load", EngineFault),
        ("missing", ModelUnusable),
        ("corrupt", ModelUnusable),
    ],
)
def test_faults_strike_at_load(fault: str, error: type[QwenError]) -> None:
    with pytest.raises(error):
        loaded(fault=fault)


def test_an_unknown_option_is_named_with_the_likely_one() -> None:
    with pytest.raises(Misuse, match=r"did you mean 'ttft_ms'\?"):
        programme_of({"tftt_ms": 3.0})


def test_a_fault_without_a_time_strikes_at_load() -> None:
    assert programme_of({"fault": "die"}).strikes == ("die", "load")


@pytest.mark.parametrize("fault", ["explode@2", "die@soon"])
def test_an_unknown_fault_is_refused(fault: str) -> None:
    with pytest.raises(Misuse, match="no such fault"):
        programme_of({"fault": fault})


def test_options_round_trip_and_stay_hashable() -> None:
    programme = Programme(ttft_ms=5.0, jitter=("iid", 0.03), fault="die@3")
    assert programme_of(dict(programme.options())) == programme
    assert hash(fake_spec(jitter=("iid", 0.03)))
    assert Programme().options() == ()


def test_loads_are_logged(tmp_path) -> None:
    log = tmp_path / "loads"
    for _ in range(2):
        loaded(load_log=str(log)).close()
    assert len(log.read_text().splitlines()) == 2


def test_unknown_engine_is_misuse_with_a_suggestion() -> None:
    with pytest.raises(Misuse, match=r"did you mean 'transformers'\?"):
        create("transformer")


def test_create_imports_by_name() -> None:
    assert isinstance(create("fake"), FakeEngine)
    assert {"fake", "transformers"} <= set(engine_names())


def test_a_third_party_engine_can_be_registered_once() -> None:
    register("other", "pytest_qwen.engines.fake:FakeEngine")
    register("other", "pytest_qwen.engines.fake:FakeEngine")
    assert isinstance(create("other"), FakeEngine)
    with pytest.raises(Misuse, match="taken"):
        register("other", "somewhere:Else")
    with pytest.raises(Misuse, match="module:Class"):
        register("another", "somewhere")


def test_an_engine_that_cannot_be_imported_is_unavailable() -> None:
    register("gone", "no_such_module_here:Engine")
    with pytest.raises(Unavailable, match="no_such_module_here"):
        create("gone")
