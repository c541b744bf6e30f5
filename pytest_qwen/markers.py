"""The markers: each declared once as a dataclass from which registration, parsing and help derive."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, ClassVar

import pytest

ATTENTION = ("eager", "sdpa", "flash_attention_2", "flash_attention_3")
DTYPES = ("bfloat16", "float16", "float32")
OPTIMIZE = ("auto", "eager", "static", "compile", "max")
WEIGHTS = ("real", "dummy")
ARRIVALS = ("poisson", "constant")
SPREADS = ("uniform", "lognormal")


def _arg(kind: str, default: Any = None, *, choices: tuple[str, ...] | None = None) -> Any:
    """A marker's argument: `kind` is what `_checked` verifies; a default of MISSING makes it required."""
    metadata = {"kind": kind, "choices": choices}
    return field(metadata=metadata) if default is MISSING else field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class Marker:
    """Base of every marker: its name, the fields that may be given by position, an example."""

    name: ClassVar[str]
    positional: ClassVar[tuple[str, ...]] = ()
    variadic: ClassVar[str | None] = None
    example: ClassVar[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu(Marker):
    """Run only on one of these GPUs; a family name such as "h100" matches every form of it."""

    name: ClassVar[str] = "gpu"
    variadic: ClassVar[str | None] = "names"
    example: ClassVar[str] = '@gpu("l4", "a10g")'
    names: tuple[str, ...] = _arg("names", ())
    count: int = _arg("positive int", 1)
    min_memory_gb: float | None = _arg("positive", None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Model(Marker):
    """Which weights, in which precision, run by which engine; unset arguments come from the outer mark."""

    name: ClassVar[str] = "model"
    positional: ClassVar[tuple[str, ...]] = ("id",)
    example: ClassVar[str] = '@model("Qwen/Qwen2.5-Coder-7B-Instruct", optimize="max")'
    id: str | None = _arg("text")
    revision: str | None = _arg("text")
    dtype: str | None = _arg("choice", choices=DTYPES)
    quantization: str | None = _arg("text")
    kv_cache: str | None = _arg("text")
    attention: str | None = _arg("choice", choices=ATTENTION)
    experts: str | None = _arg("text")
    optimize: str | None = _arg("choice", choices=OPTIMIZE)
    engine: str | None = _arg("text")
    weights: str | None = _arg("choice", choices=WEIGHTS)
    max_model_len: int | None = _arg("positive int")
    tensor_parallel: int | None = _arg("positive int")
    trust_remote_code: bool | None = _arg("flag")
    seed: int | None = _arg("int")
    options: Mapping[str, Any] | None = _arg("mapping")


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload(Marker):
    """What one round asks of the model; used by `llm.measure()` and as defaults of `llm.generate()`.

    With `concurrency` or `request_rate` it is a load on a server, and the other arguments say of what kind.
    """

    name: ClassVar[str] = "workload"
    example: ClassVar[str] = "@workload(prompt_tokens=64, output_tokens=128)"
    prompt_tokens: int | None = _arg("positive int")
    output_tokens: int | None = _arg("positive int")
    batch_size: int | None = _arg("positive int")
    prompt: str | None = _arg("text")
    temperature: float | None = _arg("non-negative")
    top_p: float | None = _arg("share")
    concurrency: int | None = _arg("positive int")
    request_rate: float | None = _arg("positive")
    arrival: str | None = _arg("choice", choices=ARRIVALS)
    requests_per_round: int | None = _arg("positive int")
    prompt_spread: float | None = _arg("ratio")
    output_spread: float | None = _arg("ratio")
    spread: str | None = _arg("choice", choices=SPREADS)
    shared_prefix_tokens: int | None = _arg("positive int")
    turns: int | None = _arg("positive int")
    silence_s: float | None = _arg("positive")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sla(Marker):
    """A named set of bounds; any bound marker on the same test overrides its part."""

    name: ClassVar[str] = "sla"
    positional: ClassVar[tuple[str, ...]] = ("preset",)
    example: ClassVar[str] = '@sla("interactive")'
    preset: str = _arg("text", MISSING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit(Marker):
    """Base of the bound markers: one limit, and the statistic that must meet it."""

    positional: ClassVar[tuple[str, ...]] = ("limit",)
    limit: float = _arg("positive", MISSING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistical(Limit):
    """A limit on what varies from round to round."""

    stat: str = _arg("stat", "median")


@dataclass(frozen=True, slots=True, kw_only=True)
class MinTokensPerSec(Statistical):
    """Decode rate of one request (1000 / TPOT), or with scope="system" all output tokens over wall time."""

    name: ClassVar[str] = "min_tokens_per_sec"
    example: ClassVar[str] = "@min_tokens_per_sec(30)"
    scope: str = _arg("choice", "request", choices=("request", "system"))


@dataclass(frozen=True, slots=True, kw_only=True)
class MinPrefillTokensPerSec(Statistical):
    """Prompt tokens of the batch over the time to first token."""

    name: ClassVar[str] = "min_prefill_tokens_per_sec"
    example: ClassVar[str] = "@min_prefill_tokens_per_sec(2000)"


@dataclass(frozen=True, slots=True, kw_only=True)
class MaxTtft(Statistical):
    """Time to first token in milliseconds."""

    name: ClassVar[str] = "max_ttft"
    example: ClassVar[str] = '@max_ttft(500, stat="p95")'


@dataclass(frozen=True, slots=True, kw_only=True)
class MaxTpot(Statistical):
    """Time per output token in milliseconds: (end-to-end - TTFT) / (output tokens - 1)."""

    name: ClassVar[str] = "max_tpot"
    example: ClassVar[str] = "@max_tpot(25)"


@dataclass(frozen=True, slots=True, kw_only=True)
class MaxItl(Statistical):
    """Gap between neighbouring tokens in milliseconds; a percentile is over the gaps of one round."""

    name: ClassVar[str] = "max_itl"
    example: ClassVar[str] = '@max_itl(40, stat="p99")'


@dataclass(frozen=True, slots=True, kw_only=True)
class MaxE2eLatency(Statistical):
    """Request sent to last token, in milliseconds."""

    name: ClassVar[str] = "max_e2e_latency"
    example: ClassVar[str] = "@max_e2e_latency(4000)"


@dataclass(frozen=True, slots=True, kw_only=True)
class MaxLongestGap(Limit):
    """Longest time in milliseconds that any stream stood still after its first token."""

    name: ClassVar[str] = "max_longest_gap"
    example: ClassVar[str] = "@max_longest_gap(1000)"


@dataclass(frozen=True, slots=True, kw_only=True)
class MaxErrorRate(Limit):
    """Share of a load's requests that failed, 0-1; every test with a load has it at 0 unless it says more."""

    name: ClassVar[str] = "max_error_rate"
    example: ClassVar[str] = "@max_error_rate(0.01)"
    limit: float = _arg("ratio", MISSING)


@dataclass(frozen=True, slots=True, kw_only=True)
class MinGoodput(Statistical):
    """Requests a second that are complete and within their limits (ms): those given, else the test's own."""

    name: ClassVar[str] = "min_goodput"
    example: ClassVar[str] = "@min_goodput(2.5, ttft=500, tpot=40)"
    ttft: float | None = _arg("positive", None)
    tpot: float | None = _arg("positive", None)
    itl: float | None = _arg("positive", None)
    e2e: float | None = _arg("positive", None)


@dataclass(frozen=True, slots=True, kw_only=True)
class MaxStepTime(Statistical):
    """Seconds of one optimiser step of fine-tuning: forward, backward and update."""

    name: ClassVar[str] = "max_step_time"
    example: ClassVar[str] = "@max_step_time(1.5)"


@dataclass(frozen=True, slots=True, kw_only=True)
class MinMbu(Statistical):
    """Model bandwidth utilisation, 0-1: bytes a decode step must read / TPOT / peak bandwidth."""

    name: ClassVar[str] = "min_mbu"
    example: ClassVar[str] = "@min_mbu(0.6)"
    limit: float = _arg("share", MISSING)


@dataclass(frozen=True, slots=True, kw_only=True)
class MinMfu(Statistical):
    """Model FLOP utilisation of the prefill, 0-1: prompt FLOPs / TTFT / peak FLOP/s."""

    name: ClassVar[str] = "min_mfu"
    example: ClassVar[str] = "@min_mfu(0.3)"
    limit: float = _arg("share", MISSING)


@dataclass(frozen=True, slots=True, kw_only=True)
class MaxVram(Limit):
    """Peak device memory of the loaded, running model in GB (1e9 bytes)."""

    name: ClassVar[str] = "max_vram"
    example: ClassVar[str] = "@max_vram(24)"


@dataclass(frozen=True, slots=True, kw_only=True)
class MaxLoadTime(Limit):
    """Seconds from nothing to a model that answers, compilation left out (it is reported as first call)."""

    name: ClassVar[str] = "max_load_time"
    example: ClassVar[str] = "@max_load_time(60)"


@dataclass(frozen=True, slots=True, kw_only=True)
class MaxJoulesPerToken(Statistical):
    """GPU energy of a round over its output tokens, in joules."""

    name: ClassVar[str] = "max_joules_per_token"
    example: ClassVar[str] = "@max_joules_per_token(3)"


@dataclass(frozen=True, slots=True, kw_only=True)
class MaxUsdPerMtok(Statistical):
    """USD for a million output tokens at this workload, from the card's hourly price or the one given."""

    name: ClassVar[str] = "max_usd_per_mtok"
    example: ClassVar[str] = "@max_usd_per_mtok(10, price_per_hour=0.75)"
    price_per_hour: float | None = _arg("positive", None)


@dataclass(frozen=True, slots=True, kw_only=True)
class MaxSlowdown(Limit):
    """TPOT over that of another configuration, interleaved in one session, or over a stored baseline."""

    name: ClassVar[str] = "max_slowdown"
    example: ClassVar[str] = '@max_slowdown(1.05, vs={"optimize": "eager"})'
    vs: Mapping[str, Any] | str = _arg("versus", "baseline")


@dataclass(frozen=True, slots=True, kw_only=True)
class MinStars(Marker):
    """Least stars (0-5) of every answer that the test rates: overall, and of single dimensions."""

    name: ClassVar[str] = "min_stars"
    positional: ClassVar[tuple[str, ...]] = ("overall",)
    example: ClassVar[str] = "@min_stars(4, documentation=3)"
    overall: int | None = _arg("stars")
    profile: str = _arg("choice", "run", choices=("run", "read"))
    correctness: int | None = _arg("stars")
    completeness: int | None = _arg("stars")
    practices: int | None = _arg("stars")
    documentation: int | None = _arg("stars")
    production: int | None = _arg("stars")


@dataclass(frozen=True, slots=True, kw_only=True)
class MinPassAtK(Marker):
    """Least chance that one of k samples is good, estimated without bias from all n that the test rates."""

    name: ClassVar[str] = "min_pass_at_k"
    positional: ClassVar[tuple[str, ...]] = ("limit",)
    example: ClassVar[str] = "@min_pass_at_k(0.5, k=1, stars=4)"
    limit: float = _arg("share", MISSING)
    k: int = _arg("positive int", 1)
    stars: int = _arg("stars", 4)


@dataclass(frozen=True, slots=True, kw_only=True)
class MinAccuracy(Marker):
    """Least share of right answers, 0-1, of a task that the test evaluates (every one of them for None)."""

    name: ClassVar[str] = "min_accuracy"
    positional: ClassVar[tuple[str, ...]] = ("limit",)
    example: ClassVar[str] = '@min_accuracy(0.6, task="mmlu")'
    limit: float = _arg("share", MISSING)
    task: str | None = _arg("text")


@dataclass(frozen=True, slots=True, kw_only=True)
class MaxAccuracyDrop(Marker):
    """Largest drop of the share of right answers, 0-1, below that in another precision or configuration."""

    name: ClassVar[str] = "max_accuracy_drop"
    positional: ClassVar[tuple[str, ...]] = ("limit",)
    example: ClassVar[str] = '@max_accuracy_drop(0.02, vs="bf16")'
    limit: float = _arg("part", MISSING)
    vs: Mapping[str, Any] | str = _arg("precision", "bf16")
    task: str | None = _arg("text")


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedAnswer(Marker):
    """The file with the answer that `rate()` rates, and its scenario, if that is not the first one."""

    name: ClassVar[str] = "answer"
    positional: ClassVar[tuple[str, ...]] = ("path",)
    example: ClassVar[str] = '@answer("answers/todo.md", scenario="fastapi-crud")'
    path: str | None = _arg("text")
    scenario: str | None = _arg("text")


MARKERS: dict[str, type[Marker]] = {
    kind.name: kind
    for kind in (
        Gpu, Model, Workload, Sla,
        MinTokensPerSec, MinPrefillTokensPerSec, MaxTtft, MaxTpot, MaxItl, MaxE2eLatency, MaxStepTime,
        MaxLongestGap, MaxErrorRate, MinGoodput,
        MinMbu, MinMfu, MaxVram, MaxLoadTime, MaxJoulesPerToken, MaxUsdPerMtok, MaxSlowdown,
        MinStars, MinPassAtK, MinAccuracy, MaxAccuracyDrop, RecordedAnswer,
    )
}  # fmt: skip

# Names that other projects use for marks of their own; bare, and without our fixtures, they are not ours.
SHARED_NAMES = frozenset({"gpu", "model", "workload", "sla"})


def usage(kind: type[Marker]) -> str:
    """The marker's signature, as `--markers` shows it: `max_ttft(limit, stat='median')`."""
    parts = [f"*{kind.variadic}"] if kind.variadic else []
    for spec in fields(kind):
        if spec.name != kind.variadic:
            parts.append(spec.name if spec.default is MISSING else f"{spec.name}={spec.default!r}")
    return f"{kind.name}({', '.join(parts)})"


def help_lines() -> list[str]:
    """One line a marker for `pytest --markers`: signature, meaning, example."""
    return [f"{usage(kind)}: {_summary(kind)} Example: {kind.example}" for kind in MARKERS.values()]


def _summary(kind: type[Marker]) -> str:
    return " ".join((kind.__doc__ or "").split())


gpu = pytest.mark.gpu
model = pytest.mark.model
workload = pytest.mark.workload
sla = pytest.mark.sla
min_tokens_per_sec = pytest.mark.min_tokens_per_sec
min_prefill_tokens_per_sec = pytest.mark.min_prefill_tokens_per_sec
max_ttft = pytest.mark.max_ttft
max_tpot = pytest.mark.max_tpot
max_itl = pytest.mark.max_itl
max_e2e_latency = pytest.mark.max_e2e_latency
max_step_time = pytest.mark.max_step_time
max_longest_gap = pytest.mark.max_longest_gap
max_error_rate = pytest.mark.max_error_rate
min_goodput = pytest.mark.min_goodput
min_mbu = pytest.mark.min_mbu
min_mfu = pytest.mark.min_mfu
max_vram = pytest.mark.max_vram
max_load_time = pytest.mark.max_load_time
max_joules_per_token = pytest.mark.max_joules_per_token
max_usd_per_mtok = pytest.mark.max_usd_per_mtok
max_slowdown = pytest.mark.max_slowdown
min_stars = pytest.mark.min_stars
min_pass_at_k = pytest.mark.min_pass_at_k
min_accuracy = pytest.mark.min_accuracy
max_accuracy_drop = pytest.mark.max_accuracy_drop
answer = pytest.mark.answer
