"""From a test's request, the settings and the target to what is loaded: every default in one place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, cast

from pytest_qwen.ask import RunRequest
from pytest_qwen.engines import ENDPOINT, SERVED_MODEL, TRAINING, engine_names
from pytest_qwen.engines.base import LoadSpec, Request
from pytest_qwen.errors import Misuse, explain
from pytest_qwen.gpus import GpuSpec
from pytest_qwen.markers import Model, Workload
from pytest_qwen.parsing import parse_arguments
from pytest_qwen.settings import Settings
from pytest_qwen.streams import Load
from pytest_qwen.target import Target
from pytest_qwen.workloads import check_workload

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
    if model is None and engine == ENDPOINT:
        model = SERVED_MODEL
    if model is None and engine != "fake":
        raise Misuse(
            explain(
                "the test loads a model, but nothing says which",
                slip="the test lacks a model mark",
                next_step='add @model("Qwen/Qwen2.5-Coder-7B-Instruct"), or give --qwen-model=ID',
            )
        )
    model = model or "fake"
    check_load(engine, workload_load(request.workload))
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
        options=_options(engine, settings, asked("options") or {}),
    )


def _options(engine: str, settings: Settings, given: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """The engine's extras; an endpoint's address and the name of its key's variable come from options."""
    if engine == ENDPOINT and settings.endpoint is not None:
        given = {"url": settings.endpoint, "key_env": settings.api_key_env, **given}
    return tuple(sorted(given.items()))


def workload_request(workload: Workload) -> Request:
    """The round that `llm.measure()` repeats: random prompt and answer of fixed length; or a load of such."""
    tokens = None if workload.prompt is not None else workload.prompt_tokens or DEFAULT_PROMPT_TOKENS
    return Request(
        prompt=workload.prompt,
        prompt_tokens=tokens,
        output_tokens=workload.output_tokens or DEFAULT_OUTPUT_TOKENS,
        batch_size=workload.batch_size or 1,
        ignore_eos=True,
        temperature=workload.temperature or 0.0,
        top_p=workload.top_p or 1.0,
        load=workload_load(workload),
    )


def workload_load(workload: Workload) -> Load | None:
    """The load that a workload asks for, None for one batch at a time.

    A slice holds a request of each user of a closed loop, unless the mark says how many.
    """
    if workload.concurrency is None and workload.request_rate is None:
        return None
    given = {
        "slice_requests": workload.requests_per_round or workload.concurrency or 1,
        **{name: value for name in _LOAD_FIELDS if (value := getattr(workload, name)) is not None},
    }
    return Load(**given)


# Of a load, as a workload names them too.
_LOAD_FIELDS = tuple(f.name for f in fields(Load) if f.name != "slice_requests")
LOAD_ARGUMENTS = frozenset({*_LOAD_FIELDS, "requests_per_round"})


def load_of(workload: Workload, given: Mapping[str, Any]) -> Load | None:
    """The load that a call asks for: its arguments, checked as the mark's are, over the workload's.

    Raises Misuse for what no mark could ask for.
    """
    mark = parse_arguments("workload", given)
    given = {name: getattr(mark, name) for name in given}
    others = {"concurrency": "request_rate", "request_rate": "concurrency"}
    dropped = {others[name]: None for name in given if name in others}
    return workload_load(check_workload(replace(workload, **{**dropped, **given})))


def check_load(engine: str, load: Load | None) -> None:
    """Raises Misuse for a load on an engine that runs in our own process tree and knows no other requests."""
    if load is None or engine not in _ONE_AT_A_TIME:
        return
    raise Misuse(
        explain(
            f"engine {engine!r} answers one batch at a time: it cannot be put under a load",
            asked=" and ".join(
                f"{name}={value}"
                for name in ("concurrency", "request_rate")
                if (value := getattr(load, name)) is not None
            ),
            slip="batch_size=N runs N sequences at once in one batch",
            next_step="name an engine that serves: @model(..., engine=...), or --qwen-endpoint=URL",
            choices=[name for name in engine_names() if name not in _ONE_AT_A_TIME],
        )
    )


_ONE_AT_A_TIME = frozenset({"transformers", TRAINING})


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
