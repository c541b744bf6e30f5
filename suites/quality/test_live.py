"""A model's own answer to the benchmark prompt, made and rated here: `--qwen-model=ID`."""

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
    model = config.getoption("qwen_model") or config.getini("qwen_model")
    if not model:
        pytest.skip("no model to ask: --qwen-model=ID")
    if (config.getoption("qwen_weights") or config.getini("qwen_weights")) == "dummy":
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
