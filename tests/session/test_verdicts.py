"""PASS, FAIL and NO VERDICT from a mark to the exit code, and gates that proved nothing."""

import pytest

from .conftest import Run, text_of

WORKERS = pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "xdist"])

# 100 ms to the first token, then 20 ms a token: 50 tok/s
ALL_THREE = """
    NOISY = {"jitter": ("iid", 0.03)}
    pytestmark = model("m", options=NOISY)

    @min_tokens_per_sec(30)
    @max_ttft(500)
    def test_pass(llm):
        assert "def" in llm.generate("Write").text

    @min_tokens_per_sec(80)
    def test_fail(llm):
        llm.measure()

    @min_tokens_per_sec(50)
    def test_unsure(llm):
        llm.measure()
"""


@WORKERS
def test_the_three_outcomes(run: Run, workers: tuple[str, ...]) -> None:
    result = run(ALL_THREE, *workers)
    text = text_of(result)
    result.assert_outcomes(passed=1, failed=2)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert "FAIL min_tokens_per_sec: median ≥ 80 tok/s: measured " in text
    assert "NO VERDICT min_tokens_per_sec: median ≥ 50 tok/s: measured " in text
    assert "budget ended before the evidence was sure" in text
    assert "2 PASS, 1 FAIL, 1 NO VERDICT" in text


@WORKERS
def test_no_verdict_can_skip_but_never_passes(run: Run, workers: tuple[str, ...]) -> None:
    result = run(ALL_THREE, "--qwen-no-verdict=skip", "-rs", *workers)
    result.assert_outcomes(passed=1, failed=1, skipped=1)
    assert "NO VERDICT min_tokens_per_sec" in text_of(result)


@WORKERS
def test_a_named_gate_that_measured_nothing_is_not_green(run: Run, workers: tuple[str, ...]) -> None:
    source = """
        @model("m", options={"jitter": ("iid", 0.03)})
        @min_tokens_per_sec(50)
        def test_unsure(llm):
            llm.measure()
    """
    result = run(source, "--gpu=cpu", "--qwen-no-verdict=skip", *workers)
    result.assert_outcomes(skipped=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert text_of(result).count("NOTHING MEASURED: --gpu=cpu was to be proven and 1 bound(s)") == 1
    unnamed = run(None, "--qwen-no-verdict=skip", *workers)
    assert unnamed.ret == pytest.ExitCode.OK


def test_a_named_gpu_whose_every_test_was_for_another_is_not_green(
    pytester: pytest.Pytester, run: Run
) -> None:
    pytester.makeconftest("from pytest_qwen.testing import pretend_gpus\npretend_gpus('l4')")
    result = run(
        "@gpu('h100')\n@model('m')\n@max_ttft(500)\ndef test_it(llm):\n    llm.measure()",
        "--gpu=l4",
        process=True,
    )
    result.assert_outcomes(skipped=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert "NOTHING MEASURED" in text_of(result)


def test_a_named_run_without_bounds_is_no_gate(run: Run) -> None:
    assert run("@model('m')\ndef test_it(llm): llm.generate('a')", "--gpu=cpu").ret == pytest.ExitCode.OK
    assert run("def test_it(): pass", "--gpu=cpu").ret == pytest.ExitCode.OK


def test_a_failing_body_is_the_users_own_failure_and_is_not_judged(run: Run) -> None:
    result = run(
        """
        @model("m")
        @max_ttft(500)
        def test_it(llm):
            assert llm.generate("a").text == "something else"
        """
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*assert llm.generate*"])
    assert "max_ttft: median" not in text_of(result)


def test_every_kind_of_bound_that_a_fake_can_measure(run: Run) -> None:
    result = run(
        """
        pytestmark = model("m", options={"memory_gb": 2.0, "load_s": 3.0})

        @max_vram(2)
        @max_load_time(3)
        @max_itl(21, stat="p99")
        @pytest.mark.max_tpot(21)
        @pytest.mark.max_e2e_latency(3000)
        @pytest.mark.min_prefill_tokens_per_sec(600)
        @max_usd_per_mtok(10, price_per_hour=1.0)
        @min_tokens_per_sec(40, scope="system")
        def test_met(llm): llm.measure()

        @max_vram(1.9)
        def test_memory(llm): llm.measure()

        @max_load_time(2.9)
        def test_load(llm): llm.measure()

        @max_usd_per_mtok(1, price_per_hour=1.0)
        def test_price(llm): llm.measure()

        @pytest.mark.min_mbu(0.1)
        def test_unknown(llm): llm.measure()
        """
    )
    text = text_of(result)
    result.assert_outcomes(passed=1, failed=4)
    assert "FAIL max_vram: ≤ 1.9 GB: observed 2 GB" in text
    assert "FAIL max_load_time: ≤ 2.9 s: observed 3 s" in text
    assert "FAIL max_usd_per_mtok" in text
    assert "NO VERDICT min_mbu: median ≥ 0.1 ratio: no clean round gave mbu_ratio" in text


def test_an_sla_preset_is_its_bounds(run: Run) -> None:
    result = run(
        """
        @model("m")
        @sla("interactive")
        def test_it(llm): llm.measure()

        @model("m", options={"itl_ms": 40.0})
        @sla("interactive")
        def test_slow(llm): llm.measure()

        @model("m", options={"itl_ms": 40.0})
        @sla("interactive")
        @min_tokens_per_sec(20)
        def test_overridden(llm): llm.measure()
        """
    )
    result.assert_outcomes(passed=2, failed=1)


@WORKERS
def test_a_slowdown_against_another_configuration(run: Run, workers: tuple[str, ...]) -> None:
    result = run(
        """
        pytestmark = model("m", options={"itl_ms": 20.0, "jitter": ("iid", 0.01)})

        @max_slowdown(1.2, vs={"options": {"itl_ms": 20.0, "jitter": ("iid", 0.01)}})
        def test_equal(llm): pass

        @max_slowdown(1.2, vs={"options": {"itl_ms": 10.0}})
        def test_slower(llm): llm.generate("x")
        """,
        *workers,
    )
    text = text_of(result)
    result.assert_outcomes(passed=1, failed=1)
    assert "FAIL max_slowdown: median ≤ 1.2 ratio: measured " in text
