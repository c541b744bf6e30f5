"""What a run knows of a test before and after it ran: refusals on promised work, ceilings of the work done."""

from dataclasses import replace

import pytest
from measuring import fake_run, rounds_of

from pytest_qwen.ask import RunRequest
from pytest_qwen.bench import Bench
from pytest_qwen.bounds import BOUND_KINDS, Bound
from pytest_qwen.data import find_shape
from pytest_qwen.markers import Model, Workload
from pytest_qwen.planning import plan_for
from pytest_qwen.settings import Settings
from pytest_qwen.testing import fake_device

CODER = "Qwen/Qwen2.5-Coder-7B-Instruct"


def latency(limit_ms: float) -> Bound:
    kind = BOUND_KINDS["max_e2e_latency"]
    return Bound(
        marker=kind.marker, metric=kind.metric, direction=kind.direction, unit=kind.unit, limit=limit_ms
    )


def asking(workload: Workload) -> RunRequest:
    """A second for an answer on an L4, which makes at most 21 tokens in that time."""
    return RunRequest(model=Model(id=CODER), workload=workload, bounds=(latency(1000.0),))


@pytest.fixture
def bench() -> Bench:
    return Bench(Settings(), devices=lambda: (fake_device("l4"),))


def test_a_latency_is_refused_only_for_the_length_that_the_marks_promise(bench: Bench) -> None:
    long, open_ended = asking(Workload(output_tokens=128)), asking(Workload())
    assert "physics forbids" in (bench.refusal(long) or "")
    assert bench.refusal(open_ended) is None  # the body may ask for eight tokens
    assert plan_for(long, bench).outlook == "impossible"
    assert plan_for(open_ended, bench).outlook != "impossible"


def test_a_ceiling_is_that_of_the_tokens_that_were_made(bench: Bench) -> None:
    request = asking(Workload())
    spec, shape = bench.spec_for(request), find_shape(CODER)
    short = replace(rounds_of(fake_run(), 1)[0], prompt_tokens=8, output_tokens=8)
    of_short = bench._ceilings(request, spec, shape, short)
    of_long = bench._ceilings(request, spec, shape, replace(short, output_tokens=128))
    assert of_short["e2e_latency_ms"] < 1000 < of_long["e2e_latency_ms"]
    assert of_short["decode_tokens_per_sec"] == pytest.approx(21.2, abs=0.1)
