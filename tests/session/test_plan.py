"""--qwen-plan: one line a test for any card, nothing loaded, and an exit code that says impossible."""

import pytest

from .conftest import Run, text_of

WORKERS = pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "xdist"])
SOURCE = """
    pytestmark = model("Qwen/Qwen2.5-Coder-7B-Instruct")

    @min_tokens_per_sec({rate})
    def test_rate(llm): raise AssertionError("it ran")

    @gpu("l4")
    def test_elsewhere(llm): raise AssertionError("it ran")

    def test_unmarked(llm): raise AssertionError("it ran")

    {more}
"""


@WORKERS
def test_a_plan_is_one_line_a_test_and_imports_no_torch(
    run: Run, pytester: pytest.Pytester, workers: tuple[str, ...]
) -> None:
    pytester.makeconftest(
        """
        import sys

        def pytest_unconfigure():
            heavy = {"torch", "transformers"} & set(sys.modules)
            print("heavy:", sorted(heavy))
        """
    )
    result = run(
        SOURCE.format(rate=100, more=""),
        "--qwen-plan",
        "--gpu=h100",
        *workers,
        process=True,
        engine="transformers",
    )
    text = text_of(result)
    assert result.ret == pytest.ExitCode.OK
    assert "it ran" not in text
    assert "heavy: []" in text
    lines = [line for line in text.splitlines() if line.startswith(("feasible", "tight", "impossible"))]
    assert [line.split("::")[1].split(":")[0] for line in lines] == ["test_rate", "test_unmarked"]
    assert all("tok/s" in line and "GB" in line for line in lines)
    assert "1 more want another GPU" in text


@WORKERS
def test_what_is_impossible_or_misused_fails_the_plan(run: Run, workers: tuple[str, ...]) -> None:
    more = "@max_ttft(limt=3)\n    def test_wrong(llm): pass"
    result = run(
        SOURCE.format(rate=2000, more=more), "--qwen-plan", "--gpu=h100", *workers, engine="transformers"
    )
    text = text_of(result)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert "impossible  test_what_is_impossible_or_misused_fails_the_plan.py::test_rate" in text
    assert "misuse      test_what_is_impossible_or_misused_fails_the_plan.py::test_wrong" in text


def test_a_plan_on_a_cpu_says_that_nothing_is_known(run: Run) -> None:
    result = run(SOURCE.format(rate=100, more=""), "--qwen-plan", "--gpu=cpu")
    assert result.ret == pytest.ExitCode.OK
    assert "plan for CPU" in text_of(result)


def test_a_file_that_cannot_be_collected_is_no_plan(run: Run) -> None:
    result = run("import nowhere_to_be_found", "--qwen-plan", "--gpu=h100")
    assert result.ret == pytest.ExitCode.INTERRUPTED


@WORKERS
def test_a_precision_that_is_unknown_or_beyond_the_card_is_said(run: Run, workers: tuple[str, ...]) -> None:
    more = """
    @model(quantization="int5")
    def test_unknown(llm): pass

    @model(kv_cache="int3")
    def test_unknown_cache(llm): pass

    @model(quantization="int4")
    def test_turing(llm): pass

    @model(quantization="int8")
    def test_able(llm): pass
    """
    result = run(SOURCE.format(rate=1, more=more), "--qwen-plan", "--gpu=t4", *workers, engine="transformers")
    lines = {line.split("::")[1].split(":")[0]: line for line in text_of(result).splitlines() if "::" in line}
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert "quantization 'int5' is not known" in lines["test_unknown"]
    assert "kv_cache 'int3' is not known" in lines["test_unknown_cache"]
    assert lines["test_turing"].startswith("impossible")
    assert "this GPU cannot run int4 weights" in lines["test_turing"]
    assert lines["test_able"].startswith("feasible")
