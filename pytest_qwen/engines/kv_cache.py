"""KV caches in fewer bits: keys and values are stored as codes, and widened again when they are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer, StaticLayer


@dataclass(frozen=True, slots=True, kw_only=True)
class Coding:
    """How vectors of one head become codes: `encode` gives codes and scales, `decode` the vectors again.

    `width` maps a head's width to that of its codes. Without `scaled` there are no scales.
    """

    dtype: torch.dtype
    scaled: bool
    width: Callable[[int], int]
    encode: Callable[[Tensor], tuple[Tensor, Tensor | None]]
    decode: Callable[[Tensor, Tensor | None, torch.dtype], Tensor]


def _encode_fp8(states: Tensor) -> tuple[Tensor, None]:
    limit = torch.finfo(torch.float8_e4m3fn).max
    return states.clamp(-limit, limit).to(torch.float8_e4m3fn), None


def _decode_fp8(codes: Tensor, _scales: Tensor | None, dtype: torch.dtype) -> Tensor:
    return codes.to(dtype)


def _scales_of(states: Tensor, top: int) -> Tensor:
    """One scale a vector: its largest absolute value over the largest code."""
    return (states.abs().amax(-1, keepdim=True) / top).clamp(min=1e-6).to(states.dtype)


def _encode_int8(states: Tensor) -> tuple[Tensor, Tensor]:
    scales = _scales_of(states, 127)
    return (states / scales).round().clamp(-127, 127).to(torch.int8), scales


def _decode_int8(codes: Tensor, scales: Tensor | None, dtype: torch.dtype) -> Tensor:
    if scales is None:
        raise ValueError("int8 codes come with scales")
    return codes.to(dtype).mul_(scales)  # in place: a second copy of a layer can be what does not fit


def _encode_int4(states: Tensor) -> tuple[Tensor, Tensor]:
    """Two codes a byte: the first half of the vector in the low bits, the second in the high ones."""
    scales = _scales_of(states, 7)
    codes = ((states / scales).round().clamp(-7, 7) + 8).to(torch.uint8)
    low, high = codes.chunk(2, -1)
    return low | (high << 4), scales


def _decode_int4(codes: Tensor, scales: Tensor | None, dtype: torch.dtype) -> Tensor:
    if scales is None:
        raise ValueError("int4 codes come with scales")
    return torch.cat((codes & 15, codes >> 4), -1).to(dtype).sub_(8).mul_(scales)


# fp8 has the range of keys and values without scales, as serving engines use it; integers have a scale a
# vector.
CODINGS: dict[str, Coding] = {
    "fp8": Coding(
        dtype=torch.float8_e4m3fn, scaled=False, width=lambda w: w, encode=_encode_fp8, decode=_decode_fp8
    ),
    "int8": Coding(
        dtype=torch.int8, scaled=True, width=lambda w: w, encode=_encode_int8, decode=_decode_int8
    ),
    "int4": Coding(
        dtype=torch.uint8, scaled=True, width=lambda w: w // 2, encode=_encode_int4, decode=_decode_int4
    ),
}


class Store:
    """Keys or values of one layer, of fixed length, as codes."""

    def __init__(self, coding: Coding, like: Tensor, length: int):
        batch, heads, _, width = like.shape
        self._coding, self._dtype = coding, like.dtype
        # float8 has no index_copy_: its bytes are written instead
        self._codes = torch.zeros(
            batch, heads, length, coding.width(width), dtype=coding.dtype, device=like.device
        )
        self._scales = like.new_zeros(batch, heads, length, 1) if coding.scaled else None
        for tensor in (self._codes, self._scales):
            if tensor is not None:
                torch._dynamo.mark_static_address(tensor)

    def put(self, states: Tensor, columns: Tensor) -> None:
        """Write at these columns."""
        codes, scales = self._coding.encode(states)
        self._codes.view(torch.uint8).index_copy_(2, columns, codes.view(torch.uint8))
        if self._scales is not None and scales is not None:
            self._scales.index_copy_(2, columns, scales)

    def get(self) -> Tensor:
        """All of it, widened."""
        return self._coding.decode(self._codes, self._scales, self._dtype)


class QuantizedDynamicLayer(DynamicLayer):  # type: ignore[misc]  # transformers comes without types
    """A growing cache layer of codes."""

    def __init__(self, coding: Coding):
        super().__init__()
        self._coding = coding
        self._scales: list[Tensor | None] = [None, None]

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Store what is new; give back everything, widened."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.keys = self.values = None
        self.keys, keys = self._grown(0, self.keys, key_states)
        self.values, values = self._grown(1, self.values, value_states)
        return keys, values

    def _grown(self, part: int, codes: Tensor | None, states: Tensor) -> tuple[Tensor, Tensor]:
        new, scales = self._coding.encode(states)
        if codes is not None:
            new = torch.cat((codes.view(torch.uint8), new.view(torch.uint8)), -2).view(self._coding.dtype)
            old = self._scales[part]
            scales = scales if old is None or scales is None else torch.cat((old, scales), -2)
        self._scales[part] = scales
        return new, self._coding.decode(new, scales, states.dtype)


class QuantizedStaticLayer(StaticLayer):  # type: ignore[misc]
    """A cache layer of codes of fixed length that counts for itself, like the library's."""

    def __init__(self, max_cache_len: int, coding: Coding):
        super().__init__(max_cache_len=max_cache_len)
        self._coding = coding
        self.cumulative_length: Tensor
        self._stores: tuple[Store, Store] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Store what is new; give back the whole length, widened."""
        keys, values = self._stores or self._allocated(key_states, value_states)
        columns = torch.arange(key_states.shape[-2], device=key_states.device) + self.cumulative_length
        self.cumulative_length.add_(key_states.shape[-2])
        keys.put(key_states, columns)
        values.put(value_states, columns)
        return keys.get(), values.get()

    def _allocated(self, key_states: Tensor, value_states: Tensor) -> tuple[Store, Store]:
        self.dtype, self.device = key_states.dtype, key_states.device
        self.cumulative_length = self.cumulative_length.to(self.device)
        torch._dynamo.mark_static_address(self.cumulative_length)
        length = self.max_cache_len
        self._stores = (
            Store(self._coding, key_states, length),
            Store(self._coding, value_states, length),
        )
        self.is_initialized = True
        return self._stores

    def reset(self) -> None:
        """Forget; what lies beyond the count is masked."""
        if self.is_initialized:
            self.cumulative_length.zero_()
