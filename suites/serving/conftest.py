"""What the serving suites share: the server that this run asks, sizes, and a level of load in figures."""

import importlib.util
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pytest

from pytest_qwen.evidence import Measurement
from pytest_qwen.llm import Llm
from pytest_qwen.mock_server import MockServer
from pytest_qwen.statistics import percentile

MANAGED = ("vllm", "sglang", "llama-cpp", "transformers-serve", "ollama")
GPU_MODEL = "Qwen/Qwen2.5-Coder-7B-Instruct"
CPU_MODEL = "embedded/qwen2-tiny"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How large the suites are. `shares` are those of the measured capacity; lengths are in tokens."""

    users: tuple[int, ...] = (1, 16, 50)
    batches: tuple[int, ...] = (1, 4, 16, 32, 64, 100)
    shares: tuple[float, ...] = (0.25, 0.5, 0.75, 0.9)
    search: tuple[int, int] = (8, 64)
    prompts: tuple[int, ...] = (512, 1024, 2048, 4096, 8192)
    prompt_users: int = 8
    prompt_tokens: int = 256
    output_tokens: int = 64
    prefix_tokens: int = 4096


FULL = Scale()
SMALL = Scale(
    users=(1, 16),
    batches=(1, 4, 16),
    shares=(0.5,),
    search=(2, 4),
    prompts=(16, 256),
    prompt_users=2,
    prompt_tokens=16,
    output_tokens=8,
    prefix_tokens=64,
)
# What stands in for a server where none was named and there is no GPU: it slows down under load, reads
# prompts at a rate, and knows a prefix again, so that every suite has something to find. Its second model
# is the same one, but faster and with another answer; it has no cache, which would be the first one's too.
STAND_IN = {
    "ttft_ms": 6.0,
    "prefill_ms": 0.05,
    "gap_ms": 2.0,
    "slowdown": 0.05,
    "prefix_cache": True,
    "sleep_s": 0.02,
    "wake_s": 0.05,
    "text": "the answer of the model as it was trained",
}
STAND_INS = {"mock": {}, "mock-faster": {"gap_ms": 1.0, "text": "another answer", "prefix_cache": False}}


class NoCleanSliceError(Exception):
    """Nothing of a level could be counted: the client or the machine was the bottleneck."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """One level of load: what was asked, and what came of all requests of its clean slices."""

    what: str
    measured: Measurement
    system_tokens_per_sec: float
    requests_per_sec: float
    ttft_ms: float
    ttft_p99_ms: float
    tpot_ms: float
    longest_gap_ms: float
    failed: int

    @classmethod
    def of(cls, what: str, measured: Measurement) -> "Level":
        """The level's figures. Raises NoCleanSliceError, with the reasons, when no slice counted."""
        if not measured.clean_rounds:
            why = {text for seen in measured.rounds for text in seen.violations}
            raise NoCleanSliceError(f"{what}: no clean slice: {'; '.join(sorted(why))}")
        streams = [one for seen in measured.clean_rounds for one in seen.streams]
        ttfts = [one.ttft_ms for one in streams if one.complete and one.ttft_ms is not None]
        gaps = [one.longest_gap_ms for one in streams if one.longest_gap_ms is not None]
        return cls(
            what=what,
            measured=measured,
            system_tokens_per_sec=percentile(measured.values("output_tokens_per_sec"), 0.5),
            requests_per_sec=percentile(measured.values("requests_per_sec"), 0.5),
            ttft_ms=percentile(ttfts, 0.5),
            ttft_p99_ms=percentile(ttfts, 0.99),
            tpot_ms=percentile(measured.values("tpot_ms"), 0.5),
            longest_gap_ms=max(gaps, default=0.0),
            failed=sum(not one.complete for one in streams),
        )

    def __str__(self) -> str:
        return (
            f"{self.what}: {self.system_tokens_per_sec:.1f} tok/s in all, {self.requests_per_sec:.2f} req/s, "
            f"TTFT {self.ttft_ms:.1f} ms (p99 {self.ttft_p99_ms:.1f}), TPOT {self.tpot_ms:.2f} ms, "
            f"longest gap {self.longest_gap_ms:.1f} ms, {self.failed} failed"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """The server of this run: loaded, with its engine's name and the sizes to ask it for."""

    llm: Llm
    engine: str
    scale: Scale
    record: Callable[[str, object], None]
    known: dict[tuple[object, ...], Level]

    @property
    def full(self) -> bool:
        """Whether the sizes are those of real servers, so that published numbers of users compare."""
        return self.scale is FULL

    @property
    def work(self) -> dict[str, object]:
        """What every request asks for unless a suite varies it."""
        return {"prompt_tokens": self.scale.prompt_tokens, "output_tokens": self.scale.output_tokens}

    def level(self, what: str, **load: object) -> Level:
        """Keep a load up until ten slices are clean, with the arguments of `llm.measure`.

        What an earlier test of the session measured on the same server is not measured again.
        """
        asked = {**self.work, **load}
        place = (self.llm.spec.key, *sorted(asked.items()))
        try:
            found = self.known.get(place) or Level.of(what, self.llm.measure(**asked))
        except NoCleanSliceError as reason:
            pytest.skip(str(reason))
        self.known[place] = found
        self.record(f"qwen.level.{what}", str(found))
        print(found)  # noqa: T201 - the table of this suite; -rP shows it
        return found

    def users(self, count: int) -> Level:
        """A closed loop of so many users."""
        return self.level(f"{count} users", concurrency=count)

    def most_users(self, counts: Sequence[int]) -> list[tuple[int, Level]]:
        """A level for each number of users, up to the first one that the client could not keep up."""
        found: list[tuple[int, Level]] = []
        for count in counts:
            try:
                found.append((count, self.users(count)))
            except pytest.skip.Exception as reason:
                if not found:
                    raise
                self.record("qwen.level.last", str(reason))
                break
        return found


def said(config: pytest.Config, name: str) -> str:
    """What an option or its ini twin says, "" when neither does."""
    return config.getoption(name, default=None) or config.getini(name) or ""


def vllm_is_here() -> bool:
    """Whether vLLM can be started here."""
    return shutil.which("vllm") is not None or importlib.util.find_spec("vllm") is not None


@pytest.fixture(autouse=True)
def _fits_this_card() -> None:
    """In place of the other suites' plan: what is loaded here is known only when the server is asked for."""


@pytest.fixture(scope="session")
def stand_in() -> Iterator[str]:
    """The URL of the shipped mock server."""
    with MockServer(models=STAND_INS, **STAND_IN) as server:
        yield server.url


def leading_to(
    options: Mapping[str, str], *, on_cpu: bool, vllm: bool, stand_in: Callable[[], str]
) -> dict[str, object] | None:
    """The model arguments that lead to the server of a run, from what `said` says; None where there is none.

    `--qwen-endpoint=URL`, or `--qwen-engine=` one that starts a server; else vLLM where there are it and a
    GPU; without a GPU the stand-in.
    """
    engine = options["qwen_engine"]
    if options["qwen_endpoint"] and engine in ("", "endpoint"):
        return {}
    if engine not in MANAGED and on_cpu:
        return {"id": "mock", "engine": "endpoint", "options": {"url": stand_in()}}
    if engine not in MANAGED and not vllm:
        return None
    found: dict[str, object] = {"engine": engine if engine in MANAGED else "vllm"}
    if not options["qwen_model"]:
        found["id"] = CPU_MODEL if on_cpu else GPU_MODEL
    if not on_cpu:  # one start serves every suite, the longest prompts included
        found["max_model_len"] = max(FULL.prompts) + FULL.output_tokens
    return found


@pytest.fixture
def arguments(request: pytest.FixtureRequest, gpu) -> dict[str, object]:
    """The model arguments that lead to the server of this run; skips where there is none."""
    found = leading_to(
        {name: said(request.config, name) for name in ("qwen_engine", "qwen_endpoint", "qwen_model")},
        on_cpu=gpu.is_cpu,
        vllm=vllm_is_here(),
        stand_in=lambda: request.getfixturevalue("stand_in"),
    )
    if found is None:
        pytest.skip("no server to ask: --qwen-endpoint=URL, or vLLM on this machine")
    return found


@pytest.fixture
def scale(request: pytest.FixtureRequest, gpu) -> Scale:
    """Small where the run is for a CPU: `--gpu=cpu`, or no GPU and no endpoint that may have one."""
    remote = said(request.config, "qwen_endpoint") and not gpu.named
    return SMALL if gpu.is_cpu and not remote else FULL


@pytest.fixture(scope="session")
def known() -> dict[tuple[object, ...], Level]:
    """The levels that were measured in this session."""
    return {}


@pytest.fixture
def server(load, arguments, scale, record_property, known) -> Server:
    """The server of this run, ready."""
    llm = load(**arguments)
    return Server(llm=llm, engine=llm.spec.engine, scale=scale, record=record_property, known=known)
