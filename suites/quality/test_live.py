"""A model's own answers to the benchmark prompt, made and rated here, by any engine.

`--qwen-model=ID`, `--qwen-endpoint=URL`, or `--qwen-engine=` one that starts a server, with its model.
"""

from dataclasses import replace

import pytest

from pytest_qwen import min_pass_at_k, min_stars
from pytest_qwen.data import fixtures_dir

PROMPT = (fixtures_dir() / "answers" / "prompt.txt").read_text(encoding="utf-8")
MOST_TOKENS = 4096
SAMPLES = 5


@pytest.fixture
def writer(request):
    """The model that was asked for, loaded; skips where none was, or one whose weights are random."""
    config = request.config

    def said(name: str) -> str:
        return config.getoption(name, default=None) or config.getini(name) or ""

    if not said("qwen_model") and not said("qwen_endpoint"):
        pytest.skip("no model to ask: --qwen-model=ID or --qwen-endpoint=URL")
    if said("qwen_weights") == "dummy":
        pytest.skip("random weights write no programs: --qwen-weights=real")
    return request.getfixturevalue("load")()


@min_stars(3)
def test_greedy(writer, rate):
    """The likeliest answer."""
    rate(writer.generate(PROMPT, output_tokens=MOST_TOKENS))


@min_pass_at_k(0.5, k=1, stars=3)
def test_samples(writer, rate):
    """Sampled answers, as the published run made them."""
    seeds = range(SAMPLES)
    options = {"output_tokens": MOST_TOKENS, "temperature": 0.7, "top_p": 0.9}
    rate.all([writer.generate(PROMPT, seed=seed, **options) for seed in seeds])


@min_pass_at_k(0.5, k=1, stars=3)
def test_samples_together(writer, rate, record_property):
    """The same number of samples asked for at once: what is rated are the answers that were timed."""
    options = {"output_tokens": MOST_TOKENS, "temperature": 0.7, "top_p": 0.9, "batch_size": SAMPLES}
    answer = writer.generate(PROMPT, **options)
    record_property("qwen.together", f"TTFT {answer.ttft_ms:.0f} ms, {answer.e2e_ms / 1000:.1f} s in all")
    rate.all([replace(answer, text=text) for text in answer.texts])
