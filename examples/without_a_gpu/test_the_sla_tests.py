"""Do our SLA tests catch what they are there to catch? Each runs against an engine of known speed."""

from pathlib import Path

import pytest

SLA_TESTS = Path(__file__).parents[1] / "first_team" / "test_sla.py"

# An L4 that is not there, and for each test an engine that is as slow and as large as we say.
CONFTEST = """
from pytest_qwen import model
from pytest_qwen.testing import pretend_gpus

pretend_gpus("l4")

def pytest_itemcollected(item):
    item.add_marker(model(options={programme!r}))
"""


@pytest.fixture
def sla(pytester):
    """Run one of the SLA tests, with the fake engine programmed as given."""

    def run(test: str, **programme: object) -> pytest.RunResult:
        pytester.makeconftest(CONFTEST.format(programme=programme))
        pytester.makepyfile(test_sla=SLA_TESTS.read_text(encoding="utf-8"))
        return pytester.runpytest("--qwen-engine=fake", "--gpu=l4", "-k", f"{test} and not bf16")

    return run


@pytest.mark.parametrize("test", ["test_interactive", "test_first_token", "test_cost", "test_optimised"])
def test_a_good_model_passes(sla, test):
    sla(test, itl_ms=20.0, jitter=("iid", 0.01)).assert_outcomes(passed=1, deselected=5)


def test_slow_decoding_is_caught(sla):
    result = sla("test_interactive", itl_ms=40.0, jitter=("iid", 0.02))
    result.assert_outcomes(failed=1, deselected=5)
    result.stdout.fnmatch_lines(["FAIL min_tokens_per_sec: median ≥ 30 tok/s: measured 25.* tok/s *"])


def test_a_slow_tail_of_first_tokens_is_caught(sla):
    """One first token in five takes half a second and more; the median would not notice."""
    result = sla("test_first_token", ttft_ms=450.0, jitter=("iid", 0.15))
    result.assert_outcomes(failed=1, deselected=5)


def test_a_wrong_answer_is_caught_however_fast(sla):
    result = sla("test_interactive", text="I am sorry, but I cannot do that.")
    result.assert_outcomes(failed=1, deselected=5)
    result.stdout.fnmatch_lines(["*assert 'def ' in *"])


def test_too_much_memory_is_caught(sla):
    sla("test_interactive", memory_gb=22.0).assert_outcomes(failed=1, deselected=5)
