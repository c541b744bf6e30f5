"""pytest-qwen: tests that pass or fail for a reason on an LLM's speed, size, cost and quality.

`from pytest_qwen import gpu, model, min_tokens_per_sec` gives the same marks as `pytest.mark.gpu` and so on.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_qwen.markers import (
        answer,
        gpu,
        max_accuracy_drop,
        max_e2e_latency,
        max_error_rate,
        max_itl,
        max_joules_per_token,
        max_load_time,
        max_longest_gap,
        max_slowdown,
        max_step_time,
        max_tpot,
        max_ttft,
        max_usd_per_mtok,
        max_vram,
        min_accuracy,
        min_goodput,
        min_mbu,
        min_mfu,
        min_pass_at_k,
        min_prefill_tokens_per_sec,
        min_stars,
        min_tokens_per_sec,
        model,
        sla,
        workload,
    )

__all__ = [
    "answer",
    "gpu",
    "max_accuracy_drop",
    "max_e2e_latency",
    "max_error_rate",
    "max_itl",
    "max_joules_per_token",
    "max_load_time",
    "max_longest_gap",
    "max_slowdown",
    "max_step_time",
    "max_tpot",
    "max_ttft",
    "max_usd_per_mtok",
    "max_vram",
    "min_accuracy",
    "min_goodput",
    "min_mbu",
    "min_mfu",
    "min_pass_at_k",
    "min_prefill_tokens_per_sec",
    "min_stars",
    "min_tokens_per_sec",
    "model",
    "sla",
    "workload",
]
__version__ = "0.1.0"

# The names alone, for what must not import what they mean.
MARK_NAMES = frozenset(__all__)


def __getattr__(name: str) -> Any:
    """Marks are imported on first use, so that an engine's child process never imports pytest."""
    if name in MARK_NAMES:
        return getattr(import_module("pytest_qwen.markers"), name)
    raise AttributeError(
        f"module 'pytest_qwen' has no attribute {name!r}; its marks: {', '.join(sorted(MARK_NAMES))}"
    )
