"""What published rows' own inputs give, by rule and over every shipped row."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from pytest_qwen.published import Row, load_tables
from pytest_qwen.recomputed import recomputed
from pytest_qwen.standing import figures


def row(**fields: Any) -> Row:
    return Row(document="d", table="t", name="r", fields=fields)


@pytest.mark.parametrize(
    ("fields", "value"),
    [
        ({"product": {"factors": {"a": 12, "b": Decimal("0.5")}, "result": 7}}, {"product_result": 6.0}),
        ({"parts": {"a": Decimal("1.5"), "b": 2}, "total": 4}, {"total": 3.5}),
        ({"ratio": {"of": 30, "to": 4, "times": 8}}, {"ratio_times": 7.5}),
        ({"points": {"from": Decimal("80.5"), "to": 79, "lost": 1}}, {"points_lost": 1.5}),
        ({"active_share": {"active": 37, "total": 74, "percent": 10}}, {"active_share_percent": 50.0}),
        ({"usd_per_hour": Decimal("3.6"), "tokens_per_sec": 10, "usd_per_mtok": 90}, {"usd_per_mtok": 100.0}),
        ({"gpu": "l4", "memory_gb": 24, "power_w": 70}, {"memory_gb": 24.0, "power_w": 72.0}),
        ({"gpu": "no such card", "memory_gb": 24}, {}),
        ({"tokens_per_sec": 10}, {}),
    ],
)
def test_each_rule(fields: dict[str, Any], value: dict[str, float]) -> None:
    assert recomputed(row(**fields)) == pytest.approx(value)


def test_sizes_come_from_the_shape() -> None:
    seven = {"model": "Qwen/Qwen2.5-Coder-7B-Instruct", "dtype": "bfloat16", "weights_gb": Decimal("15.7")}
    found = recomputed(row(**seven, kv_cache_gb=1, sequences=2, context_tokens=1000))
    assert found["weights_gb"] == pytest.approx(15.231, abs=0.001)  # 7,615,616,512 parameters of 2 bytes
    assert found["kv_cache_gb"] == pytest.approx(2 * 1000 * 28 * 2 * 4 * 128 * 2 / 1e9)


def test_every_recomputed_figure_is_one_that_the_row_has() -> None:
    rows = [one for table in load_tables() for one in table.rows]
    found = [(one, recomputed(one)) for one in rows]
    for one, values in found:
        assert values.keys() <= figures(one).keys(), one.name
    assert sum(len(values) for _, values in found) > 150
