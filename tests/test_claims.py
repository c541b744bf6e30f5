"""The checks of published claims: they find the known impossible figures and leave correct ones alone."""

from decimal import Decimal
from pathlib import Path

import pytest

from pytest_qwen.claims import findings
from pytest_qwen.claims_arithmetic import ARITHMETIC_CHECKS
from pytest_qwen.claims_physics import PHYSICS_CHECKS
from pytest_qwen.published import Row, Table, load_tables

SNAPSHOT = Path(__file__).parent / "data" / "published_findings.txt"
CODER_7B = {"model": "Qwen/Qwen2.5-Coder-7B-Instruct", "dtype": "float16"}


def check(*rows):
    """(check, kind) of every finding in one table of these rows."""
    made = tuple(
        Row(document="d", table="t", name=f"row {i}", fields={"row": f"row {i}", **fields})
        for i, fields in enumerate(rows)
    )
    table = Table(document="d", section="s", name="t", rows=made)
    return [(finding.check, finding.kind) for finding in findings([table])]


def test_the_findings_in_the_published_tables_are_the_known_ones():
    found = findings(load_tables())
    lines = [f"{f.kind} | {f.check} | {f.table} | {f.row}" for f in found]
    assert sorted(lines) == sorted(SNAPSHOT.read_text().splitlines())


def test_the_texts_carry_the_arithmetic():
    texts = {(f.check, f.table, f.row): str(f) for f in findings(load_tables())}
    rate = texts["rate above the ceiling", "7B on L4", "measured"]
    assert "30.2 tok/s" in rate
    assert "at most 21.2 tok/s" in rate
    memory = texts["memory below the weights", "memory on T4", "Qwen2.5-Coder-7B-Instruct"]
    assert "13.7 GB in use for 15.23 GB of weights" in memory
    kv = texts["KV cache", "memory formula", "Qwen2.5-Coder-32B at 32,768 tokens"]
    assert "8.6 GB in 16 bits" in kv


# One wrong and one right claim for every check; Decimal keeps the printed digits.
CASES = [
    (
        "rate above the ceiling",
        "impossible",
        {**CODER_7B, "gpu": "l4", "tokens_per_sec": 25},
        {**CODER_7B, "gpu": "l4", "tokens_per_sec": 20},
    ),
    (
        "rate above the ceiling",
        "impossible",
        {**CODER_7B, "gpu": "l4", "batch": 16, "system_tokens_per_sec": 400},
        {**CODER_7B, "gpu": "l4", "batch": 16, "system_tokens_per_sec": 300},
    ),
    (
        "memory below the weights",
        "impossible",
        {**CODER_7B, "gpu": "t4", "memory_used_gb": 12},
        {**CODER_7B, "gpu": "t4", "memory_used_gb": Decimal("15.5")},
    ),
    (
        "size of the weights",
        "impossible",
        {**CODER_7B, "weights_gb": 7},
        {**CODER_7B, "weights_gb": Decimal("15.2")},
    ),
    (
        "size of the weights",
        "impossible",
        {"billion_parameters": 14, "bits": 16, "weights_gb": 14},
        {"billion_parameters": 14, "bits": 16, "weights_gb": 28},
    ),
    (
        "size of the weights",
        "inconsistent",
        {**CODER_7B, "weights_gb": Decimal("16.5")},
        {**CODER_7B, "quantization": "awq", "weights_gb": "~5.5"},
    ),
    (
        "KV cache",
        "inconsistent",
        {**CODER_7B, "sequences": 2, "context_tokens": 8192, "kv_cache_gb": 4},
        {**CODER_7B, "sequences": 2, "context_tokens": 8192, "kv_cache_gb": Decimal("0.94")},
    ),
    (
        "KV saving",
        "inconsistent",
        {
            **CODER_7B,
            "sequences": 1,
            "context_tokens": 1024,
            "kv_saving": {"without_gb": 17, "with_gb": 16, "saved_gb": 1},
        },
        {
            **CODER_7B,
            "sequences": 64,
            "context_tokens": 1024,
            "kv_saving": {"without_gb": 19, "with_gb": 17, "saved_gb": 2},
        },
    ),
    (
        "load",
        "impossible",
        {**CODER_7B, "gpu": "rtx3070", "load": "success"},
        {**CODER_7B, "gpu": "l4", "load": "success"},
    ),
    (
        "load",
        "inconsistent",
        {**CODER_7B, "gpu": "h100", "load": "out of memory"},
        {**CODER_7B, "gpu": "rtx3070", "load": "out of memory"},
    ),
    (
        "fits the card",
        "impossible",
        {"billion_parameters": 120, "bits": 16, "card_memory_gb": 80, "said_to_fit": True},
        {"billion_parameters": 30, "bits": 16, "card_memory_gb": 80, "said_to_fit": True},
    ),
    (
        "fits the card",
        "inconsistent",
        {"needs_gb": 5, "card_memory_gb": 8, "said_to_fit": False},
        {"needs_gb": 5, "card_memory_gb": 8, "said_to_fit": True},
    ),
    (
        "utilisation",
        "impossible",
        {"utilization_percent": {"memory": Decimal("933.5")}},
        {"utilization_percent": {"memory": Decimal("93.5")}},
    ),
    (
        "utilisation",
        "inconsistent",
        {
            "utilization_percent": {"compute": Decimal("0.4"), "bandwidth": Decimal("8.8")},
            "overall_percent": Decimal("21.2"),
        },
        {
            "utilization_percent": {"compute": Decimal("0.4"), "bandwidth": Decimal("8.8")},
            "overall_percent": Decimal("8.8"),
        },
    ),
    (
        "specification",
        "inconsistent",
        {"gpu": "h100-nvl", "fp16_tflops": 1979},
        {"gpu": "h100-nvl", "fp16_tflops": 835},
    ),
    (
        "specification",
        "inconsistent",
        {"gpu": "a100-80", "tf32_tflops": 312},
        {"gpu": "a100-80", "tf32_tflops": 156},
    ),
    (
        "specification",
        "inconsistent",
        {"gpu": "t4", "tensor_core_generation": 1},
        {"gpu": "t4", "tensor_core_generation": 2},
    ),
    (
        "specification",
        "inconsistent",
        {"gpu": "h100", "bf16_over_fp16": 2},
        {"gpu": "h100", "bf16_over_fp16": 1},
    ),
    (
        "context",
        "inconsistent",
        {**CODER_7B, "context_limit_tokens": 131072},
        {**CODER_7B, "context_limit_tokens": 32768},
    ),
    (
        "training memory",
        "inconsistent",
        {
            **CODER_7B,
            "training": {"trains": "everything", "tokens": [256], "memory_gb": [40], "seconds": [1]},
        },
        {
            **CODER_7B,
            "training": {"trains": "everything", "tokens": [256], "memory_gb": [70], "seconds": [1]},
        },
    ),
    (
        "training memory",
        "inconsistent",
        {
            **CODER_7B,
            "training": {
                "trains": "adapters",
                "tokens": [256, 512],
                "memory_gb": [40, 30],
                "seconds": [1, 2],
            },
        },
        {
            **CODER_7B,
            "training": {
                "trains": "adapters",
                "tokens": [256, 512],
                "memory_gb": [30, 40],
                "seconds": [1, 2],
            },
        },
    ),
    (
        "tokens over seconds",
        "inconsistent",
        {"tokens": 550, "seconds": 18, "tokens_per_sec": 40},
        {"tokens": 550, "seconds": Decimal("18.2"), "tokens_per_sec": Decimal("30.2")},
    ),
    (
        "cost",
        "inconsistent",
        {
            "usd_per_hour": Decimal("0.75"),
            "tokens_per_sec": Decimal("30.2"),
            "usd_per_mtok": Decimal("25.00"),
        },
        {"usd_per_hour": Decimal("0.75"), "tokens_per_sec": Decimal("30.2"), "usd_per_mtok": Decimal("6.90")},
    ),
    (
        "sum",
        "inconsistent",
        {"parts": {"a": Decimal("3.5"), "b": Decimal("717.8")}, "total": Decimal("746.8")},
        {"parts": {"a": Decimal("3.5"), "b": Decimal("717.8")}, "total": Decimal("721.3")},
    ),
    (
        "product",
        "inconsistent",
        {"product": {"factors": {"a": 2, "b": 9000}, "result": 14000}},
        {"product": {"factors": {"a": 2, "b": 9000}, "result": 18000}},
    ),
    (
        "change",
        "inconsistent",
        {"changes": [{"from": 100, "to": 70, "percent": -50}]},
        {"changes": [{"from": 100, "to": 70, "percent": -30}]},
    ),
    (
        "multiple",
        "inconsistent",
        {"ratio": {"of": 800, "to": 40, "times": 10}},
        {"ratio": {"of": 800, "to": 40, "times": 20}},
    ),
    (
        "multiple",
        "inconsistent",
        {"multiple": {"of": [2000, 8000], "to": 750, "times": [2, 5]}},
        {"multiple": {"of": [2000, 8000], "to": 750, "times": [2, 11]}},
    ),
    (
        "speed-up",
        "inconsistent",
        {"speedup": {"slow": [50, 160], "fast": [4, 13], "times": [10, 40]}},
        {"speedup": {"slow": [50, 160], "fast": [4, 13], "times": [4, 40]}},
    ),
    (
        "points",
        "inconsistent",
        {"points": {"from": Decimal("92.7"), "to": Decimal("90.7"), "lost": Decimal("0.0")}},
        {"points": {"from": Decimal("90.2"), "to": Decimal("89.8"), "lost": Decimal("0.4")}},
    ),
    (
        "active share",
        "inconsistent",
        {"active_share": {"active": 37, "total": 685, "percent": [10, 30]}},
        {"active_share": {"active": 13, "total": 47, "percent": [10, 30]}},
    ),
]


@pytest.mark.parametrize(("name", "kind", "wrong", "right"), CASES)
def test_a_check_finds_the_wrong_claim_and_passes_the_right_one(name, kind, wrong, right):
    assert (name, kind) in check(wrong)
    assert check(right) == []


def test_every_check_has_a_case():
    assert {name for name, *_ in CASES} == set(PHYSICS_CHECKS) | set(ARITHMETIC_CHECKS)


def test_used_and_free_memory_of_one_card_must_agree_between_rows():
    small = {"gpu": "h100-nvl", "memory_used_gb": Decimal("15.2"), "memory_free_gb": Decimal("84.6")}
    large = {"gpu": "h100-nvl", "memory_used_gb": Decimal("65.5"), "memory_free_gb": Decimal("20.6")}
    right = {"gpu": "h100-nvl", "memory_used_gb": Decimal("65.5"), "memory_free_gb": Decimal("34.3")}
    assert check(small, large) == [("memory of one card", "inconsistent")]
    assert check(small, right) == []


def test_training_everything_is_not_faster_than_training_adapters():
    adapters = {"training": {"trains": "adapters", "tokens": [256], "memory_gb": [20], "seconds": [5]}}
    quick = {"training": {"trains": "everything", "tokens": [256], "memory_gb": [70], "seconds": [2]}}
    slow = {"training": {"trains": "everything", "tokens": [256], "memory_gb": [70], "seconds": [8]}}
    assert check(adapters, quick) == [("more work in less time", "inconsistent")]
    assert check(adapters, slow) == []


def test_the_same_quantity_must_not_have_two_values():
    per_thousand = {**CODER_7B, "gpu": "l4", "usd_per_ktok": Decimal("0.025")}
    per_million = {**CODER_7B, "gpu": "l4", "usd_per_mtok": Decimal("6.90")}
    agreeing = {**CODER_7B, "gpu": "l4", "usd_per_mtok": Decimal("25.20")}
    elsewhere = {**CODER_7B, "gpu": "t4", "usd_per_mtok": Decimal("6.90")}
    assert check(per_thousand, per_million) == [("two tables disagree", "inconsistent")]
    assert check(per_thousand, agreeing) == []
    assert check(per_thousand, elsewhere) == []
