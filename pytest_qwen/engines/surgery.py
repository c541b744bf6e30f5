"""Changes to a loaded model that leave its results as they are: fused projections, decode attention, experts."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS, grouped_mm_experts_forward
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

GROUPED_ATTENTION = "sdpa_grouped"
GATHERED_EXPERTS = "gathered"


def fuse_projections(model: nn.Module) -> int:
    """Join q/k/v and gate/up projections into one matrix each; returns how many were joined.

    One product of N1 + N2 rows reads memory as one long stream; several small ones each pay for a start.
    Works on attention and MLP modules of the Llama form (Qwen2, Qwen3, Mistral, ...); others are left alone.
    """
    fused = 0
    for module in list(model.modules()):
        if _all_linear(module, "q_proj", "k_proj", "v_proj", "o_proj") and hasattr(module, "layer_idx"):
            _join(module, "qkv_proj", ("q_proj", "k_proj", "v_proj"))
            module.forward = MethodType(_attention_forward, module)
            fused += 1
        elif _all_linear(module, "gate_proj", "up_proj", "down_proj") and hasattr(module, "act_fn"):
            _join(module, "gate_up_proj", ("gate_proj", "up_proj"))
            module.forward = MethodType(_mlp_forward, module)
            fused += 1
    return fused


def _all_linear(module: nn.Module, *names: str) -> bool:
    return all(type(getattr(module, name, None)) is nn.Linear for name in names)


def _join(module: nn.Module, joined_name: str, names: tuple[str, ...]) -> None:
    """Replace the named projections by one; the old weights are freed as the new one is made."""
    parts: list[nn.Linear] = [getattr(module, name) for name in names]
    bias = parts[0].bias is not None
    joined = nn.Linear(parts[0].in_features, sum(p.out_features for p in parts), bias=bias, device="meta")
    joined.weight = nn.Parameter(torch.cat([p.weight.detach() for p in parts]), requires_grad=False)
    if bias:
        joined.bias = nn.Parameter(torch.cat([p.bias.detach() for p in parts]), requires_grad=False)
    for name in names:
        delattr(module, name)
    setattr(module, joined_name, joined)


def _mlp_forward(self: Any, x: torch.Tensor) -> torch.Tensor:
    gate, up = self.gate_up_proj(x).chunk(2, dim=-1)
    out: torch.Tensor = self.down_proj(self.act_fn(gate) * up)
    return out


def _attention_forward(
    self: Any,
    hidden_states: torch.Tensor,
    position_embeddings: tuple[torch.Tensor, torch.Tensor],
    attention_mask: torch.Tensor | None = None,
    past_key_values: Any = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The attention of the Llama form with one projection in; norms of queries and keys where it has them."""
    modeling = sys.modules[type(self).__module__]
    batch, length = hidden_states.shape[:2]
    heads = self.config.num_attention_heads
    kv_heads = self.config.num_key_value_heads
    sizes = [heads * self.head_dim, kv_heads * self.head_dim, kv_heads * self.head_dim]
    query, key, value = (
        part.view(batch, length, -1, self.head_dim)
        for part in torch.split(self.qkv_proj(hidden_states), sizes, dim=-1)
    )
    if hasattr(self, "q_norm"):
        query, key = self.q_norm(query), self.k_norm(key)
    query, key, value = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
    query, key = modeling.apply_rotary_pos_emb(query, key, *position_embeddings)
    if past_key_values is not None:
        key, value = past_key_values.update(key, value, self.layer_idx)
    attend = ALL_ATTENTION_FUNCTIONS.get_interface(
        self.config._attn_implementation, modeling.eager_attention_forward
    )
    out, weights = attend(
        self,
        query,
        key,
        value,
        attention_mask,
        dropout=0.0,
        scaling=self.scaling,
        sliding_window=getattr(self, "sliding_window", None),
        **kwargs,
    )
    return self.o_proj(out.reshape(batch, length, -1).contiguous()), weights


def _grouped_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of one new token a sequence with keys and values read once a group; sdpa for anything else.

    Shapes: query [batch, heads, 1, dim], key and value [batch, kv_heads, length, dim]. Repeating the keys for
    every query head, as sdpa with a mask must, moves them heads / kv_heads times.
    """
    groups = getattr(module, "num_key_value_groups", 1)
    if query.shape[2] != 1 or groups == 1:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **kwargs
        )
    batch, heads, _, dim = query.shape
    scale = dim**-0.5 if scaling is None else scaling
    grouped = query.view(batch, heads // groups, groups, dim)
    scores = torch.matmul(grouped, key.transpose(2, 3)) * scale
    if attention_mask is not None:
        hidden = attention_mask[:, :, :, : key.shape[2]]
        if hidden.dtype == torch.bool:
            scores = scores.masked_fill(~hidden, torch.finfo(scores.dtype).min)
        else:
            scores = scores + hidden
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    out = torch.matmul(weights, value)
    return out.view(batch, 1, heads, dim), None


def _gathered_experts(
    self: nn.Module, hidden_states: torch.Tensor, top_k_index: torch.Tensor, top_k_weights: torch.Tensor
) -> torch.Tensor:
    """The experts of one token as two gathered matrix-vector products; grouped products for more tokens.

    Shapes: hidden_states [tokens, hidden], top_k_index and top_k_weights [tokens, k]. Written as multiply and
    sum, so that the compiler reads the chosen rows in place; a gather followed by a product would write them
    out and read them again, three times the traffic.
    """
    if hidden_states.shape[0] != 1 or not getattr(self, "has_gate", True) or getattr(self, "has_bias", False):
        return grouped_mm_experts_forward(self, hidden_states, top_k_index, top_k_weights)
    chosen = top_k_index[0]
    x = hidden_states[0]
    gate_up = (self.gate_up_proj[chosen] * x).sum(-1, dtype=torch.float32).to(x.dtype)
    gate, up = gate_up.chunk(2, dim=-1)
    inner = self.act_fn(gate) * up
    out = (self.down_proj[chosen] * inner[:, None, :]).sum(-1, dtype=torch.float32)
    return (out * top_k_weights[0][:, None]).sum(0, keepdim=True).to(x.dtype)


def register() -> None:
    """Tell transformers the two functions, under the names that a model's configuration can then use."""
    AttentionInterface.register(GROUPED_ATTENTION, _grouped_attention)
    _register_mask()
    ALL_EXPERTS_FUNCTIONS.register(GATHERED_EXPERTS, _gathered_experts)


def _register_mask() -> None:
    """Our attention takes the masks that sdpa takes."""
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

    make: Callable[..., Any] = ALL_MASK_ATTENTION_FUNCTIONS["sdpa"]
    ALL_MASK_ATTENTION_FUNCTIONS.register(GROUPED_ATTENTION, make)
