"""From a test's request, the settings and the target to what is loaded: every default in one place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from pytest_qwen.ask import RunRequest
from pytest_qwen.engines.base import LoadSpec, Request
from pytest_qwen.errors import Misuse, explain
from pytest_qwen.gpus import GpuSpec
from pytest_qwen.markers import Model, Workload
from pytest_qwen.settings import Settings
from pytest_qwen.target import Target

# Room for prompt and answer of every test that asks for no more: one load serves them all.
DEFAULT_MODEL_LEN = 2048
DEFAULT_PROMPT_TOKENS = 64
DEFAULT_OUTPUT_TOKENS = 128
_EMBEDDED = "embedded/"
_AMPERE, _HOPPER = (8, 0), (9, 0)


def default_optimize(spec: GpuSpec | None) -> str:
    """The optimisation profile that `optimize="auto"` means on a card.

    Turing: half precision and a static cache, no compiler. Ampere and Ada: the compiled step of the
    published stacks. Hopper and later: everything. A CPU, or a card of unknown make: as transformers runs it.
    """
    capability = _capability(spec)
    if capability is None:
        return "eager"
    if capability < _AMPERE:
        return "static"
    return "max" if capability >= _HOPPER else "compile"


def _capability(spec: GpuSpec | None) -> tuple[int, int] | None:
    """The compute capability as numbers: "9.0" → (9, 0)."""
    if spec is None or spec.compute_capability is None:
        return None
    major, _, minor = spec.compute_capability.partition(".")
    return int(major), int(minor or 0)


def default_dtype(target: Target) -> str:
    """float32 on a CPU, float16 on a card without bfloat16, else bfloat16."""
    if target.is_cpu:
        return "float32"
    capability = _capability(target.spec)
    return "float16" if capability is not None and capability < _AMPERE else "bfloat16"


def load_spec(
    request: RunRequest, settings: Settings, target: Target, overrides: Mapping[str, Any] | None = None
) -> LoadSpec:
    """What a test loads. `overrides` are model arguments that win over the marks.

    Raises Misuse when no mark and no option names a model.
    """
    asked = _Asked(request.model, overrides or {})
    model = asked("id") or settings.model
    engine = asked("engine") or settings.engine
    if model is None and engine != "fake":
        raise Misuse(
            explain(
                "the test loads a model, but nothing says which",
                slip="the test lacks a model mark",
                next_step='add @model("Qwen/Qwen2.5-Coder-7B-Instruct"), or give --qwen-model=ID',
            )
        )
    model = model or "fake"
    weights = "dummy" if model.startswith(_EMBEDDED) else asked("weights") or settings.weights
    optimize = asked("optimize") or "auto"
    return LoadSpec(
        engine=engine,
        model=model,
        device=_device(target),
        revision=asked("revision"),
        dtype=asked("dtype") or default_dtype(target),
        quantization=asked("quantization"),
        kv_cache=asked("kv_cache"),
        attention=asked("attention") or "sdpa",
        experts=asked("experts"),
        optimize=default_optimize(target.spec) if optimize == "auto" else optimize,
        weights=cast("Literal['real', 'dummy']", weights),
        max_model_len=asked("max_model_len") or _needed_len(request.workload),
        max_batch=request.workload.batch_size or 1,
        tensor_parallel=asked("tensor_parallel") or 1,
        trust_remote_code=bool(asked("trust_remote_code")),
        seed=asked("seed") or 0,
        options=tuple(sorted((asked("options") or {}).items())),
    )


def workload_request(workload: Workload) -> Request:
    """The round that `llm.measure()` repeats: random prompt of fixed length, fixed output length."""
    tokens = None if workload.prompt is not None else workload.prompt_tokens or DEFAULT_PROMPT_TOKENS
    return Request(
        prompt=workload.prompt,
        prompt_tokens=tokens,
        output_tokens=workload.output_tokens or DEFAULT_OUTPUT_TOKENS,
        batch_size=workload.batch_size or 1,
        ignore_eos=True,
        temperature=workload.temperature or 0.0,
        top_p=workload.top_p or 1.0,
    )


@dataclass(frozen=True, slots=True)
class _Asked:
    """A model argument by name: the override, else the mark's."""

    model: Model
    overrides: Mapping[str, Any]

    def __call__(self, name: str) -> Any:
        return self.overrides.get(name, getattr(self.model, name))


def _device(target: Target) -> str:
    return "cpu" if target.is_cpu else "cuda"


def _needed_len(workload: Workload) -> int:
    """The default, or the next power of two that holds prompt and answer."""
    needed = (workload.prompt_tokens or 0) + (workload.output_tokens or 0)
    length = DEFAULT_MODEL_LEN
    while length < needed:
        length *= 2
    return length
