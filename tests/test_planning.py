"""The plan of a test: outlook, line, and the reasons that a reader can act on."""

import pytest

from pytest_qwen.ask import RunRequest
from pytest_qwen.bounds import BOUND_KINDS, Bound
from pytest_qwen.data import find_shape
from pytest_qwen.gpus import CPU, lookup
from pytest_qwen.physics import Setup
from pytest_qwen.planning import plan, plan_for, render

CODER_7B = find_shape("Qwen/Qwen2.5-Coder-7B-Instruct")
CODER_32B = find_shape("Qwen/Qwen2.5-Coder-32B-Instruct")


def setup(gpu="l4", shape=CODER_7B, **more):
    return Setup(shape=shape, gpu=lookup(gpu), **{"dtype": "float16", **more})


def at_least(limit):
    kind = BOUND_KINDS["min_tokens_per_sec"]
    return Bound(
        marker=kind.marker, metric=kind.metric, direction=kind.direction, limit=limit, unit=kind.unit
    )


def test_a_test_within_every_limit_is_feasible():
    found = plan(setup(), [at_least(15)], test="test_a")
    assert found.outlook == "feasible"
    assert found.reasons == ()
    assert found.line.startswith(
        "feasible    test_a: Qwen/Qwen2.5-Coder-7B-Instruct in float16 on L4; at most 21.2"
    )
    assert f"{found.fit.total_bytes / 1e9:.1f} of 24.0 GB" in found.line
    assert "USD/Mtok" in found.line
    assert "\n" not in found.line


def test_a_forbidden_bound_is_impossible_and_says_why():
    found = plan(setup(), [at_least(15), at_least(30)])
    assert found.outlook == "impossible"
    assert "at most 21.2 tok/s" in found.line
    assert "int8 weights" in found.explain()


def test_weights_beyond_the_card_are_impossible():
    found = plan(setup("a100-40", CODER_32B))
    assert found.outlook == "impossible"
    assert "exceed the memory" in found.line


@pytest.mark.parametrize(
    ("asked", "bounds", "reason"),
    [
        (setup("t4"), [], "% of the memory by the estimate"),
        (setup("t4", prompt_tokens=8192), [], "% of the memory by the estimate"),
        (setup(), [at_least(19)], "beyond 80%"),
    ],
)
def test_what_engines_were_not_seen_to_reach_is_tight(asked, bounds, reason):
    found = plan(asked, bounds)
    assert found.outlook == "tight"
    assert reason in found.reasons[0]


@pytest.mark.parametrize("asked", [None, setup(quantization="q4_k_m"), Setup(shape=CODER_7B, gpu=CPU)])
def test_what_is_not_known_is_called_unknown(asked):
    found = plan(asked, [at_least(1e6)])
    assert found.outlook == "unknown"
    assert found.ceiling is None


def test_cost_is_that_of_the_ceiling_and_of_the_given_price():
    listed, given = plan(setup()), plan(setup(), price_per_hour_usd=1.5)
    assert listed.usd_per_mtok == pytest.approx(0.75 / listed.ceiling.tokens_per_sec / 3600 * 1e6)
    assert given.usd_per_mtok == pytest.approx(2 * listed.usd_per_mtok)
    assert plan(setup("a10g")).usd_per_mtok is None


def test_the_full_text_has_memory_and_arithmetic():
    text = plan(setup()).explain()
    assert "15.23 GB: weights (float16)" in text
    assert "ceiling: 7.07 B weights" in text


def test_a_request_is_planned_on_the_card_of_the_run():
    class OnL4:
        def setup_for(self, request):
            return setup()

    asked = RunRequest(bounds=(at_least(30),))
    found = plan_for(asked, OnL4(), test="test_b")
    assert (found.test, found.outlook) == ("test_b", "impossible")


def test_a_rendering_has_a_line_for_each_test_and_counts():
    text = render([plan(setup(), test="a"), plan(setup(), [at_least(30)], test="b"), plan(None, test="c")])
    assert len(text.splitlines()) == 4
    assert text.splitlines()[-1] == "3 planned: 1 feasible, 1 impossible, 1 unknown"
    assert render([]) == "0 planned: nothing"
