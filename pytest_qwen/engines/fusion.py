"""Model surgery and kernels for single-token decoding: what lets the compiler read every weight once."""

from __future__ import annotations

import sys
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS, grouped_mm_experts_forward
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION = "single_query"
EXPERTS = "gathered_gemv"

# Up to this many tokens, each reads the experts it chose; beyond, tokens share experts often enough that a
# grouped product, which reads each expert once, moves fewer bytes.
_GATHERED_TOKENS = 4


# Attention blocks of transformers with the call and the layout that FusedAttention has.
_FUSIBLE = ("LlamaAttention", "MistralAttention", "Qwen2Attention", "Qwen3Attention", "Qwen3MoeAttention")


def single_query_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention of one query token as products and sums, which the compiler turns into its own kernels.

    Grouped queries read the shared keys in place; scaled_dot_product_attention with a mask would first copy
    the keys once for each query head. Prompts take the library's kernel.
    """
    if query.shape[2] > 1 or attention_mask is None:
        mixed, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **kwargs
        )
        return mixed, None
    batch, heads, _, width = query.shape
    kv_heads = key.shape[1]
    grouped = query.view(batch, kv_heads, heads // kv_heads, 1, width).float()
    scale = width**-0.5 if scaling is None else scaling
    scores = (grouped * key[:, :, None].float()).sum(-1) * scale
    scores = scores.masked_fill(~attention_mask, float("-inf"))
    shares = scores.softmax(-1)
    mixed = (shares[..., None] * value[:, :, None].float()).sum(-2)
    return mixed.to(query.dtype).view(batch, 1, heads, width), None


def gathered_gemv(
    self: nn.Module, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor
) -> Tensor:
    """Experts of a few tokens as matrix-vector products that index the weights where they lie.

    Compiled, the gather becomes an address computation inside the reduction: the weights of the chosen
    experts are read once and never copied. Many tokens, and layouts other than gate and up stacked over
    each other without bias, take the library's grouped product.
    """
    if hidden_states.shape[0] > _GATHERED_TOKENS or not _is_plain(self):
        return grouped_mm_experts_forward(self, hidden_states, top_k_index, top_k_weights)
    half = self.gate_up_proj.shape[1] // 2
    rows = hidden_states[:, None, None, :]
    gate = (self.gate_up_proj[:, :half][top_k_index] * rows).sum(-1)
    up = (self.gate_up_proj[:, half:][top_k_index] * rows).sum(-1)
    inner = self.act_fn(gate) * up
    out = (self.down_proj[top_k_index] * inner[:, :, None, :]).sum(-1)
    return (out * top_k_weights[:, :, None]).sum(1).to(hidden_states.dtype)


def _is_plain(experts: nn.Module) -> bool:
    """Whether the experts are stored as gate over up, output rows first, without bias."""
    usual = {"has_gate": True, "has_bias": False, "is_transposed": False, "is_concatenated": True}
    return all(getattr(experts, name, value) == value for name, value in usual.items()) and not any(
        getattr(experts, name, False) for name in ("_is_expert_parallel", "has_post_expert_norm")
    )


def blockwise_argmax(logits: Tensor) -> Tensor:
    """The column of each row's maximum, found in two stages, so that a whole GPU searches one long row."""
    width = 128
    if logits.shape[-1] % width:
        return logits.argmax(-1)
    best, inner = logits.view(logits.shape[0], -1, width).max(-1)
    block = best.argmax(-1, keepdim=True)
    return (block * width + inner.gather(1, block))[:, 0]


def register() -> None:
    """Make both functions known to transformers under their names, through its own extension points."""
    AttentionInterface.register(ATTENTION, single_query_attention)
    AttentionMaskInterface.register(ATTENTION, sdpa_mask)
    ALL_EXPERTS_FUNCTIONS.register(EXPERTS, gathered_gemv)


class FusedAttention(nn.Module):  # type: ignore[misc]  # torch is imported without types
    """An attention block whose query, key and value weights are one matrix: one product instead of three.

    Takes the place of the Llama-like blocks of transformers (with or without norms on queries and keys) and
    answers to the same call.
    """

    def __init__(self, block: nn.Module):
        super().__init__()
        self.config, self.layer_idx = block.config, block.layer_idx
        self.head_dim, self.scaling = block.head_dim, block.scaling
        self.num_key_value_groups = block.num_key_value_groups
        self.is_causal = block.is_causal
        self.sliding_window = getattr(block, "sliding_window", None)
        self._eager = sys.modules[type(block).__module__].eager_attention_forward
        self.o_proj = block.o_proj
        self.q_norm, self.k_norm = getattr(block, "q_norm", None), getattr(block, "k_norm", None)
        parts = (block.q_proj, block.k_proj, block.v_proj)
        self.sizes = [part.out_features for part in parts]
        self.qkv_proj = _stacked(parts)
        del block.q_proj, block.k_proj, block.v_proj  # their memory is free before the next layer is fused

    def forward(
        self,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        attention_mask: Tensor | None,
        past_key_values: Any = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """Project, rotate, store, attend, project."""
        lead = hidden_states.shape[:-1]
        parts = self._projected(hidden_states).split(self.sizes, -1)
        query, key, value = (part.view(*lead, -1, self.head_dim) for part in parts)
        if self.q_norm is not None and self.k_norm is not None:
            query, key = self.q_norm(query), self.k_norm(key)
        cos, sin = (part.unsqueeze(2) for part in position_embeddings)
        query, key = (_rotated(part, cos, sin).transpose(1, 2) for part in (query, key))
        value = value.transpose(1, 2)
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, self.layer_idx)
        attend = AttentionInterface().get_interface(self.config._attn_implementation, self._eager)
        mixed, shares = attend(
            self,
            query,
            key,
            value,
            attention_mask,
            scaling=self.scaling,
            sliding_window=self.sliding_window,
            **kwargs,
        )
        return self.o_proj(mixed.reshape(*lead, -1)), shares

    def _projected(self, hidden_states: Tensor) -> Tensor:
        """The stacked product; its bias is added apart, since the compiler only opens up bare products."""
        if type(self.qkv_proj) is not nn.Linear:  # quantised by a library: only the layer knows how
            return self.qkv_proj(hidden_states)
        product = functional.linear(hidden_states, self.qkv_proj.weight)
        return product if self.qkv_proj.bias is None else product + self.qkv_proj.bias


def _rotated(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding in the half-split layout of the Llama family (arXiv 2104.09864)."""
    left, right = heads.chunk(2, -1)
    return heads * cos + torch.cat((-right, left), -1) * sin


def _stacked(parts: tuple[nn.Linear, ...]) -> nn.Linear:
    """One linear layer whose outputs are those of the parts, one after the other."""
    first = parts[0]
    fused = nn.Linear(
        first.in_features, sum(part.out_features for part in parts), first.bias is not None, device="meta"
    )
    fused.weight = _joined([part.weight for part in parts])
    if first.bias is not None:
        fused.bias = _joined([part.bias for part in parts])
    return fused


def _joined(tensors: list[Tensor]) -> nn.Parameter:
    return nn.Parameter(torch.cat(tensors), requires_grad=False)


def _is_fusible(module: nn.Module) -> bool:
    """Whether a module is an attention block of the known form with unquantised projections."""
    return type(module).__name__ in _FUSIBLE and all(
        _is_unquantised(getattr(module, name, None)) for name in ("q_proj", "k_proj", "v_proj")
    )


def _is_unquantised(layer: Any) -> bool:
    """Quantised layers are subclasses, or hold a tensor subclass; neither can be stacked."""
    return type(layer) is nn.Linear and type(layer.weight.data) is Tensor


def fuse_projections(model: nn.Module) -> int:
    """Give every attention block of a known form one projection for query, key and value; returns how many
    have one now.

    Gate and up stay apart: at one token the compiler already reads them in one kernel that ends with the
    activation, which a single stacked product would split.
    """
    found = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if _is_fusible(child)
    ]
    for parent, name, child in found:
        setattr(parent, name, FusedAttention(child))
    return sum(isinstance(module, FusedAttention) for module in model.modules())


def _sorted_router(self: nn.Module, hidden_states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A softmax router that picks its experts by sorting, which compiles into one kernel; topk does not."""
    logits = functional.linear(hidden_states.reshape(-1, self.hidden_dim), self.weight)
    shares, order = logits.softmax(-1, dtype=torch.float).sort(-1, descending=True)
    chosen, index = shares[:, : self.top_k], order[:, : self.top_k]
    if self.norm_topk_prob:
        chosen = chosen / chosen.sum(-1, keepdim=True)
    return logits, chosen.to(logits.dtype), index


def has_experts(model: nn.Module) -> bool:
    """Whether any layer holds its experts' weights stacked, which is what experts functions work on."""
    return any(isinstance(getattr(module, "gate_up_proj", None), nn.Parameter) for module in model.modules())


def sort_routers(model: nn.Module) -> int:
    """Replace the choice in softmax routers of the known form; returns how many."""
    found = [m for m in model.modules() if type(m).__name__ in ("Qwen3MoeTopKRouter", "Qwen2MoeTopKRouter")]
    for router in found:
        router.forward = MethodType(_sorted_router, router)
    return len(found)
