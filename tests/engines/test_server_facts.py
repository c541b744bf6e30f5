"""Figures of /metrics pages, as the servers write them."""

from __future__ import annotations

import pytest

from pytest_qwen.engines.server_facts import facts, parse

VLLM = """# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{{engine="0",model_name="Qwen/Qwen2.5-7B"}} {running}
vllm:num_requests_waiting{{engine="0",model_name="Qwen/Qwen2.5-7B"}} {waiting}
vllm:kv_cache_usage_perc{{engine="0"}} 0.25
vllm:prefix_cache_queries_total{{engine="0"}} {queries}
vllm:prefix_cache_hits_total{{engine="0"}} {hits}
vllm:request_success_total{{finished_reason="stop"}} 3.0 1700000000000
vllm:e2e_request_latency_seconds_bucket{{le="+Inf"}} NaN
"""


def test_vllm() -> None:
    pages = [
        VLLM.format(running=2, waiting=0, queries="1e+03", hits=500),
        VLLM.format(running=4, waiting=8, queries=3000, hits=1000),
    ]
    assert facts(pages) == pytest.approx(
        {
            "running_mean": 3,
            "running_max": 4,
            "queue_mean": 4,
            "queue_max": 8,
            "cache_use_mean": 0.25,
            "cache_use_max": 0.25,
            "prefix_cache_hit_ratio": 0.25,
        }
    )


def test_sglang_tells_a_rate_and_tgi_a_queue() -> None:
    assert facts(["sglang:cache_hit_rate 0.5\nsglang:num_queue_reqs 3\n"]) == {
        "queue_mean": 3,
        "queue_max": 3,
        "prefix_cache_hit_ratio": 0.5,
    }
    assert facts(["tgi_queue_size 2\n"])["queue_max"] == 2
    assert facts(["llamacpp:requests_deferred 1\n"])["queue_mean"] == 1


def test_what_is_not_told_is_absent() -> None:
    assert facts([]) == {}
    assert facts(["<html>"]) == {}
    assert (
        facts([VLLM.format(running=1, waiting=0, queries=5, hits=1)] * 2).get("prefix_cache_hit_ratio")
        is None
    )


def test_labels_are_added_up_and_rubbish_is_passed_over() -> None:
    page = 'a{x="1"} 1\na{x="2"} 2\nb oops\nc +Inf\nd\n e 5\n'
    assert parse(page) == {"a": 3, "e": 5}
