"""A price file decides what a token costs; what a model's shape forbids fails before anything is loaded."""

from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Run, text_of

COST = """
    @model("m")
    @workload(prompt_tokens=8, output_tokens=8)
    @max_usd_per_mtok({limit})
    def test_cost(llm): llm.measure()
"""
PLANNED = """
    @model("Qwen/Qwen2.5-Coder-7B-Instruct"{more})
    @workload(prompt_tokens={tokens}, output_tokens=8)
    def test_it(llm): raise AssertionError("it ran")
"""


@pytest.fixture
def price_file(pytester: pytest.Pytester) -> Callable[[str], Path]:
    """Write a price file into the test's folder."""

    def write(text: str) -> Path:
        path = pytester.path / "mine.toml"
        path.write_text(text)
        return path

    return write


@pytest.mark.parametrize(("price", "passes"), [(0.0001, True), (1000, False)])
def test_a_price_file_prices_the_card_of_the_run(run: Run, price_file, price: float, passes: bool) -> None:
    price_file(f"[cards.cpu]\nusd_per_hour = {price}")
    result = run(COST.format(limit=1), "--gpu=cpu", "--qwen-prices=mine.toml")
    text = text_of(result)
    result.assert_outcomes(passed=int(passes), failed=int(not passes))
    assert passes or "max_usd_per_mtok" in text


def test_the_ini_twin_and_the_mark_that_wins_over_it(run: Run, price_file, pytester: pytest.Pytester) -> None:
    price_file("[cards.cpu]\nusd_per_hour = 1000")
    pytester.makeini("[pytest]\nqwen_prices = mine.toml\n")
    run(COST.format(limit="1, price_per_hour=0.0001"), "--gpu=cpu").assert_outcomes(passed=1)
    run(COST.format(limit="1"), "--gpu=cpu").assert_outcomes(failed=1)


def test_a_plan_takes_the_prices_of_the_file(run: Run, price_file) -> None:
    source = PLANNED.format(more="", tokens=64)
    price_file("[cards.h100]\nusd_per_hour = 2.5")
    options = ("--qwen-plan", "--gpu=h100")
    assert "USD/Mtok" not in text_of(run(source, *options, engine="transformers"))
    assert "USD/Mtok" in text_of(run(None, *options, "--qwen-prices=mine.toml", engine="transformers"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[cards.l4]\nusd_per_hour = 0", "cards.l4.usd_per_hour: 0 is not a price above 0"),
        ("[cards", "is not TOML"),
        (None, "cannot be read"),
    ],
)
def test_a_wrong_price_file_ends_the_run_with_one_message(run: Run, price_file, content, said: str) -> None:
    if content is not None:
        price_file(content)
    result = run(COST.format(limit=1), "--gpu=cpu", "--qwen-prices=mine.toml")
    text = text_of(result)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert text.count(said) == 1


def test_a_price_of_zero_on_a_mark_is_misuse(run: Run) -> None:
    result = run(COST.format(limit="1, price_per_hour=0"), "--gpu=cpu")
    assert "price_per_hour" in text_of(result)
    result.assert_outcomes(errors=1)


FORBIDDEN = pytest.mark.parametrize(
    ("more", "tokens", "said"),
    [
        (", max_model_len=40000", 64, "a context of 40000 tokens is beyond the 32768"),
        ("", 33000, "a context of 33008 tokens is beyond the 32768"),
        (", tensor_parallel=3", 64, "3 cards cannot share 28 heads and 4 KV heads evenly"),
    ],
    ids=["max_model_len", "workload", "tensor_parallel"],
)


@FORBIDDEN
def test_what_the_shape_forbids_fails_before_loading(run: Run, more: str, tokens: int, said: str) -> None:
    result = run(PLANNED.format(more=more, tokens=tokens), "--gpu=cpu", engine="transformers")
    text = text_of(result)
    assert said in text
    assert "it ran" not in text
    result.assert_outcomes(errors=1)


@FORBIDDEN
def test_a_plan_calls_it_misuse(run: Run, more: str, tokens: int, said: str) -> None:
    source = PLANNED.format(more=more, tokens=tokens)
    result = run(source, "--qwen-plan", "--gpu=h200", engine="transformers")
    assert f"misuse      test_a_plan_calls_it_misuse.py::test_it: {said}" in text_of(result)
    assert result.ret == pytest.ExitCode.TESTS_FAILED


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("{", "cannot be read"),
        ('{"model_type": "qwen2"}', "does not say num_hidden_layers, hidden_size"),
    ],
)
def test_a_wrong_configuration_of_ones_own_is_one_message(
    run: Run, pytester: pytest.Pytester, config: str, said: str
) -> None:
    (pytester.path / "mine").mkdir()
    (pytester.path / "mine" / "config.json").write_text(config)
    result = run('@model("mine")\ndef test_it(llm): pass', "--gpu=cpu", engine="transformers")
    assert said in text_of(result)
    result.assert_outcomes(errors=1)
