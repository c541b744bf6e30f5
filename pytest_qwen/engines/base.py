"""The Engine protocol: what runs a model, what it is asked, and what it answers. Values only."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol, cast

from pytest_qwen.errors import Unavailable, explain
from pytest_qwen.streams import Client, Load, LoadSummary, Stream


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadSpec:
    """Everything that decides what is loaded; two tests with equal specs share one load.

    `options` are engine-specific extras (for the fake engine: its programme), as sorted pairs so that the
    spec stays hashable.
    """

    engine: str
    model: str
    device: str = "cpu"
    revision: str | None = None
    dtype: str = "bfloat16"
    quantization: str | None = None
    kv_cache: str | None = None
    attention: str = "sdpa"
    experts: str | None = None
    optimize: str = "eager"
    weights: Literal["real", "dummy"] = "real"
    max_model_len: int | None = None
    max_batch: int = 1
    tensor_parallel: int = 1
    trust_remote_code: bool = False
    seed: int = 0
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def key(self) -> str:
        """A short stable name of this spec, equal for equal specs in any process."""
        text = json.dumps(asdict(self), sort_keys=True, default=str)
        return f"{self.model}@{hashlib.sha256(text.encode()).hexdigest()[:8]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One chat message."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One round's work: a batch of equal requests.

    Exactly one of `prompt`, `messages` and `prompt_tokens` is set; `prompt_tokens` asks for that many
    random tokens drawn from `seed`. `ignore_eos` fixes the output length (performance rounds).
    `temperature` 0 is greedy. An answer ends after the first of `stop` that it holds. `template` False gives
    a `prompt` to an instruct model as it is, without its chat template. With `load` the engine keeps many
    such requests going, and one run is one slice of them; only engines that talk to a server can.
    """

    prompt: str | None = None
    messages: tuple[Message, ...] | None = None
    prompt_tokens: int | None = None
    output_tokens: int = 128
    batch_size: int = 1
    ignore_eos: bool = False
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    template: bool = True
    load: Load | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A context and what may follow it, as token ids; neither is empty."""

    context: tuple[int, ...]
    continuation: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Likelihood:
    """How likely a model holds a continuation: the sum of its tokens' log-probabilities (natural logarithm),
    and whether each of them is the one that greedy decoding would choose."""

    log_probability: float
    greedy: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """What one request did.

    `token_ns` has one entry a decode step: nanoseconds from the request to that step's token being ready;
    the first is TTFT. `output_tokens` counts per sequence (equal for the whole batch). `texts` holds one
    answer a sequence, "" where the model has no tokenizer. `clock` says who took the times.
    `peak_memory_bytes` is what the allocator reserved at most (on a CPU: resident memory of the process),
    `peak_allocated_bytes` what this run's tensors held at most; None where unknown. What a server answered
    is in `streams`, one a request, and then `token_ns` is empty; `client` is there for a slice of a load.
    """

    prompt_tokens: int
    output_tokens: int
    batch_size: int
    token_ns: tuple[int, ...]
    texts: tuple[str, ...]
    finish_reason: Literal["stop", "length"]
    tokens_digest: str
    clock: Literal["cuda-events", "host", "simulated"]
    peak_memory_bytes: int | None = None
    peak_allocated_bytes: int | None = None
    streams: tuple[Stream, ...] = ()
    client: Client | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What a load gave: seconds, bytes on the device, what was really applied, versions.

    `first_call_s` is compilation, graph capture and the first pass, kept apart from `load_s`.
    `config` is the model's own configuration as a plain mapping, None when the engine has none.
    `copy_bytes_per_sec` and `read_bytes_per_sec` are the device's bandwidths as measured at load.
    """

    load_s: float
    first_call_s: float | None = None
    weights_bytes: int | None = None
    device_memory_bytes: int | None = None
    device_name: str | None = None
    applied: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, Any] | None = None
    tokenizer: str | None = None
    copy_bytes_per_sec: float | None = None
    read_bytes_per_sec: float | None = None
    pid: int | None = None


class Engine(Protocol):
    """What runs a model. An engine is made for one spec, loaded once, run many times, closed once.

    Errors: ModelUnusable (not found, corrupt), Unavailable (package or hardware missing), DoesNotFit (out
    of memory), EngineFault (anything after which it must not be used again).
    """

    def load(self, spec: LoadSpec) -> Loaded:
        """Load the model; called once, first."""

    def run(self, request: Request, on_token: Callable[[str], None] | None = None) -> Trace:
        """Do one request; `on_token` gets each new piece of text of sequence 0 as it is ready."""

    def count_tokens(self, text: str) -> int:
        """Tokens of `text` under the model's tokenizer."""

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of `text` as it is; needed where accuracy is measured, like `score`."""

    def score(self, pairs: Sequence[Pair]) -> tuple[Likelihood, ...]:
        """How likely each continuation is after its context. Raises Misuse for more than the model reads."""

    def rest(self) -> LoadSummary | None:
        """End what goes on between runs: a load that was kept up. None when there was none."""

    def close(self) -> None:
        """Give everything back; safe to call twice and after a fault."""


class Sleeping(Protocol):
    """What an engine with a sleep mode can do besides."""

    def sleep(self, level: int = 1) -> float:
        """Give the device's memory back and stay; seconds that it took.

        Level 1 keeps the weights in the host's memory, level 2 drops them.
        """

    def wake(self) -> float:
        """Take the memory again; seconds until it can answer."""


def sleeping(engine: Engine) -> Sleeping:
    """The engine as one that sleeps. Raises Unavailable for one that has no such mode."""
    if not hasattr(engine, "sleep"):
        raise Unavailable(
            explain(
                "this engine has no sleep mode",
                asked="llm.sleep() or llm.wake()",
                next_step='one that has: @model(..., engine="vllm", options={"sleep": True})',
            )
        )
    return cast(Sleeping, engine)
