"""What was observed: rounds, the watched window of each, and the measurement that holds them. Pure values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pytest_qwen.streams import Client, Stream


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """What the sentinel saw over exactly one timed window. None means unknown, never "fine".

    `violations` are the reasons for which the window does not count (members of outcomes.NoVerdict).
    """

    seconds: float
    sm_clock_mhz: float | None = None
    sm_clock_max_mhz: float | None = None
    throttle_reasons: tuple[str, ...] = ()
    temperature_c: float | None = None
    power_w: float | None = None
    energy_j: float | None = None
    gpu_utilization_ratio: float | None = None
    memory_used_bytes: int | None = None
    co_tenants: tuple[str, ...] | None = None
    mig: bool | None = None
    host_steal_ratio: float | None = None
    host_busy_ratio: float | None = None
    engine_cpu_ratio: float | None = None
    violations: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, weakref_slot=True)
class Round:
    """One timed run of the workload: what was asked, when tokens came, what was computed from it.

    `token_ms` holds the time of every decode step since the request, first entry = TTFT; one entry a step,
    so with a batch each entry stands for `batch_size` tokens. `metrics` maps a metric's name to its value
    in this round; a metric that could not be computed is absent. `clock` says who took the times. Of the two
    peaks the first is what the engine reserved, the second what its tensors took of it. A round of a server
    has one of `streams` a request in place of `token_ms`; a slice of a load has the `client`'s figures too.
    """

    index: int
    kind: Literal["first_call", "warmup", "round"]
    prompt_tokens: int
    output_tokens: int
    asked_tokens: int
    batch_size: int
    token_ms: tuple[float, ...]
    clock: Literal["cuda-events", "host", "simulated"]
    metrics: Mapping[str, float]
    tokens_digest: str = ""
    peak_memory_bytes: int | None = None
    peak_allocated_bytes: int | None = None
    window: Window | None = None
    violations: tuple[str, ...] = ()
    streams: tuple[Stream, ...] = ()
    client: Client | None = None

    @property
    def clean(self) -> bool:
        """Whether the round may be judged."""
        return self.kind == "round" and not self.violations

    @property
    def seconds(self) -> float:
        """How long it took: a slice of load by its client, else from the request to the last token."""
        if self.client is not None:
            return self.client.seconds
        whole_ms = self.metrics.get("e2e_latency_ms")
        if whole_ms is not None:
            return whole_ms / 1000
        return self.window.seconds if self.window else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """Every round of one workload on one loaded model, and why measuring stopped.

    `observed` holds session facts that no round repeats (vram_gb, allocated_gb, load_time_s; of a load
    full_seconds, full_requests, full_failed, full_output_tokens_per_sec, ramp_seconds and what the server
    told; of a comparison agreement). `stopped` is "decided", "budget" or the text of the fault that ended
    it. `hints` are remarks such as "launch-bound decoding".
    """

    rounds: tuple[Round, ...]
    observed: Mapping[str, float] = field(default_factory=dict)
    stopped: str = "decided"
    seconds: float = 0.0
    hints: tuple[str, ...] = ()

    @property
    def clean_rounds(self) -> tuple[Round, ...]:
        """The rounds that may be judged, in order."""
        return tuple(r for r in self.rounds if r.clean)

    def values(self, metric: str) -> tuple[float, ...]:
        """The metric's value in every clean round that has one."""
        return tuple(r.metrics[metric] for r in self.clean_rounds if metric in r.metrics)
