"""Named sets of bounds that somebody has published, each with its source."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_qwen.markers import Limit, MaxE2eLatency, MaxTpot, MaxTtft, MinTokensPerSec

_MLPERF = "MLPerf Inference rules, github.com/mlcommons/inference_policies, inference_rules.adoc (July 2026)"
_GUIDELLM = (
    "GuideLLM, Service Level Objectives, github.com/vllm-project/guidellm, "
    "docs/guides/service_level_objectives.md (2026)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """Bounds that hold together, what they are for, and who says so."""

    limits: tuple[Limit, ...]
    meant_for: str
    source: str


def _mlperf(model: str, scenario: str, ttft_ms: float, tpot_ms: float) -> Preset:
    """MLPerf holds the 99th percentile of both to its limits, with requests arriving by a Poisson process."""
    return Preset(
        limits=(MaxTtft(limit=ttft_ms, stat="p99"), MaxTpot(limit=tpot_ms, stat="p99")),
        meant_for=f"{model}, {scenario} scenario",
        source=_MLPERF,
    )


def _guidellm(
    use: str, *, ttft_ms: float | None = None, tpot_ms: float | None = None, e2e_ms: float | None = None
) -> Preset:
    """Limits of 99 % of the requests; its inter-token latency is a request's mean, which is TPOT here."""
    limits: list[Limit] = []
    if ttft_ms is not None:
        limits.append(MaxTtft(limit=ttft_ms, stat="p99"))
    if tpot_ms is not None:
        limits.append(MaxTpot(limit=tpot_ms, stat="p99"))
    if e2e_ms is not None:
        limits.append(MaxE2eLatency(limit=e2e_ms, stat="p99"))
    return Preset(limits=tuple(limits), meant_for=use, source=_GUIDELLM)


PRESETS: dict[str, Preset] = {
    "interactive": Preset(
        limits=(MaxTtft(limit=500.0), MinTokensPerSec(limit=30.0)),
        meant_for="real-time applications",
        source="the published GPU guide: answers begin within 500 ms at 30 tokens a second",
    ),
    "chat": _guidellm("chat applications", ttft_ms=200.0, tpot_ms=50.0),
    "rag": _guidellm("retrieval-augmented generation", ttft_ms=300.0, tpot_ms=100.0, e2e_ms=3000.0),
    "agent": _guidellm("instruction following, agents", e2e_ms=5000.0),
    "content-generation": _guidellm("content generation", ttft_ms=600.0, tpot_ms=200.0),
    "code-generation": _guidellm("code generation", ttft_ms=500.0, tpot_ms=150.0),
    "code-completion": _guidellm("code completion in an editor", e2e_ms=2000.0),
    "mlperf-server": _mlperf("Llama 2 70B", "server", 2000.0, 200.0),
    "mlperf-interactive": _mlperf("Llama 2 70B", "interactive", 450.0, 40.0),
    "mlperf-server-8b": _mlperf("Llama 3.1 8B", "server", 2000.0, 100.0),
    "mlperf-interactive-8b": _mlperf("Llama 3.1 8B", "interactive", 500.0, 30.0),
    "mlperf-server-405b": _mlperf("Llama 3.1 405B", "server", 6000.0, 175.0),
    "mlperf-interactive-405b": _mlperf("Llama 3.1 405B", "interactive", 4500.0, 80.0),
    "mlperf-server-deepseek-r1": _mlperf("DeepSeek-R1", "server", 2000.0, 80.0),
    "mlperf-interactive-deepseek-r1": _mlperf("DeepSeek-R1", "interactive", 1500.0, 15.0),
    "mlperf-server-gpt-oss-120b": _mlperf("GPT-OSS 120B", "server", 3000.0, 80.0),
    "mlperf-interactive-gpt-oss-120b": _mlperf("GPT-OSS 120B", "interactive", 2000.0, 20.0),
}
