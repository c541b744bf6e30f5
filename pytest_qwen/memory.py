"""What fits: the memory plan of one card, line by line."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_qwen.models import DTYPE_BYTES
from pytest_qwen.roofline import Setup

# Driver context, loaded kernels and what libraries take past the allocator; measured on an H200 with CUDA 13:
# 0.65 GB once CUDA is up, 0.73 after a model ran. Cards with fewer multiprocessors take less.
CONTEXT_BYTES = 0.7e9
# The matrix library's workspace of a Hopper card, which it takes through the allocator; 8 MiB on others.
_WORKSPACE_BYTES = 32 * 2**20
TIGHT = 0.9
# How many times a layer's keys exist in the model's format while codes are widened: the keys and the values,
# and where two codes share a byte, those of the values apart, in half the bytes.
_WIDENED_KV = {"fp8": 2.0, "int8": 2.0, "int4": 2.5}
# Bytes a weight while a layer's weights are widened to be multiplied with a prompt: in the model's 16 bits,
# and for fp8 twice in 32 bits before that (measured on an H200 with torchao 0.18 and bitsandbytes 0.50).
_WIDENED_WEIGHT_BYTES = {"int8": 2, "nf4": 2, "fp8": 10}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """The memory plan of one card: (label, bytes) line by line, the weights first, and their sum.

    The weights are exact, the other lines are estimates. `allocated_bytes` leaves out the last line, the
    context, and is what an engine's allocator holds at its peak.
    """

    lines: tuple[tuple[str, float], ...]
    total_bytes: float
    available_bytes: float

    @property
    def allocated_bytes(self) -> float:
        """What the tensors take at their peak."""
        return self.total_bytes - self.lines[-1][1]

    @property
    def fits(self) -> bool:
        """Whether the plan is within the card's memory."""
        return self.total_bytes <= self.available_bytes

    @property
    def tight(self) -> bool:
        """Whether it fits, but takes more than 90 % of the memory."""
        return self.fits and self.total_bytes > TIGHT * self.available_bytes

    @property
    def hopeless(self) -> bool:
        """Whether the weights alone exceed the card's memory."""
        return self.lines[0][1] > self.available_bytes

    def explain(self, title: str) -> str:
        """The plan as text, one line an item, under a title."""
        rows = [*self.lines, ("needed", self.total_bytes), ("available", self.available_bytes)]
        return "\n".join([title, *(f"  {amount / 1e9:.2f} GB: {label}" for label, amount in rows)])


def fit(setup: Setup) -> Fit | None:
    """The memory plan of one card; None where the card's memory or a number format's size is unknown.

    Weights and KV cache are divided evenly over the cards. Activations are the most that is alive at once
    while the prompts are processed.
    """
    if setup.memory_bytes is None or not setup.sizes_known:
        return None
    split = f" / {setup.count} cards" if setup.count > 1 else ""
    cached = f"{setup.batch} x {setup.cached_tokens} tokens, {setup.shape.kv_heads} KV heads"
    in_bits = "" if setup.kv_dtype is None else f" in {setup.kv_dtype}"
    lines = (
        (f"weights ({setup.quantization or setup.dtype}{split})", setup.weights_bytes / setup.count),
        (f"KV cache{in_bits} ({cached}{split})", setup.kv_bytes / setup.count),
        ("activations (one layer of the prefill, logits)", activation_bytes(setup)),
        ("workspace of the matrix library", _WORKSPACE_BYTES),
        _beside_tensors(setup),
    )
    total_bytes = sum(amount for _, amount in lines)
    return Fit(lines=lines, total_bytes=total_bytes, available_bytes=setup.memory_bytes)


def _beside_tensors(setup: Setup) -> tuple[str, float]:
    """What no tensor of ours takes. A captured step keeps the room that it widens in for itself."""
    captured = 0.0 if setup.reserved_tokens is None else _widened_bytes(setup)
    if captured:
        return "context, kernels and the memory of CUDA graphs (assumed)", CONTEXT_BYTES + captured
    return "context and kernels (assumed)", CONTEXT_BYTES


def activation_bytes(setup: Setup) -> float:
    """The most that is alive at once beside weights and cache.

    While a layer's MLP works: the embeddings, the residual, the layer's input and its norm, and three
    tensors of the MLP's width (the activated gate, the other half, their product). While attention works:
    three of the residual's width, the projections, the keys and values widened to all heads, and, with
    eager attention, the scores of every pair of tokens of every head (see `Setup.score_bytes`). Quantised
    weights of the widest layer are widened while it works. At the end: logits of the last token of each
    sequence in the model's format and in 32 bits. Where the cache grows, what the answer adds to it comes
    after all that.
    """
    shape, size = setup.shape, DTYPE_BYTES[setup.dtype]
    tokens = setup.prompt_tokens * setup.batch
    if setup.chunk_tokens is not None:
        tokens = min(tokens, setup.chunk_tokens)
    attention = (3 * shape.hidden + (3 * shape.heads + 2 * shape.kv_heads) * shape.head_dim) * size * tokens
    mlp = (4 * shape.hidden + _mlp_width(setup)) * size * tokens
    logits = setup.batch * shape.vocab * (size + 4)
    widened = shape.hidden * shape.intermediate * _WIDENED_WEIGHT_BYTES.get(setup.quantization or "", 0)
    prefill = max(mlp + widened, attention + setup.score_bytes)
    return max(prefill - setup.growing_bytes, _widened_bytes(setup)) + logits


def _mlp_width(setup: Setup) -> int:
    """Numbers a token that the widest MLP holds beside the residual stream."""
    shape = setup.shape
    # each of a token's experts has its own copy of the input and of the output
    routed = shape.experts_per_token * (3 * shape.moe_intermediate + 2 * shape.hidden)
    routed += 3 * shape.shared_intermediate
    return max(3 * shape.intermediate, routed) if shape.dense_layers or not shape.experts else routed


def _widened_bytes(setup: Setup) -> float:
    """Keys and values of one layer in the model's format, where the cache holds them in fewer bits."""
    kept = _WIDENED_KV.get(setup.kv_dtype or "", 0.0) if setup.widens_kv else 0.0
    each = setup.shape.kv_heads * setup.shape.head_dim * DTYPE_BYTES[setup.dtype]
    return kept * each * setup.cached_tokens * setup.batch
