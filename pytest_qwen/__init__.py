"""pytest-qwen: tests that pass or fail for a reason on an LLM's speed, size, cost and quality.

`from pytest_qwen import gpu, model, min_tokens_per_sec` gives the same marks as `pytest.mark.gpu` and so on.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_qwen.markers import (
        gpu as gpu,
    )
    from pytest_qwen.markers import (
        max_e2e_latency as max_e2e_latency,
    )
    from pytest_qwen.markers import (
        max_itl as max_itl,
    )
    from pytest_qwen.markers import (
        max_joules_per_token as max_joules_per_token,
    )
    from pytest_qwen.markers import (
        max_load_time as max_load_time,
    )
    from pytest_qwen.markers import (
        max_slowdown as max_slowdown,
    )
    from pytest_qwen.markers import (
        max_tpot as max_tpot,
    )
    from pytest_qwen.markers import (
        max_ttft as max_ttft,
    )
    from pytest_qwen.markers import (
        max_usd_per_mtok as max_usd_per_mtok,
    )
    from pytest_qwen.markers import (
        max_vram as max_vram,
    )
    from pytest_qwen.markers import (
        min_mbu as min_mbu,
    )
    from pytest_qwen.markers import (
        min_mfu as min_mfu,
    )
    from pytest_qwen.markers import (
        min_prefill_tokens_per_sec as min_prefill_tokens_per_sec,
    )
    from pytest_qwen.markers import (
        min_tokens_per_sec as min_tokens_per_sec,
    )
    from pytest_qwen.markers import (
        model as model,
    )
    from pytest_qwen.markers import (
        sla as sla,
    )
    from pytest_qwen.markers import (
        workload as workload,
    )

__version__ = "0.1.0"

# The names alone, for what must not import what they mean.
MARK_NAMES = frozenset(
    {
        "gpu", "model", "workload", "sla",
        "min_tokens_per_sec", "min_prefill_tokens_per_sec",
        "max_ttft", "max_tpot", "max_itl", "max_e2e_latency",
        "min_mbu", "min_mfu", "max_vram", "max_load_time",
        "max_joules_per_token", "max_usd_per_mtok", "max_slowdown",
    }
)  # fmt: skip


def __getattr__(name: str) -> Any:
    """Marks are imported on first use, so that an engine's child process never imports pytest."""
    if name in MARK_NAMES:
        return getattr(import_module("pytest_qwen.markers"), name)
    raise AttributeError(
        f"module 'pytest_qwen' has no attribute {name!r}; its marks: {', '.join(sorted(MARK_NAMES))}"
    )
