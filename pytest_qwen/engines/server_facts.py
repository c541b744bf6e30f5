"""What a server's /metrics page says of its queue and its prefix cache. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

# Prometheus' text format: name, labels in braces, value, and perhaps a time.
_LINE = re.compile(r"([A-Za-z_:][A-Za-z0-9_:]*)(?:\{[^}]*\})? +([^ ]+)(?: +-?\d+)?")
# What the servers call each figure (vLLM, SGLang, TGI, llama.cpp), by their documents; the first and the last
# were seen.
_RUNNING = (
    "vllm:num_requests_running",
    "sglang:num_running_reqs",
    "tgi_batch_current_size",
    "llamacpp:requests_processing",
)
_WAITING = (
    "vllm:num_requests_waiting",
    "sglang:num_queue_reqs",
    "tgi_queue_size",
    "llamacpp:requests_deferred",
)
_CACHE_USE = (
    "vllm:kv_cache_usage_perc",
    "vllm:gpu_cache_usage_perc",
    "sglang:token_usage",
    "llamacpp:kv_cache_usage_ratio",
)
_HITS = ("vllm:prefix_cache_hits_total", "vllm:gpu_prefix_cache_hits_total", "vllm:prefix_cache_hits")
_QUERIES = (
    "vllm:prefix_cache_queries_total",
    "vllm:gpu_prefix_cache_queries_total",
    "vllm:prefix_cache_queries",
)
_HIT_RATE = ("sglang:cache_hit_rate",)


def parse(page: str) -> dict[str, float]:
    """Every figure of the page; those that differ in their labels alone are added up."""
    found: dict[str, float] = {}
    for line in page.splitlines():
        match = _LINE.fullmatch(line.strip())
        if match is None:
            continue
        try:
            value = float(match[2])
        except ValueError:
            continue
        if math.isfinite(value):
            found[match[1]] = found.get(match[1], 0.0) + value
    return found


def facts(pages: Sequence[str]) -> dict[str, float]:
    """What the pages, read one after the other during a load, say of it; what they do not tell is absent.

    `queue_mean` and `queue_max` count waiting requests, `running_mean` those being worked on;
    `prefix_cache_hit_ratio` is the share of prompt tokens that the server found in its cache between the
    first and the last page.
    """
    read = [parse(page) for page in pages]
    found: dict[str, float] = {}
    for name, sources in (("running", _RUNNING), ("queue", _WAITING), ("cache_use", _CACHE_USE)):
        values = [value for page in read if (value := _first(page, sources)) is not None]
        if values:
            found[f"{name}_mean"] = sum(values) / len(values)
            found[f"{name}_max"] = max(values)
    ratio = _hit_ratio(read)
    if ratio is not None:
        found["prefix_cache_hit_ratio"] = ratio
    return found


def _first(page: dict[str, float], names: Sequence[str]) -> float | None:
    return next((page[name] for name in names if name in page), None)


def _hit_ratio(pages: Sequence[dict[str, float]]) -> float | None:
    """From counters the share between first and last page, else the server's own rate of the last one."""
    if not pages:
        return None
    first, last = pages[0], pages[-1]
    hits, queries = _first(last, _HITS), _first(last, _QUERIES)
    if hits is None or queries is None:
        return _first(last, _HIT_RATE)
    asked = queries - (_first(first, _QUERIES) or 0.0)
    return (hits - (_first(first, _HITS) or 0.0)) / asked if asked > 0 else None
