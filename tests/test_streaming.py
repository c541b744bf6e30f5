"""What streams say: times per token by the tokens after the first chunk, the longest gap, goodput, failures."""

import math
import random

import pytest

from pytest_qwen.bounds import Slo
from pytest_qwen.statistics import percentile
from pytest_qwen.streaming import (
    answered_ratio,
    cached_ratio,
    failures_in_words,
    goodput_per_sec,
    longest_gap_ms,
    middle_quantile,
    of_streams,
    tpot_ms,
)
from pytest_qwen.streams import Client, Stream

SECOND = Client(seconds=1.0, held_ratio=1.0, lag_p99_ms=0.1, lag_max_ms=0.2, cpu_ratio=0.1)


def stream(
    *, ttft: float = 200.0, gap: float = 20.0, tokens: int = 64, chunk: int = 1, **given: object
) -> Stream:
    """One token every `gap` ms, sent on when a chunk of them is full."""
    ready = [ttft + gap * (min(at + chunk, tokens) - min(chunk, tokens)) for at in range(0, tokens, chunk)]
    fields: dict[str, object] = {
        "scheduled_ms": 0.0,
        "sent_ms": 0.0,
        "state": "ok",
        "ttft_ms": ready[0],
        "last_ms": ready[-1],
        "e2e_ms": ready[-1] + 1,
        "chunk_ms": tuple(ready),
        "prompt_tokens": 100,
        "output_tokens": tokens,
        "asked_tokens": tokens,
    }
    return Stream(**(fields | given))  # type: ignore[arg-type]


@pytest.mark.parametrize("chunk", [1, 2, 4, 5, 7, 31, 32])
@pytest.mark.parametrize("tokens", [33, 64, 100])
def test_time_per_token_is_exact_however_many_tokens_a_chunk_holds(chunk: int, tokens: int) -> None:
    """Dividing by all tokens but one would give 19.05 ms for 4 of 64 a chunk."""
    if math.ceil(tokens / chunk) > chunk:  # enough chunks to tell how many tokens the first one holds
        assert tpot_ms(stream(tokens=tokens, chunk=chunk)) == pytest.approx(20.0)


@pytest.mark.parametrize(
    "given",
    [
        {"tokens": 1},
        {"tokens": 4, "chunk": 4},
        {"output_tokens": None, "state": "no-usage"},
        {"state": "cut"},
    ],
    ids=["one token", "one chunk", "no count", "failed"],
)
def test_no_time_per_token_where_there_is_none(given: dict[str, object]) -> None:
    assert tpot_ms(stream(**given)) is None  # type: ignore[arg-type]


def test_metrics_of_a_slice() -> None:
    found = of_streams([stream(ttft=100.0), stream(ttft=300.0)], client=SECOND, price_per_hour_usd=3.6)
    assert found["ttft_ms"] == 200.0
    assert found["tpot_ms"] == found["itl_ms"] == found["chunk_gap_ms"] == pytest.approx(20.0)
    assert found["decode_tokens_per_sec"] == pytest.approx(50.0)
    assert (found["requests_per_sec"], found["output_tokens_per_sec"]) == (2.0, 128.0)
    assert found["usd_per_mtok"] == pytest.approx(3.6 / (128 * 3600) * 1e6)
    assert found["error_ratio"] == 0.0


def test_without_a_load_the_wall_is_from_the_first_request_to_the_last_answer() -> None:
    found = of_streams([stream(), stream(ttft=400.0)])
    assert found["output_tokens_per_sec"] == pytest.approx(128 / ((400 + 63 * 20 + 1) / 1000))


def test_several_tokens_a_chunk_give_no_inter_token_latency() -> None:
    found = of_streams([stream(), stream(chunk=4)], client=SECOND)
    assert "itl_ms" not in found
    assert found["chunk_gap_ms"] > 0


def test_one_uncounted_answer_leaves_nothing_said_of_tokens() -> None:
    found = of_streams([stream(), stream(output_tokens=None, state="no-usage")], client=SECOND)
    assert found["ttft_ms"] == 200.0
    assert not {"tpot_ms", "output_tokens_per_sec", "decode_tokens_per_sec", "itl_ms"} & found.keys()


def test_failed_requests_are_in_no_latency_and_no_rate_but_in_the_error_ratio_and_the_gap() -> None:
    stalled = stream(state="cut", chunk_ms=(200.0, 2400.0), output_tokens=None)
    found = of_streams([stream(), stalled], client=SECOND)
    assert (found["requests_per_sec"], found["error_ratio"]) == (1.0, 0.5)
    assert found["longest_gap_ms"] == 2200.0
    assert found["ttft_ms"] == 200.0


def test_silence_is_a_gap_until_the_request_was_given_up() -> None:
    silent = stream(state="silent", chunk_ms=(200.0, 220.0), e2e_ms=5220.0, output_tokens=None)
    assert longest_gap_ms([silent]) == 5000.0
    assert longest_gap_ms([stream(tokens=1)]) is None


def test_goodput_counts_what_is_complete_and_within_every_limit() -> None:
    slos = [Slo(metric="ttft_ms", limit=250.0), Slo(metric="tpot_ms", limit=25.0)]
    slow = stream(gap=30.0)
    late = stream(ttft=251.0)
    on_the_limit = stream(ttft=250.0, gap=25.0)
    failed = stream(state="http-error")
    assert goodput_per_sec([stream(), slow, late, on_the_limit, failed], 2.0, slos) == 1.0


def test_goodput_is_unknown_where_a_request_does_not_show_whether_it_was_good() -> None:
    uncounted = stream(state="no-usage", output_tokens=None)
    assert goodput_per_sec([stream(), uncounted], 1.0, [Slo(metric="tpot_ms", limit=25.0)]) is None
    known_bad = [Slo(metric="tpot_ms", limit=25.0), Slo(metric="ttft_ms", limit=100.0)]
    assert goodput_per_sec([uncounted], 1.0, known_bad) == 0.0
    assert goodput_per_sec([stream(chunk=4)], 1.0, [Slo(metric="itl_ms", limit=25.0)]) is None


def test_a_requests_own_percentile_of_gaps_decides_about_inter_token_latency() -> None:
    stalled = stream(chunk_ms=(0.0, 20.0, 40.0, 1040.0), output_tokens=4, ttft_ms=0.0, last_ms=1040.0)
    assert goodput_per_sec([stalled], 1.0, [Slo(metric="itl_ms", limit=25.0)]) == 1.0
    assert goodput_per_sec([stalled], 1.0, [Slo(metric="itl_ms", limit=25.0, fraction=0.95)]) == 0.0


def test_shares_of_cache_and_answers_are_of_tokens() -> None:
    assert cached_ratio([stream(cached_tokens=50), stream(cached_tokens=0), stream()]) == 0.25
    assert cached_ratio([stream()]) is None
    assert answered_ratio([stream(output_tokens=32), stream()]) == 0.75


def test_failures_are_told_the_commonest_first() -> None:
    streams = [
        stream(),
        *(stream(state="http-error", detail="status 500\nmore") for _ in range(3)),
        stream(state="cut"),
        stream(state="silent", detail="60 s"),
        stream(state="malformed"),
    ]
    assert failures_in_words(streams) == "3 http-error (status 500), 1 cut, 1 silent (60 s), 1 others"
    assert not failures_in_words([stream()])


def test_the_quantile_of_few_requests_is_about_as_often_too_high_as_too_low() -> None:
    """Of exponential values, whose p95 is -ln 0.05; the usual quantile is too low in two of three samples."""
    rng = random.Random(1)
    truth = -math.log(0.05)
    samples = [[rng.expovariate(1) for _ in range(20)] for _ in range(2000)]
    low = sum(middle_quantile(sample, 0.95) < truth for sample in samples) / len(samples)
    usual = sum(percentile(sample, 0.95) < truth for sample in samples) / len(samples)
    assert 0.43 < low < 0.57
    assert usual > 0.58
