"""Presets: the published figures, and that each says where they come from."""

import pytest

from pytest_qwen import ask
from pytest_qwen.errors import Misuse
from pytest_qwen.parsing import bound_of
from pytest_qwen.presets import PRESETS


def figures(name: str) -> dict[str, tuple[float, str]]:
    bounds = [bound_of(limit) for limit in PRESETS[name].limits]
    return {bound.metric: (bound.limit, bound.stat) for bound in bounds}


@pytest.mark.parametrize(
    ("name", "ttft_ms", "tpot_ms"),
    [
        ("mlperf-server", 2000, 200),
        ("mlperf-interactive", 450, 40),
        ("mlperf-server-8b", 2000, 100),
        ("mlperf-interactive-8b", 500, 30),
        ("mlperf-server-405b", 6000, 175),
        ("mlperf-interactive-405b", 4500, 80),
        ("mlperf-server-deepseek-r1", 2000, 80),
        ("mlperf-interactive-deepseek-r1", 1500, 15),
        ("mlperf-server-gpt-oss-120b", 3000, 80),
        ("mlperf-interactive-gpt-oss-120b", 2000, 20),
        ("chat", 200, 50),
        ("content-generation", 600, 200),
        ("code-generation", 500, 150),
    ],
)
def test_published_limits_of_first_and_further_tokens(name: str, ttft_ms: float, tpot_ms: float) -> None:
    assert figures(name) == {"ttft_ms": (ttft_ms, "p99"), "tpot_ms": (tpot_ms, "p99")}


def test_published_limits_of_whole_answers() -> None:
    assert figures("code-completion") == {"e2e_latency_ms": (2000, "p99")}
    assert figures("agent") == {"e2e_latency_ms": (5000, "p99")}
    assert figures("rag")["e2e_latency_ms"] == (3000, "p99")
    assert figures("interactive") == {"ttft_ms": (500, "median"), "decode_tokens_per_sec": (30, "median")}


def test_every_preset_says_what_it_is_for_and_who_says_so() -> None:
    for preset in PRESETS.values():
        assert preset.meant_for
        assert "published" in preset.source or "github.com" in preset.source


def test_a_bound_of_the_test_replaces_its_part_of_a_preset_and_goodput_takes_the_rest() -> None:
    marks = [
        pytest.mark.sla("chat").mark,
        pytest.mark.max_ttft(300).mark,
        pytest.mark.min_goodput(2).mark,
        pytest.mark.workload(concurrency=4).mark,
    ]
    request = ask.read_marks([(object(), mark) for mark in marks], uses_fixtures=True)
    by_marker = {bound.marker: bound for bound in request.bounds}
    assert (by_marker["max_ttft"].limit, by_marker["max_tpot"].limit) == (300, 50)
    assert {slo.metric: slo.limit for slo in by_marker["min_goodput"].slos} == {
        "ttft_ms": 300,
        "tpot_ms": 50,
    }
    assert by_marker["max_error_rate"].limit == 0


def test_a_preset_that_is_not_there_is_misuse_with_the_near_one() -> None:
    with pytest.raises(Misuse, match="did you mean 'chat'"):
        ask.read_marks([(object(), pytest.mark.sla("chatt").mark)], uses_fixtures=True)
