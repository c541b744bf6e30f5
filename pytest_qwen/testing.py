"""Public helpers to test engines and SLA tests without a GPU: fake engine, mock server, conformance."""

from __future__ import annotations

import json
import pickle
from collections.abc import Collection
from dataclasses import asdict, replace
from itertools import pairwise
from typing import Any, ClassVar

import pytest

from pytest_qwen import detect
from pytest_qwen.engines.base import Engine, Loaded, LoadSpec, Message, Request
from pytest_qwen.engines.fake import FakeEngine
from pytest_qwen.engines.programme import Programme
from pytest_qwen.errors import Misuse, QwenError
from pytest_qwen.gpus import Device, lookup
from pytest_qwen.mock_server import MockServer, Served, ServerScript
from pytest_qwen.proxy import StreamProxy
from pytest_qwen.readers import GpuSample, HostSample

__all__ = [
    "QUIET_GPU",
    "EngineConformance",
    "FakeEngine",
    "FakeGpuReader",
    "FakeHostReader",
    "GpuSample",
    "HostSample",
    "ManualClock",
    "MockServer",
    "Programme",
    "Served",
    "ServerScript",
    "StreamProxy",
    "fake_device",
    "fake_spec",
    "pretend_gpus",
]


def fake_spec(*, model: str = "fake/model", device: str = "cpu", **programme: Any) -> LoadSpec:
    """The spec of a fake engine that behaves as programmed: `fake_spec(ttft_ms=200.0, fault="die@3")`.

    The keywords are the fields of `Programme`.
    """
    options = Programme(**programme).options()
    return LoadSpec(engine="fake", model=model, device=device, options=options)


class ManualClock:
    """A clock in seconds that moves only when told; `sleep` moves it too."""

    def __init__(self, now_s: float = 0.0) -> None:
        """Start at `now_s`."""
        self.now_s = now_s

    def __call__(self) -> float:
        """The time now, seconds."""
        return self.now_s

    def sleep(self, seconds: float) -> None:
        """Move on, as time.sleep would."""
        self.now_s += seconds


def fake_device(alias: str = "h100", *, index: int = 0, **known: Any) -> Device:
    """A GPU of the catalogue as detection would report it; `known` overrides fields of `Device`."""
    spec = lookup(alias)
    device = Device(
        index=index,
        uuid=f"GPU-fake-{index}",
        name=spec.name,
        spec=spec,
        memory_bytes=round((spec.memory_gb or 0) * 1e9),
        mig=False,
        driver="fake",
    )
    return replace(device, **known)


def pretend_gpus(*aliases: str) -> None:
    """From now on this process finds these cards of the catalogue and no others: `pretend_gpus("l4")`.

    For a conftest.py, with `--qwen-engine=fake`: tests for a GPU then run where there is none. Raises Misuse
    for an unknown name.
    """
    devices = tuple(fake_device(alias, index=index) for index, alias in enumerate(aliases))
    detect.detect = lambda *_arguments, **_named: devices


class FakeGpuReader:
    """A `GpuReader` that reads out the given samples one after the other, the last one for ever.

    Without samples it is an unloaded card that knows everything.
    """

    def __init__(self, *samples: GpuSample) -> None:
        """`reads` counts the samples taken."""
        self._samples = samples or (QUIET_GPU,)
        self.reads = 0

    def sample(self) -> GpuSample:
        """The next sample."""
        self.reads += 1
        return self._samples[min(self.reads, len(self._samples)) - 1]

    def memory_used_bytes(self) -> int | None:
        """Of the next sample."""
        return self.sample().memory_used_bytes

    def processes(self) -> tuple[tuple[int, str], ...] | None:
        """Of the next sample."""
        return self.sample().processes


QUIET_GPU = GpuSample(
    sm_clock_mhz=1980.0,
    sm_clock_max_mhz=1980.0,
    temperature_c=40.0,
    power_w=120.0,
    energy_j=0.0,
    utilization_ratio=1.0,
    memory_used_bytes=0,
    processes=(),
    mig=False,
)


class FakeHostReader:
    """A `HostReader` that reads out the given samples one after the other; `ours` are our own pids."""

    def __init__(self, *samples: HostSample, ours: Collection[int] = ()) -> None:
        """Without samples the host is unknown."""
        self._samples = list(samples)
        self._ours = ours

    def sample(self, pid: int | None) -> HostSample | None:  # noqa: ARG002 - programmed
        """The next sample, None when there is none left."""
        return self._samples.pop(0) if self._samples else None

    def is_ours(self, pid: int) -> bool:
        """Whether the pid was given as ours."""
        return pid in self._ours


class EngineConformance:
    """What every engine must do. Subclass it in a test module as `class TestMyEngine(EngineConformance)`.

    Give `make_engine` and `spec`; set `has_tokenizer` to False for an engine that cannot read text, and
    `served` to True for one that talks to a server: its times are in `Trace.streams`, one a sequence. One
    engine is loaded for the whole class.
    """

    has_tokenizer: ClassVar[bool] = True
    served: ClassVar[bool] = False
    engine: ClassVar[Engine]
    loaded: ClassVar[Loaded]

    @classmethod
    def make_engine(cls) -> Engine:
        """A new engine with nothing loaded."""
        raise NotImplementedError

    @classmethod
    def spec(cls) -> LoadSpec:
        """What to load; small."""
        raise NotImplementedError

    @classmethod
    def setup_class(cls) -> None:
        """Load once for all tests of the class."""
        cls.engine = cls.make_engine()
        cls.loaded = cls.engine.load(cls.spec())

    @classmethod
    def teardown_class(cls) -> None:
        """Give the engine back."""
        cls.engine.close()

    def _needs_tokenizer(self) -> None:
        if not self.has_tokenizer:
            pytest.skip("this engine has no tokenizer")

    def test_loaded_is_a_plain_value(self) -> None:
        """It crosses a process and goes into a record."""
        assert pickle.loads(pickle.dumps(self.loaded)) == self.loaded
        json.dumps(asdict(self.loaded))

    def test_load_names_its_process_and_time(self) -> None:
        """The sentinel watches `pid`; `load_s` is judged."""
        assert self.loaded.load_s >= 0
        assert self.loaded.pid is not None

    @pytest.mark.parametrize(
        ("prompt_tokens", "output_tokens", "batch_size"), [(8, 4, 1), (3, 1, 1), (5, 3, 2)]
    )
    def test_fixed_length(self, prompt_tokens: int, output_tokens: int, batch_size: int) -> None:
        """Performance rounds do exactly the work that was asked."""
        trace = self.engine.run(
            Request(
                prompt_tokens=prompt_tokens,
                output_tokens=output_tokens,
                batch_size=batch_size,
                ignore_eos=True,
            )
        )
        assert (trace.prompt_tokens, trace.output_tokens) == (prompt_tokens, output_tokens)
        assert trace.batch_size == len(trace.texts) == batch_size
        assert trace.finish_reason == "length"
        if self.served:
            assert [stream.output_tokens for stream in trace.streams] == [output_tokens] * batch_size
            assert trace.token_ns == ()
        else:
            assert len(trace.token_ns) == output_tokens

    def test_times_are_since_the_request_and_grow(self) -> None:
        """The first is TTFT; each later one is a later step."""
        trace = self.engine.run(Request(prompt_tokens=8, output_tokens=6, ignore_eos=True))
        times = trace.streams[0].chunk_ms if self.served else trace.token_ns
        assert times[0] > 0
        # several chunks of a server can come in one packet
        assert all(later >= earlier if self.served else later > earlier for earlier, later in pairwise(times))

    def test_greedy_repeats(self) -> None:
        """Equal requests give equal tokens."""
        request = Request(prompt_tokens=8, output_tokens=6, ignore_eos=True, seed=7)
        assert self.engine.run(request).tokens_digest == self.engine.run(request).tokens_digest

    def test_prompt_and_chat_are_read(self) -> None:
        """Text goes in, counted in tokens, and no more comes out than was asked."""
        self._needs_tokenizer()
        for request in (
            Request(prompt="Say hello.", output_tokens=4),
            Request(messages=(Message(role="user", content="Say hello."),), output_tokens=4),
        ):
            trace = self.engine.run(request)
            assert trace.prompt_tokens > 0
            assert 1 <= trace.output_tokens <= 4

    def test_streaming_gives_the_whole_text_in_pieces(self) -> None:
        """The pieces of sequence 0 add up to its text."""
        self._needs_tokenizer()
        pieces: list[str] = []
        trace = self.engine.run(Request(prompt="Say hello.", output_tokens=6, ignore_eos=True), pieces.append)
        assert "".join(pieces) == trace.texts[0]

    def test_counts_tokens(self) -> None:
        """Nothing is no token; more text is more tokens."""
        self._needs_tokenizer()
        assert self.engine.count_tokens("") == 0
        assert 0 < self.engine.count_tokens("one") < self.engine.count_tokens("one two three four")

    @pytest.mark.parametrize("request_", [Request(), Request(prompt="a", prompt_tokens=3)])
    def test_an_ambiguous_request_is_refused_and_harmless(self, request_: Request) -> None:
        """Exactly one kind of prompt; the engine stays usable."""
        with pytest.raises(Misuse):
            self.engine.run(request_)
        assert self.engine.run(Request(prompt_tokens=2, output_tokens=1, ignore_eos=True)).output_tokens == 1

    def test_close_twice_and_before_load(self) -> None:
        """Closing never fails."""
        other = self.make_engine()
        other.close()
        other.close()

    def test_no_run_without_a_model(self) -> None:
        """Before load and after close there is an error of ours, not a crash."""
        other = self.make_engine()
        with pytest.raises(QwenError):
            other.run(Request(prompt_tokens=2, output_tokens=1))
        other.close()
