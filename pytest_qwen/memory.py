"""What fits: the memory plan of one card, line by line."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_qwen.models import DTYPE_BYTES
from pytest_qwen.roofline import Setup

# Driver context, kernels and library workspaces of one card: the published guide's worked budgets take half
# a gigabyte.
CONTEXT_BYTES = 0.5e9
# Engines prefill long prompts in chunks; 8,192 tokens is the largest common default (vLLM's on large cards).
PREFILL_CHUNK_TOKENS = 8192
TIGHT = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """The memory plan of one card: (label, bytes) line by line, the weights first, and their sum.

    The weights are exact, the other lines are estimates.
    """

    lines: tuple[tuple[str, float], ...]
    total_bytes: float
    available_bytes: float

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

    Weights and KV cache are divided evenly over the cards. Activations are what one layer holds while the
    prompts are processed (in chunks of 8,192 tokens), and the logits in 32 bits.
    """
    if setup.memory_bytes is None or not setup.sizes_known:
        return None
    split = f" / {setup.count} cards" if setup.count > 1 else ""
    cached = f"{setup.batch} x {setup.context_tokens} tokens, {setup.shape.kv_heads} KV heads"
    lines = (
        (f"weights ({setup.quantization or setup.dtype}{split})", setup.weights_bytes / setup.count),
        (f"KV cache ({cached}{split})", setup.kv_bytes / setup.count),
        ("activations (one layer of the prefill, logits)", _activation_bytes(setup)),
        ("context and workspaces (assumed)", CONTEXT_BYTES),
    )
    total_bytes = sum(amount for _, amount in lines)
    return Fit(lines=lines, total_bytes=total_bytes, available_bytes=setup.memory_bytes)


def _activation_bytes(setup: Setup) -> float:
    """Residual, normed input and output, projections, and gate and up of the widest MLP, for each token."""
    shape = setup.shape
    tokens = min(setup.prompt_tokens * setup.batch, PREFILL_CHUNK_TOKENS)
    routed = shape.experts_per_token * shape.moe_intermediate + shape.shared_intermediate
    mlp = max(shape.intermediate, routed) if shape.dense_layers or not shape.experts else routed
    attention = (shape.heads + 2 * shape.kv_heads) * shape.head_dim
    per_token = (3 * shape.hidden + attention + 2 * mlp) * DTYPE_BYTES[setup.dtype]
    return tokens * per_token + 4 * setup.batch * shape.vocab
