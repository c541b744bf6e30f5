"""Sessions: the state of one batch size while it decodes, and how its next step is made."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel, StaticCache
from transformers.cache_utils import Cache, StaticLayer

from pytest_qwen.engines import fusion
from pytest_qwen.engines.kv_cache import CODINGS, Coding, QuantizedDynamicLayer, QuantizedStaticLayer, Store
from pytest_qwen.engines.profiles import OptimizeProfile

# Rounds of one workload have one prompt length; a few more serve a mixed session.
_PREFILL_GRAPHS = 8
# The first step compiles, the second is free of one-time work.
_WARM_UP_STEPS = 3


class Session:
    """The state of one batch size: the tokens so far, the column of the newest, the newest logits."""

    def __init__(
        self,
        model: PreTrainedModel,
        profile: OptimizeProfile,
        batch: int,
        max_len: int,
        applied: list[str],
        kv_cache: str | None = None,
    ):
        self.model, self.profile, self.applied = model, profile, applied
        self.coding = None if kv_cache is None else CODINGS[kv_cache]
        self.tokens = torch.zeros(batch, max_len, dtype=torch.long, device=model.device)
        self.logits = torch.empty(0)

    def start(self, input_ids: Tensor) -> None:
        """Prefill, and choose the first token greedily."""
        raise NotImplementedError

    def advance(self) -> None:
        """One step: the next token of every sequence, chosen greedily."""
        raise NotImplementedError

    def end(self) -> None:
        """Give back what the next prompt has no use for; the tokens stay."""


class DynamicSession(Session):
    """What a user of the library gets: a growing cache and Python dispatch of every kernel."""

    column = 0
    cache: Cache | None = None

    def start(self, input_ids: Tensor) -> None:
        """Prefill into a new cache."""
        self.cache = DynamicCache(config=self.model.config)
        if self.coding is not None:
            layers = self.model.config.get_text_config().num_hidden_layers
            self.cache.layers = [QuantizedDynamicLayer(self.coding) for _ in range(layers)]
        self.column = input_ids.shape[1]
        self.tokens[:, : self.column] = input_ids
        self._forward(self.tokens[:, : self.column])

    def advance(self) -> None:
        """One forward pass of the newest token."""
        self.column += 1
        self._forward(self.tokens[:, self.column - 1 : self.column])

    def end(self) -> None:
        """Drop the cache: kept, it would count as memory of whatever runs next."""
        self.cache = None

    def _forward(self, ids: Tensor) -> None:
        out = self.model(input_ids=ids, past_key_values=self.cache, use_cache=True, logits_to_keep=1)
        self.logits = out.logits[:, -1]
        self.tokens[:, self.column] = self.logits.argmax(-1)


class _SharedPositionLayer(StaticLayer):  # type: ignore[misc]  # transformers comes without types
    """A static cache layer that reads its write position from one tensor shared by all layers.

    The library's layer counts for itself, which costs a kernel a layer and hides from the compiler that all
    layers write at the same place.
    """

    def __init__(self, max_cache_len: int, position: Tensor, columns: Tensor, coding: Coding | None = None):
        super().__init__(max_cache_len=max_cache_len)
        self.position, self.columns, self.coding = position, columns, coding
        self.stores: tuple[Store, Store] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Store; a single token attends to the whole cache, a prompt to itself."""
        if self.coding is not None:
            return self._update_codes(key_states, value_states, self.coding)
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

    def _update_codes(
        self, key_states: Tensor, value_states: Tensor, coding: Coding
    ) -> tuple[Tensor, Tensor]:
        """The same with codes, which the compiler widens inside the product that reads them."""
        if self.stores is None:
            length = self.max_cache_len
            self.stores = (Store(coding, key_states, length), Store(coding, value_states, length))
            self.is_initialized = True
        keys, values = self.stores
        length = key_states.shape[-2]
        at = self.position if length == 1 else self.columns[:length]
        keys.put(key_states, at)
        values.put(value_states, at)
        return (key_states, value_states) if length > 1 else (keys.get(), values.get())

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """A prompt needs no mask beyond causality; single tokens bring their own."""
        return query_length, 0

    def get_seq_length(self) -> int:
        """Prompts start at 0; single tokens bring their own positions."""
        return 0

    def reset(self) -> None:
        """Nothing: what lies beyond the position is masked."""


class StaticSession(Session):
    """A cache of fixed size and a step over fixed addresses, compiled and captured as the profile says."""

    def __init__(
        self,
        model: PreTrainedModel,
        profile: OptimizeProfile,
        batch: int,
        max_len: int,
        applied: list[str],
        kv_cache: str | None = None,
    ):
        super().__init__(model, profile, batch, max_len, applied, kv_cache)
        text, on = model.config.get_text_config(), model.device
        self.on_gpu = on.type == "cuda"
        self.position = torch.zeros(1, dtype=torch.long, device=on)
        self.columns = torch.arange(max_len, device=on)
        self.logits = torch.zeros(batch, text.vocab_size, dtype=model.dtype, device=on)
        self.cache = StaticCache(config=model.config, max_cache_len=max_len)
        self.shared = model.config._attn_implementation == fusion.ATTENTION and all(
            type(layer) is StaticLayer for layer in self.cache.layers
        )
        if self.shared:
            self.cache.layers = [
                _SharedPositionLayer(max_len, self.position, self.columns, self.coding)
                for _ in self.cache.layers
            ]
        elif self.coding is not None:
            self.cache.layers = [QuantizedStaticLayer(max_len, self.coding) for _ in self.cache.layers]
        for tensor in (self.position, self.tokens, self.logits, self.columns):
            torch._dynamo.mark_static_address(tensor)
        self.step: Callable[[], None] | None = None
        self.pool = torch.cuda.graph_pool_handle() if self.on_gpu else None
        self.seen: set[int] = set()
        self.prefills: OrderedDict[int, Callable[[], None]] = OrderedDict()

    def start(self, input_ids: Tensor) -> None:
        """Prefill; the first time, make the step first."""
        if self.step is None:
            self._read(input_ids.shape[1])  # the cache takes its place in memory
            self.step = self._made()
        length = input_ids.shape[1]
        self.tokens[:, :length] = input_ids
        self._prefill(length)()

    def advance(self) -> None:
        """One step."""
        if self.step is None:
            raise RuntimeError("advance() before start()")
        self.step()

    def _prefill(self, length: int) -> Callable[[], None]:
        """What reads a prompt of this length; a length met again is captured, and later rounds replay it."""

        def read() -> None:
            self._read(length)

        if length not in self.prefills and length in self.seen and self.profile.cuda_graph:
            self.prefills[length] = self._captured(read, "repeated prompts")
            if len(self.prefills) > _PREFILL_GRAPHS:
                self.prefills.popitem(last=False)
        self.seen.add(length)
        return self.prefills.get(length, read)

    def _read(self, length: int) -> None:
        self._rewind()
        out = self.model(
            input_ids=self.tokens[:, :length],
            position_ids=self.columns[None, :length],
            attention_mask=self._mask() if length == 1 else None,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self.logits.copy_(out.logits[:, -1])
        self.tokens[:, length] = fusion.blockwise_argmax(self.logits)
        self.position.fill_(length)

    def _rewind(self) -> None:
        self.cache.reset()
        self.position.zero_()

    def _mask(self) -> Tensor | None:
        """Which columns the newest token sees; None where the library's cache counts for itself."""
        return (self.columns <= self.position)[None, None, None] if self.shared else None

    def _step(self) -> None:
        """Token at the position in, token at the next position out; all state in tensors of fixed address."""
        out = self.model(
            input_ids=self.tokens.index_select(1, self.position),
            position_ids=self.position[None],
            attention_mask=self._mask(),
            past_key_values=self.cache,
            use_cache=True,
        )
        logits = out.logits[:, -1]
        self.logits.copy_(logits)
        self.position.add_(1)
        self.tokens.index_copy_(1, self.position, fusion.blockwise_argmax(logits)[:, None])

    def _made(self) -> Callable[[], None]:
        """The step as the profile wants it, warmed up."""
        step = self._compiled() or self._step
        if not self.on_gpu and self.profile.cuda_graph:
            self._note("steps as they are: this profile compiles and captures on GPUs only")
        for _ in range(_WARM_UP_STEPS):
            self._rewind()
            step()
        return self._captured(step, "step") if self.profile.cuda_graph else step

    def _compiled(self) -> Callable[[], None] | None:
        """The step compiled, or None where the profile does not ask for it or it cannot be done."""
        mode = self.profile.compile_mode
        if mode is None or (mode == "options" and not self.on_gpu):
            return None
        how = {"options": dict(self.profile.inductor)} if mode == "options" else {"mode": mode}
        compiled = torch.compile(self._step, fullgraph=True, dynamic=False, **how)
        step = cast(Callable[[], None], compiled)
        try:
            self._rewind()
            step()
        except torch._dynamo.exc.TorchDynamoException as error:
            self._note(f"not compiled: {_first_line(error)}")
            return None
        self._note(f"step compiled (torch.compile, {mode})")
        return step

    def _captured(self, work: Callable[[], None], name: str) -> Callable[[], None]:
        """Work that has run before as a CUDA graph, or as it is where it cannot be captured."""
        if not self.on_gpu:
            return work
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=self.pool):
                work()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # a host synchronisation inside, for one
            self._note(f"{name} not captured: {_first_line(error)}")
            return work
        self._note(f"{name} replayed as a CUDA graph")
        return cast(Callable[[], None], graph.replay)

    def _note(self, text: str) -> None:
        if text not in self.applied:
            self.applied.append(text)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
