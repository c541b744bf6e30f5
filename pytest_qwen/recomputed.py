"""What a published row's own inputs give: sums, products, ratios, sizes of models, data sheets."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from pytest_qwen.gpus import CATALOGUE
from pytest_qwen.physics import usd_per_mtok
from pytest_qwen.published import Row

# A figure by its name among a row's `standing.figures`, and its value.
Value = tuple[str, float]
_SHEET = ("memory_gb", "bandwidth_gb_per_sec", "fp16_tflops", "fp8_tflops", "power_w")


def recomputed(row: Row) -> dict[str, float]:
    """The figures of a row that follow from what else it says, from its model's shape or its card's sheet."""
    return {name: value for rule in _RULES for name, value in rule(row)}


def _arithmetic(row: Row) -> Iterator[Value]:
    if "product" in row:
        yield "product_result", math.prod(float(factor) for factor in row["product"]["factors"].values())
    if "parts" in row and all(not isinstance(part, list) for part in row["parts"].values()):
        yield "total", math.fsum(float(part) for part in row["parts"].values())
    if "ratio" in row:
        yield "ratio_times", float(row["ratio"]["of"]) / float(row["ratio"]["to"])
    if "points" in row:
        yield "points_lost", float(row["points"]["from"] - row["points"]["to"])
    if "active_share" in row:
        share = row["active_share"]
        yield "active_share_percent", 100 * float(share["active"]) / float(share["total"])


def _cost(row: Row) -> Iterator[Value]:
    if {"usd_per_hour", "usd_per_mtok", "tokens_per_sec"} <= row.fields.keys():
        yield "usd_per_mtok", usd_per_mtok(float(row["usd_per_hour"]), float(row["tokens_per_sec"]))


def _sizes(row: Row) -> Iterator[Value]:
    """GB of 1e9 bytes; the KV cache in 16 bits."""
    shape = row.shape
    if shape is None:
        return
    if "weights_gb" in row:
        yield "weights_gb", shape.weights_bytes(row.dtype, row.quantization) / 1e9
    if "kv_cache_gb" in row:
        tokens = int(row["sequences"]) * int(row["context_tokens"])
        yield "kv_cache_gb", shape.kv_bytes_per_token("bfloat16") * tokens / 1e9


def _sheet(row: Row) -> Iterator[Value]:
    spec = CATALOGUE.get(str(row.fields.get("gpu")))
    for name in _SHEET:
        known = getattr(spec, name, None)
        if name in row and known:
            yield name, float(known)


_RULES: tuple[Callable[[Row], Iterator[Value]], ...] = (_arithmetic, _cost, _sizes, _sheet)
