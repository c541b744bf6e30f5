"""Records to test with: one of everything, and a plain maker."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from pytest_qwen.bounds import BOUND_KINDS, Bound
from pytest_qwen.engines.base import Loaded, LoadSpec
from pytest_qwen.evidence import Measurement, Round, Window
from pytest_qwen.laws import fit_sum
from pytest_qwen.outcomes import NoVerdict, Outcome
from pytest_qwen.records import Generation, RunHeader, RunRecord, plain
from pytest_qwen.standing import Standing
from pytest_qwen.verdicts import Verdict

H200 = "NVIDIA H200, 143771 MiB, 700 W, driver 580.159.04"


def bound(marker: str, limit: float, stat: str = "median") -> Bound:
    return BOUND_KINDS[marker].bound(limit, stat)


def verdict(asked: Bound, outcome: Outcome = Outcome.PASS, **given: Any) -> Verdict:
    base = Verdict(
        bound=asked,
        outcome=outcome,
        reason="",
        estimate=205.25,
        low=204.5,
        high=206.0,
        n=12,
        ceiling=None,
        explanation=f"{outcome} {asked}",
    )
    return replace(base, **given)


def a_round(index: int, tpot_ms: float = 5.0, *, tokens: int = 4, **given: Any) -> Round:
    times = tuple(20.0 + step * tpot_ms for step in range(tokens))
    base = Round(
        index=index,
        kind="round",
        prompt_tokens=8,
        output_tokens=tokens,
        asked_tokens=tokens,
        batch_size=1,
        token_ms=times,
        clock="simulated",
        metrics={
            "ttft_ms": times[0],
            "tpot_ms": tpot_ms,
            "decode_tokens_per_sec": 1000 / tpot_ms,
            "e2e_latency_ms": times[-1],
        },
        tokens_digest="abc",
        window=Window(seconds=0.1, energy_j=2.5, memory_used_bytes=16_000_000_000, co_tenants=()),
    )
    return replace(base, **given)


def record(**given: Any) -> RunRecord:
    spec = LoadSpec(
        engine="transformers",
        model="Qwen/Qwen2.5-Coder-7B-Instruct",
        device="cuda",
        optimize="max",
        options=(("jitter", ("iid", 0.03)),),
    )
    loaded = Loaded(
        load_s=12.5,
        first_call_s=40.25,
        weights_bytes=15_231_000_000,
        device_name="NVIDIA H200",
        applied=("tf32", "compile"),
        versions={"torch": "2.13.0", "transformers": "5.1.0"},
        pid=4242,
    )
    base = RunRecord(
        nodeid="suites/performance/test_speed.py::test_decode[7b]",
        outcome="passed",
        started="2026-03-01T12:00:05+00:00",
        gpu_asked="h200",
        device={"label": H200, "alias": "h200", "memory_bytes": 150_754_820_096, "mig": False},
        spec=plain(spec),
        loaded=plain(loaded),
        workload={"prompt_tokens": 8, "output_tokens": 4},
    )
    return replace(base, **given)


def full_record() -> RunRecord:
    """Every field has something in it, with everything that JSON has no word for."""
    speed, slow = bound("min_tokens_per_sec", 150.0), bound("max_ttft", 500.0, "p95")
    rounds = (
        a_round(0, kind="warmup", window=None),
        a_round(1, violations=(NoVerdict.THROTTLED,)),
        *(a_round(index, 5.0 + index / 100) for index in range(2, 14)),
    )
    throttled = Window(
        seconds=0.25,
        sm_clock_mhz=1200.5,
        throttle_reasons=("SwPowerCap",),
        co_tenants=("python (pid 7)",),
        mig=False,
        violations=(NoVerdict.THROTTLED,),
    )
    rounds = (rounds[0], replace(rounds[1], window=throttled), *rounds[2:])
    return record(
        bounds=(speed, slow),
        ceilings={"decode_tokens_per_sec": 316.0},
        verdicts=(
            verdict(speed, ceiling=316.0),
            verdict(slow, Outcome.NO_VERDICT, reason=NoVerdict.TOO_FEW, low=-math.inf, high=math.inf),
            verdict(slow, Outcome.NO_VERDICT, estimate=None, low=None, high=None, n=0),
        ),
        measurements=(
            Measurement(
                rounds=rounds, observed={"vram_gb": 16.0, "load_time_s": 12.5}, seconds=3.5, hints=("cold",)
            ),
        ),
        generations=(
            Generation(
                prompt_kind="text",
                prompt="Schreibe eine Addition – 加法",
                text="```python\nx = 1\n```",
                prompt_tokens=8,
                output_tokens=4,
                finish_reason="stop",
                ttft_ms=20.0,
                e2e_ms=35.0,
                decode_tokens_per_sec=200.0,
            ),
        ),
        standings=(
            Standing(
                document="d",
                table="t",
                row="Qwen-7B Int4",
                figure="tokens_per_sec",
                published="~50",
                measured=None,
                standing="not measurable here",
                why="no such card",
                gpu="h200",
            ),
        ),
        laws=(
            fit_sum("memory", [({"batch": b}, 15.0 + b * b) for b in (1, 2, 4)], ("1", "batch"), unit="GB"),
        ),
        plan={"lines": [["weights", 15.2e9]], "ceiling": "4.8e12 / 15.2e9 = 316 tok/s"},
        notes=("launch-bound decoding",),
    )


def header(**given: Any) -> RunHeader:
    base = RunHeader(
        tool_version="0.1.0",
        command=("suites/", "--gpu=h200"),
        machine={"host": "node-1", "system": "Linux"},
        started="2026-03-01T12:00:00+00:00",
        ended="2026-03-01T12:03:00+00:00",
        python="3.12.3",
        pytest="9.2.0",
    )
    return replace(base, **given)
