"""The optimisation profiles: what each name turns on. Values only; `decode` applies them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizeProfile:
    """How one token is made.

    - static_cache: keys and values live in tensors of fixed size, so that a step is the same work each time.
    - compile_mode: torch.compile's mode for the step, None for plain PyTorch.
    - cuda_graph: capture the step once and replay it; the host then costs nothing.
    - fuse_projections: query, key and value become one matrix, gate and up another; fewer, larger reads.
    - grouped_attention: at decode, the query heads of a group share one read of their keys and values.
    - gathered_experts: at decode of one token, only the chosen experts' weights are read, inside the product.
    - tf32: let float32 products use TF32; reduced precision sums for 16-bit ones.
    - inductor: options of the compiler.
    """

    static_cache: bool = False
    compile_mode: str | None = None
    cuda_graph: bool = False
    fuse_projections: bool = False
    grouped_attention: bool = False
    gathered_experts: bool = False
    tf32: bool = True
    inductor: Mapping[str, Any] = field(default_factory=dict)


PROFILES: dict[str, OptimizeProfile] = {
    # what `model.generate` does: a growing cache, every kernel launched from Python
    "eager": OptimizeProfile(),
    # the same kernels, recorded once and replayed: measures the card instead of the host
    "static": OptimizeProfile(static_cache=True, cuda_graph=True),
    # the published stacks: torch.compile(mode="reduce-overhead")
    "compile": OptimizeProfile(static_cache=True, compile_mode="reduce-overhead"),
    # everything that was measured to help at batch 1
    "max": OptimizeProfile(
        static_cache=True,
        compile_mode="max-autotune-no-cudagraphs",
        cuda_graph=True,
        fuse_projections=True,
        grouped_attention=True,
        gathered_experts=True,
        # a product with one row becomes a reduction that reads each weight once and fuses with its neighbours
        inductor={"coordinate_descent_tuning": True, "conv_1x1_as_mm": True},
    ),
}
