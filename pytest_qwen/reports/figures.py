"""What every report says of a record in the same words: figures, labels and totals."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from pytest_qwen.bounds import Bound
from pytest_qwen.engines import ENDPOINT
from pytest_qwen.engines.servers import SERVERS
from pytest_qwen.evidence import Round
from pytest_qwen.outcomes import Outcome
from pytest_qwen.records import RunRecord
from pytest_qwen.streaming import longest_gap_ms
from pytest_qwen.verdicts import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """The plain figures of one record: medians of the clean rounds, else the last answer; None is unknown."""

    tokens_generated: int | None = None
    tokens_per_sec: float | None = None
    time_s: float | None = None
    ttft_ms: float | None = None
    model_memory_gb: float | None = None
    gpu_free_gb: float | None = None
    load_s: float | None = None
    requests_per_sec: float | None = None
    system_tokens_per_sec: float | None = None
    error_ratio: float | None = None
    longest_gap_ms: float | None = None


def figures_of(record: RunRecord) -> Figures:
    """The figures of a record.

    `tokens_generated` is of one sequence, `tokens_per_sec` its decode rate, `time_s` from request to last
    token; the last four are of a server's rounds alone. `gpu_free_gb` is the card's memory less the most that
    was in use in any watched round. GB is 1e9 bytes.
    """
    weights = record.loaded.get("weights_bytes")
    tokens, rate, time_ms, ttft_ms = _work(record)
    return Figures(
        tokens_generated=tokens,
        tokens_per_sec=rate,
        time_s=None if time_ms is None else time_ms / 1000,
        ttft_ms=ttft_ms,
        model_memory_gb=None if weights is None else weights / 1e9,
        gpu_free_gb=_free_gb(record),
        load_s=record.loaded.get("load_s"),
        **_of_server(record),
    )


def _of_server(record: RunRecord) -> dict[str, float | None]:
    """What only a server's rounds have: the last measurement's rates, failures and longest gap."""
    rounds = record.measurements[-1].rounds if record.measurements else ()
    if not any(seen.streams for seen in rounds):
        return {}
    clean = [seen for seen in rounds if seen.clean]
    ended = [stream for seen in rounds for stream in seen.streams]
    return {
        "requests_per_sec": _median_of(clean, "requests_per_sec"),
        "system_tokens_per_sec": _median_of(clean, "output_tokens_per_sec"),
        "error_ratio": sum(not stream.complete for stream in ended) / len(ended),
        "longest_gap_ms": longest_gap_ms(ended),
    }


def _work(record: RunRecord) -> tuple[int | None, float | None, float | None, float | None]:
    """Tokens, decode rate, whole time (ms), TTFT (ms)."""
    clean = record.measurements[-1].clean_rounds if record.measurements else ()
    if clean:
        tokens = round(median(seen.output_tokens for seen in clean)) or None  # a server may not count them
        names = ("decode_tokens_per_sec", "e2e_latency_ms", "ttft_ms")
        rate, time_ms, ttft_ms = (_median_of(clean, name) for name in names)
        return tokens, rate, time_ms, ttft_ms
    if record.generations:
        last = record.generations[-1]
        return last.output_tokens, last.decode_tokens_per_sec, last.e2e_ms, last.ttft_ms
    return None, None, None, None


def _median_of(rounds: Iterable[Round], metric: str) -> float | None:
    values = [seen.metrics[metric] for seen in rounds if metric in seen.metrics]
    return median(values) if values else None


def _free_gb(record: RunRecord) -> float | None:
    total = record.device.get("memory_bytes")
    windows = [seen.window for m in record.measurements for seen in m.rounds if seen.window]
    used = [window.memory_used_bytes for window in windows if window.memory_used_bytes is not None]
    return (total - max(used)) / 1e9 if total and used else None


def number(value: float | None) -> str:
    """Four significant digits without an exponent; "" for unknown, "∞" for no limit."""
    if value is None:
        return ""
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    decimals = max(0, 3 - math.floor(math.log10(abs(value))))
    text = f"{value:.{min(decimals, 12)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def interval_text(verdict: Verdict) -> str:
    """The interval as "[low, high]"; "" when there is none, or nothing but one observed value."""
    alone = verdict.bound.judged != "sequential" and (verdict.n < 2 or verdict.low == verdict.high)
    if verdict.low is None or verdict.high is None or alone:
        return ""
    return f"[{number(verdict.low)}, {number(verdict.high)}]"


def bound_text(bound: Bound) -> str:
    """The bound in the words of its mark: "max_ttft p95 ≤ 500 ms"; the median goes without saying."""
    sign = "≥" if bound.direction == "at least" else "≤"
    stat = f" {bound.stat}" if bound.stat != "median" and bound.judged == "sequential" else ""
    stat = f" {bound.metric}".rstrip() if bound.judged in ("rated", "counted") else stat
    unit = "" if bound.unit == "ratio" else f" {bound.unit}"
    other = f" vs {bound.vs}" if bound.vs else ""
    return f"{bound.marker}{stat}{other} {sign} {number(bound.limit)}{unit}"


def share_of_ceiling(verdict: Verdict) -> float | None:
    """How much of what physics allows was reached, 0 to 1; for an upper bound the ceiling is a floor."""
    if not verdict.ceiling or not verdict.estimate:
        return None
    ratio = verdict.estimate / verdict.ceiling
    return ratio if verdict.bound.direction == "at least" else 1 / ratio


def ceiling_text(verdict: Verdict) -> str:
    """The ceiling and the share of it that was reached: "316 (65 %)"; "" when unknown."""
    share = share_of_ceiling(verdict)
    return number(verdict.ceiling) + ("" if share is None else f" ({share:.0%})".replace("%", " %"))


def device_label(record: RunRecord) -> str:
    """What it was measured on; before anything was measured, what was asked for."""
    return str(record.device.get("label") or record.device.get("name") or record.gpu_asked)


def setting(record: RunRecord) -> str:
    """The loaded configuration in one line: engine, optimisation, number formats, anything unusual.

    Of a server only what it was asked for: how it decodes is its own affair.
    """
    spec = record.spec
    engine = str(spec.get("engine") or "")
    if engine == ENDPOINT:
        return f"{engine} {dict(spec.get('options') or ()).get('url', '')}".strip()
    unasked = {"optimize", "attention"} if engine in SERVERS else set()
    names = ("engine", "optimize", "dtype", "quantization", "attention", "experts")
    parts = [spec.get(name) for name in names if name not in unasked]
    if spec.get("weights") == "dummy":
        parts.append("dummy weights")
    if (spec.get("tensor_parallel") or 1) > 1:
        parts.append(f"{spec['tensor_parallel']} cards")
    return ", ".join(str(part) for part in parts if part)


def versions(record: RunRecord) -> str:
    """What the engine ran with: "torch 2.13.0, transformers 5.1.0"."""
    return ", ".join(f"{name} {text}" for name, text in (record.loaded.get("versions") or {}).items())


def heading_of(record: RunRecord) -> tuple[str, str]:
    """What a group of records was really measured on, and with what: device, then model and versions."""
    if not record.spec and record.rated:
        return "answers, run in the sandbox", ""
    if not record.spec:
        return f"nothing was loaded (asked for GPU: {record.gpu_asked})", ""
    ran_with = versions(record)
    about = f"{record.spec.get('model')}: {setting(record)}"
    return device_label(record), f"{about} ({ran_with})" if ran_with else about


def grouped(records: Iterable[RunRecord]) -> list[list[RunRecord]]:
    """The records that share device, model and configuration, in the order in which each first came."""
    groups: dict[tuple[str, ...], list[RunRecord]] = {}
    for record in records:
        key = (heading_of(record)[0], str(record.spec.get("model") or ""), setting(record))
        groups.setdefault(key, []).append(record)
    return list(groups.values())


def load_seconds(records: Iterable[RunRecord]) -> tuple[float, ...]:
    """Seconds of every load; tests that shared a load (one child process, one spec) count it once."""
    loads = {
        (str(record.spec), record.loaded.get("pid"), record.loaded["load_s"]): float(record.loaded["load_s"])
        for record in records
        if record.loaded.get("load_s") is not None
    }
    return tuple(loads.values())


def gpu_energy_j(records: Iterable[RunRecord]) -> float | None:
    """Energy of every watched round, None when no window knew it."""
    windows = [seen.window for r in records for m in r.measurements for seen in m.rounds if seen.window]
    known = [window.energy_j for window in windows if window.energy_j is not None]
    return sum(known) if known else None


def totals(records: Sequence[RunRecord]) -> str:
    """Verdicts, loads and energy of the run in one line."""
    counts = Counter(verdict.outcome for record in records for verdict in record.verdicts)
    parts = [", ".join(f"{counts[outcome]} {outcome}" for outcome in Outcome)]
    loads = load_seconds(records)
    if loads:
        parts.append(f"{len(loads)} model{'s' * (len(loads) != 1)} loaded in {number(sum(loads))} s")
    energy_j = gpu_energy_j(records)
    if energy_j is not None:
        parts.append(f"GPU energy {number(energy_j)} J in the watched rounds")
    return "; ".join(parts)
