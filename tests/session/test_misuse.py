"""Bad input: each gives one clear message and no traceback of ours, with and without xdist."""

import pytest

from .conftest import Run, text_of

WORKERS = pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "xdist"])

# the test, what its message says; all of them in one session, since none may disturb another
CASES = {
    "@max_ttft(limt=3)": ["marker 'max_ttft': unknown argument 'limt'", "did you mean 'limit'?"],
    "@max_ttft()": ["marker 'max_ttft': argument 'limit' is missing"],
    "@max_ttft(1, 2, 3)": ["takes at most 1 positional argument(s)"],
    "@max_ttft('500')": ["marker 'max_ttft': limit='500'", "a number in quotes"],
    "@min_tokens_per_sec(-5)": ["marker 'min_tokens_per_sec': limit=-5"],
    "@max_ttft(500, stat='p101')": ["marker 'max_ttft': stat='p101'"],
    "@gpu('h10')": ["h10", "did you mean"],
    "@model(dtype='bf16')": ["dtype='bf16' is none of"],
    "@sla('interactiv')": ["there is no preset 'interactiv'", "did you mean 'interactive'?"],
    "@max_ttft(5000)\n@max_e2e(400)": ["bounds 'max_ttft' and 'max_e2e_latency' conflict"],
    "@max_ttft(5)\n@max_ttft(6)": ["marker 'max_ttft': two bounds of the same kind conflict"],
    "@workload(prompt='a', prompt_tokens=3)": ["prompt and prompt_tokens exclude each other"],
    "@model(engine='fak')": ["there is no such engine", "did you mean 'fake'?"],
    "@model(options={'ttft': 3})": ["the fake engine has no such option", "did you mean 'ttft_ms'?"],
}


@WORKERS
def test_every_misuse_of_a_mark_says_what_was_asked_and_what_is_valid(
    run: Run, workers: tuple[str, ...]
) -> None:
    tests = [f"{marks}\n@model('m')\ndef test_{n}(llm): pass" for n, marks in enumerate(CASES)]
    source = "\n".join(["max_e2e = pytest.mark.max_e2e_latency", *tests, "def test_plain(): pass"])
    result = run(source, *workers)
    text = text_of(result)
    result.assert_outcomes(errors=len(CASES), passed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    for marks, messages in CASES.items():
        for message in messages:
            assert message in text, marks


@WORKERS
def test_bounds_that_nothing_was_measured_for(run: Run, workers: tuple[str, ...]) -> None:
    result = run(
        """
        pytestmark = model("m")

        @max_ttft(500)
        def test_without_llm(): pass

        @max_ttft(500)
        def test_without_call(llm): pass

        @max_ttft(500)
        def test_only_the_gpu(gpu): pass
        """,
        *workers,
    )
    text = text_of(result)
    result.assert_outcomes(errors=2, failed=1)
    assert "a bound was set on a test that measures nothing" in text
    assert "the argument 'llm' is missing" in text
    assert "a bound was set, but nothing was measured" in text
    assert "llm.generate(prompt), llm.chat(messages), llm.measure()" in text


def test_a_test_without_a_model_says_how_to_name_one(run: Run) -> None:
    result = run("def test_it(llm): pass", engine="transformers")
    result.assert_outcomes(errors=1)
    assert "nothing says which" in text_of(result)
    assert "--qwen-model=ID" in text_of(result)


def test_an_unknown_option_of_a_call_names_the_known_ones(run: Run) -> None:
    result = run("@model('m')\ndef test_it(llm):\n    llm.generate('a', max_tokens=3)")
    result.assert_outcomes(failed=1)
    assert "llm: unknown request option" in text_of(result)
    assert "output_tokens" in text_of(result)


@WORKERS
def test_a_gpu_that_is_not_there_is_a_usage_error_that_says_what_is(
    pytester: pytest.Pytester, run: Run, workers: tuple[str, ...]
) -> None:
    pytester.makeconftest("from pytest_qwen.testing import pretend_gpus\npretend_gpus('l4')")
    result = run("def test_it(): pass", "--gpu=h100", *workers, process=True)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    text = text_of(result)
    assert text.count("--gpu=h100: this machine has no such GPU") == 1
    assert "found: NVIDIA L4" in text
    assert "--qwen-plan --gpu=h100" in text


@WORKERS
def test_an_unknown_gpu_is_a_usage_error_with_the_likely_name(run: Run, workers: tuple[str, ...]) -> None:
    result = run("def test_it(): pass", "--gpu=h10", *workers, process=True)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert text_of(result).count("did you mean") == 1


@WORKERS
def test_a_mark_for_another_gpu_skips_with_wanted_and_found(run: Run, workers: tuple[str, ...]) -> None:
    result = run(
        "@gpu('l4')\n@model('m')\ndef test_it(llm): pass\ndef test_plain(): pass",
        "--gpu=cpu",
        "-rs",
        *workers,
    )
    result.assert_outcomes(skipped=1, passed=1)
    assert result.ret == pytest.ExitCode.OK
    assert "wants gpu l4; this run is on CPU" in text_of(result)


@WORKERS
def test_what_physics_forbids_is_refused_with_the_arithmetic_before_loading(
    pytester: pytest.Pytester, run: Run, workers: tuple[str, ...]
) -> None:
    pytester.makeconftest(
        """
        from pytest_qwen.testing import pretend_gpus
        from pytest_qwen.engines import child

        pretend_gpus("l4")

        def never(*arguments, **named):
            raise AssertionError("an engine was started")

        child.ChildEngine.load = never
        """
    )
    result = run(
        """
        @model("Qwen/Qwen2.5-Coder-7B-Instruct")
        @min_tokens_per_sec(100)
        def test_it(llm):
            llm.measure()
        """,
        *workers,
        process=True,
        engine="transformers",
    )
    result.assert_outcomes(errors=1)
    text = text_of(result)
    assert "physics forbids min_tokens_per_sec: median ≥ 100 tok/s" in text
    assert "300 GB/s" in text
    assert "best possible" in text
    assert "an engine was started" not in text
