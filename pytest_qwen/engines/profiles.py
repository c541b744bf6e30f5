"""How tokens may be generated: the optimisation profiles, as a table; no torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizeProfile:
    """How tokens are generated; one row of `PROFILES`.

    `compile_mode` is a mode of torch.compile; "options" compiles with the compiler switches in `inductor`, on
    GPUs only; None does not compile. `cuda_graph` captures the step once and replays it. `attention` and
    `experts` name functions of `fusion` that replace the library's defaults, never an explicit choice.
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
            attention="single_query",
            experts="gathered_gemv",
            inductor=MappingProxyType(
                {
                    "coordinate_descent_tuning": True,
                    "triton.cooperative_reductions": True,
                    "realize_reads_threshold": 1,
                }
            ),
            tf32=True,
        ),
    }
)
