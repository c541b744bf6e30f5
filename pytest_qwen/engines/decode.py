"""The decode loop: prefill once, then one step per token, each step marked by a device event."""

from __future__ import annotations

import os
import shutil
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, DynamicCache, PreTrainedModel, StaticCache
from transformers.cache_utils import Cache, StaticLayer

from pytest_qwen.engines import fusion


# Rounds of one workload have one prompt length; a few more serve a mixed session.
_PREFILL_GRAPHS = 8
# The first step compiles, the second is free of one-time work.
_WARM_UP_STEPS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizeProfile:
    """How tokens are generated; one row of `PROFILES`.

    `compile_mode` is a mode of torch.compile, "options" compiles with `inductor` alone, None does not compile.
    `cuda_graph` captures the step once and replays it. `attention` and `experts` replace the library's
    defaults, never an explicit choice.
    """

    cache: Literal["dynamic", "static"]
    compile_mode: str | None = None
    cuda_graph: bool = False
    fuse_projections: bool = False
    sort_routers: bool = False
    attention: str | None = None
    experts: str | None = None
    inductor: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    tf32: bool = False
    allocator: str | None = None


PROFILES: Mapping[str, OptimizeProfile] = MappingProxyType(
    {
        "eager": OptimizeProfile(cache="dynamic"),
        "static": OptimizeProfile(cache="static", cuda_graph=True),
        "compile": OptimizeProfile(cache="static", compile_mode="reduce-overhead"),
        "max": OptimizeProfile(
            cache="static",
            compile_mode="options",
            cuda_graph=True,
            fuse_projections=True,
            sort_routers=True,
            attention=fusion.ATTENTION,
            experts=fusion.EXPERTS,
            inductor=MappingProxyType(
                {
                    "coordinate_descent_tuning": True,
                    "triton.cooperative_reductions": True,
                    "realize_reads_threshold": 1,
                }
            ),
            tf32=True,
            allocator="expandable_segments:True",
        ),
    }
)


def apply_flags(profile: OptimizeProfile) -> None:
    """Set the process-wide switches of a profile; before the first allocation on the device."""
    if profile.allocator:
        os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", profile.allocator)
    if profile.tf32:
        torch.set_float32_matmul_precision("high")


def build_model(
    config: Any,
    *,
    dtype: torch.dtype,
    device: torch.device | str,
    attention: str = "sdpa",
    experts: str | None = None,
    weights: str = "dummy",
    seed: int = 0,
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> PreTrainedModel:
    """A model ready to decode.

    "dummy" weights are drawn on the device itself, by the model's own initialiser (norms 1, biases 0, the rest
    normal): 61 GB take about a second and no file is read. Anything else is a folder or a hub name, of which
    only safetensors files are read.
    """
    fusion.register()
    choices: dict[str, Any] = {"dtype": dtype, "attn_implementation": attention}
    if experts is not None:
        choices["experts_implementation"] = experts
    if weights != "dummy":
        model = AutoModelForCausalLM.from_pretrained(
            weights,
            config=config,
            revision=revision,
            trust_remote_code=trust_remote_code,
            use_safetensors=True,
            device_map={"": device},
            **choices,
        )
        return model.eval().requires_grad_(False)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code, **choices)
    model.to_empty(device=device)
    torch.manual_seed(seed)
    model.init_weights()
    return model.eval().requires_grad_(False)


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeResult:
    """Tokens of a batch, and when each step's tokens were ready, in ns since the start (the first is TTFT)."""

    token_ids: Tensor
    token_ns: tuple[int, ...]


class Decoder:
    """Generates with one model under one profile; `applied` says in words what was really done."""

    def __init__(
        self,
        model: PreTrainedModel,
        profile: OptimizeProfile,
        max_batch: int = 1,
        max_len: int = 2048,
        experts: str | None = None,
    ):
        self.applied: list[str] = []
        self._model, self._profile = model, profile
        self._max_batch, self._max_len = max_batch, max_len
        self._device = model.device
        self._sessions: dict[int, _Session] = {}
        self._operate(experts)

    def _operate(self, experts: str | None) -> None:
        """Change the model as the profile asks, and take note of what was done."""
        model, profile, note = self._model, self._profile, self.applied.append
        note(f"{profile.cache} cache")
        if profile.fuse_projections and (count := fusion.fuse_projections(model)):
            note(f"query, key and value projections fused in {count} layers")
        if profile.sort_routers and (count := fusion.sort_routers(model)):
            note(f"experts chosen by a sort in {count} routers")
        if profile.attention and model.config._attn_implementation == "sdpa":
            model.set_attn_implementation(profile.attention)
            note(f"attention {profile.attention} for one token, sdpa for prompts")
        if profile.experts and experts is None and getattr(model.config, "num_experts", 0):
            model.set_experts_implementation(profile.experts)
            note(f"experts {profile.experts}")

    def prepare(self) -> float:
        """Compile and capture for the largest batch; returns the seconds of the first call."""
        started = time.perf_counter()
        prompt = torch.zeros(self._max_batch, 4, dtype=torch.long)
        self.run(prompt, 3)
        return time.perf_counter() - started

    def run(
        self,
        input_ids: Tensor,
        n_out: int,
        *,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        eos_ids: Sequence[int] | None = None,
        on_token: Callable[[int], None] | None = None,
    ) -> DecodeResult:
        """Generate `n_out` tokens for each row of `input_ids`, all of one length."""
        batch, n_in = input_ids.shape
        if n_in + n_out > self._max_len:
            raise ValueError(f"{n_in} + {n_out} tokens do not fit into {self._max_len}")
        session = self._session(batch)
        pick = _sampler(temperature, top_p, seed, self._device)
        ended = torch.zeros(batch, dtype=torch.bool, device=self._device)
        clock = _clock(self._device, n_out)
        done = 0
        with torch.no_grad():
            for done in range(1, n_out + 1):
                if done == 1:
                    session.start(input_ids)
                else:
                    session.advance()
                if pick is not None:
                    session.tokens[:, n_in + done - 1] = pick(session.logits)
                clock.mark()
                if on_token is not None:
                    on_token(int(session.tokens[0, n_in + done - 1]))
                if eos_ids:
                    latest = session.tokens[:, n_in + done - 1]
                    ended |= torch.isin(latest, torch.tensor(eos_ids, device=self._device))
                    if bool(ended.all()):
                        break
        return DecodeResult(
            token_ns=clock.read(), token_ids=session.tokens[:, n_in : n_in + done].cpu()
        )

    def _session(self, batch: int) -> _Session:
        if batch not in self._sessions:
            kind = _DynamicSession if self._profile.cache == "dynamic" else _StaticSession
            self._sessions[batch] = kind(self._model, self._profile, batch, self._max_len, self.applied)
        return self._sessions[batch]


class _Session:
    """The state of one batch size: the tokens so far, the column of the newest, the newest logits."""

    def __init__(
        self, model: PreTrainedModel, profile: OptimizeProfile, batch: int, max_len: int, applied: list[str]
    ):
        self.model, self.profile, self.applied = model, profile, applied
        self.tokens = torch.zeros(batch, max_len, dtype=torch.long, device=model.device)
        self.logits = torch.empty(0)

    def start(self, input_ids: Tensor) -> None:
        """Prefill, and choose the first token greedily."""
        raise NotImplementedError

    def advance(self) -> None:
        """One step: the next token of every sequence, chosen greedily."""
        raise NotImplementedError


class _DynamicSession(_Session):
    """What a user of the library gets: a growing cache and Python dispatch of every kernel."""

    column = 0
    cache: Cache

    def start(self, input_ids: Tensor) -> None:
        """Prefill into a new cache."""
        self.cache = DynamicCache(config=self.model.config)
        self.column = input_ids.shape[1]
        self.tokens[:, : self.column] = input_ids
        self._forward(self.tokens[:, : self.column])

    def advance(self) -> None:
        """One forward pass of the newest token."""
        self.column += 1
        self._forward(self.tokens[:, self.column - 1 : self.column])

    def _forward(self, ids: Tensor) -> None:
        out = self.model(input_ids=ids, past_key_values=self.cache, use_cache=True, logits_to_keep=1)
        self.logits = out.logits[:, -1]
        self.tokens[:, self.column] = self.logits.argmax(-1)


class _SharedPositionLayer(StaticLayer):
    """A static cache layer that reads its write position from one tensor shared by all layers.

    The library's layer counts for itself, which costs a kernel a layer and hides from the compiler that all
    layers write at the same place.
    """

    def __init__(self, max_cache_len: int, position: Tensor):
        super().__init__(max_cache_len=max_cache_len)
        self.position = position

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Store; a single token attends to the whole cache, a prompt to itself."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        length = key_states.shape[-2]
        if length > 1:
            self.keys[:, :, :length].copy_(key_states)
            self.values[:, :, :length].copy_(value_states)
            return key_states, value_states
        self.keys.index_copy_(2, self.position, key_states)
        self.values.index_copy_(2, self.position, value_states)
        return self.keys, self.values

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """A prompt needs no mask beyond causality; single tokens bring their own."""
        return query_length, 0

    def get_seq_length(self) -> int:
        """Prompts start at 0; single tokens bring their own positions."""
        return 0

    def reset(self) -> None:
        """Nothing: what lies beyond the position is masked."""


class _StaticSession(_Session):
    """A cache of fixed size, a step over fixed addresses, compiled and captured as the profile says."""

    def __init__(
        self, model: PreTrainedModel, profile: OptimizeProfile, batch: int, max_len: int, applied: list[str]
    ):
        super().__init__(model, profile, batch, max_len, applied)
        device = model.device
        self.position = torch.zeros(1, dtype=torch.long, device=device)
        self.columns = torch.arange(max_len, device=device)
        self.logits = torch.zeros(batch, model.config.get_text_config().vocab_size, dtype=model.dtype, device=device)
        self.cache = StaticCache(config=model.config, max_cache_len=max_len)
        self.shared = profile.attention is not None and all(type(x) is StaticLayer for x in self.cache.layers)
        if self.shared:
            self.cache.layers = [_SharedPositionLayer(max_len, self.position) for _ in self.cache.layers]
        for tensor in (self.position, self.tokens, self.logits, self.columns):
            torch._dynamo.mark_static_address(tensor)
        self.replay: Callable[[], None] | None = None
        self.seen: set[int] = set()
        self.prefills: OrderedDict[int, Callable[[], None]] = OrderedDict()

    def start(self, input_ids: Tensor) -> None:
        """Prefill into the emptied cache; the first time, compile and capture the step after it."""
        self._prefill(input_ids)
        if self.replay is None:
            self.replay = self._made()
            self._prefill(input_ids)

    def advance(self) -> None:
        """One step."""
        assert self.replay is not None
        self.replay()

    def _prefill(self, input_ids: Tensor) -> None:
        """Read the prompt; a length met again is captured, so that rounds of one length replay it."""
        length = input_ids.shape[1]
        self.tokens[:, :length] = input_ids
        run = self.prefills.get(length)
        if run is None and length in self.seen and self._captures:
            run = self.prefills[length] = _captured(lambda: self._read(length))
            if len(self.prefills) > _PREFILL_GRAPHS:
                self.prefills.popitem(last=False)
        self.seen.add(length)
        (run or (lambda: self._read(length)))()

    def _read(self, length: int) -> None:
        self.cache.reset()
        self.position.zero_()
        mask = self._mask() if length == 1 else None
        out = self.model(
            input_ids=self.tokens[:, :length],
            position_ids=self.columns[None, :length],
            attention_mask=mask,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self.logits.copy_(out.logits[:, -1])
        self.tokens[:, length] = self.logits.argmax(-1)
        self.position.fill_(length)

    def _mask(self) -> Tensor | None:
        """Which columns the newest token sees; None where the library's cache counts for itself."""
        return (self.columns <= self.position)[None, None, None] if self.shared else None

    def _step(self) -> None:
        token = self.tokens.index_select(1, self.position)
        out = self.model(
            input_ids=token,
            position_ids=self.position[None],
            attention_mask=self._mask(),
            past_key_values=self.cache,
            use_cache=True,
        )
        logits = out.logits[:, -1]
        self.logits.copy_(logits)
        self.position.add_(1)
        self.tokens.index_copy_(1, self.position, fusion.blockwise_argmax(logits)[:, None])

    @property
    def _captures(self) -> bool:
        return self.profile.cuda_graph and self.model.device.type == "cuda"

    def _made(self) -> Callable[[], None]:
        """The step as the profile wants it, warmed up; it leaves position and newest tokens undefined."""
        mode, options = self.profile.compile_mode, dict(self.profile.inductor)
        step: Callable[[], None] = self._step
        if mode == "options" and self.model.device.type == "cuda":
            step = torch.compile(step, fullgraph=True, dynamic=False, options=options)
        elif mode not in (None, "options"):
            step = torch.compile(step, fullgraph=True, dynamic=False, mode=mode)
        for _ in range(_WARM_UP_STEPS):
            step()
        return _captured(step) if self._captures else step


def _captured(work: Callable[[], None]) -> Callable[[], None]:
    """A CUDA graph of work that has run before; capturing runs nothing."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


class _EventClock:
    """One event a step on the device's own clock, read after one synchronise at the end."""

    def __init__(self, count: int):
        self._events = [torch.cuda.Event(enable_timing=True) for _ in range(count + 1)]
        self._used = 0
        self.mark()

    def mark(self) -> None:
        """Record the next event."""
        self._events[self._used].record()
        self._used += 1

    def read(self) -> tuple[int, ...]:
        """Nanoseconds from the first mark to each later one."""
        begin, *marks = self._events[: self._used]
        marks[-1].synchronize()
        return tuple(round(begin.elapsed_time(mark) * 1e6) for mark in marks)


class _HostClock:
    """The host's clock, for devices that work while they are called."""

    def __init__(self) -> None:
        self._marks = [time.perf_counter_ns()]

    def mark(self) -> None:
        """Note the time."""
        self._marks.append(time.perf_counter_ns())

    def read(self) -> tuple[int, ...]:
        """Nanoseconds from the start to each mark."""
        begin, *marks = self._marks
        return tuple(mark - begin for mark in marks)


def _clock(device: torch.device, count: int) -> _EventClock | _HostClock:
    return _EventClock(count) if device.type == "cuda" else _HostClock()


def _sampler(
    temperature: float, top_p: float, seed: int, device: torch.device
) -> Callable[[Tensor], Tensor] | None:
    """A function from logits to tokens; None for greedy choice, which the step makes itself."""
    if temperature == 0:
        return None
    generator = torch.Generator(device).manual_seed(seed)

    def pick(logits: Tensor) -> Tensor:
        shares, order = (logits.float() / temperature).softmax(-1).sort(-1, descending=True)
        shares[shares.cumsum(-1) - shares > top_p] = 0  # the first token that crosses top_p stays
        return order.gather(1, torch.multinomial(shares, 1, generator=generator))[:, 0]

    return pick
