"""The fixtures as a test author meets them: llm, load, compare, gpu, plan, and engines of other plugins."""

import pytest

from .conftest import Run, text_of


def test_generate_chat_and_stream(run: Run) -> None:
    result = run(
        """
        pytestmark = model("m", options={"text": "one two three four"})

        def test_generate(llm):
            answer = llm.generate("Count for me", output_tokens=2)
            assert (answer.text, answer.prompt_tokens, answer.output_tokens) == ("one two ", 3, 2)
            assert (answer.finish_reason, answer.ttft_ms, answer.e2e_ms) == ("length", 100.0, 120.0)
            assert answer.tokens_per_sec == pytest.approx(50)
            assert llm.answers == (answer,)

        def test_chat(llm):
            answer = llm.chat([{"role": "system", "content": "Be short"}, {"role": "user", "content": "Go"}])
            assert answer.text == "one two three four"
            assert answer.finish_reason == "stop"

        def test_stream(llm):
            pieces = list(llm.stream("Go"))
            assert pieces == ["one ", "two ", "three ", "four"]
            assert llm.answers[-1].text == "".join(pieces)

        @max_ttft(500)
        def test_a_stream_is_measured_too(llm):
            for piece in llm.stream("Go"):
                pass

        def test_tokens(llm):
            assert llm.count_tokens("one two") == 2
            assert llm.loaded.load_s == 1.0
            assert llm.spec.engine == "fake"

        def test_a_measurement_is_returned(llm):
            found = llm.measure(output_tokens=5)
            assert {len(r.token_ms) for r in found.rounds} == {5}
            assert found.values("decode_tokens_per_sec")[0] == pytest.approx(50)
        """
    )
    result.assert_outcomes(passed=6)


def test_the_body_generated_once_and_the_bound_repeats_it_at_its_own_length(run: Run) -> None:
    result = run(
        """
        @model("m", options={"text": "one two three"})
        @max_ttft(500)
        def test_it(llm):
            llm.generate("Go")

        @pytest.fixture(autouse=True)
        def look(request, llm):
            yield
            [run] = request.node.stash[next(k for k in request.node.stash._storage if _is_runs(request, k))]
            print("lengths", {r.output_tokens for r in run.measurements[-1].rounds})

        def _is_runs(request, key):
            return isinstance(request.node.stash[key], list)
        """,
        "-s",
    )
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*lengths {3}*"])


def test_load_by_call(run: Run) -> None:
    result = run(
        """
        from pytest_qwen.errors import ModelUnusable

        def test_two(load):
            assert load("a").generate("x").text
            assert load("b", seed=3).spec.seed == 3

        def test_error(load):
            with pytest.raises(ModelUnusable):
                load("c", options={"fault": "missing@load"})

        def test_wrong(load):
            load("a", sed=3)

        @max_ttft(500)
        def test_bound(load):
            load("a").measure()
        """
    )
    text = text_of(result)
    result.assert_outcomes(passed=3, failed=1)
    assert "marker 'model': unknown argument 'sed'" in text


def test_compare_by_call(run: Run) -> None:
    result = run(
        """
        @model("m", options={"itl_ms": 10.0, "jitter": ("iid", 0.01)})
        def test_it(compare):
            found = compare(vs={"options": {"itl_ms": 20.0, "jitter": ("iid", 0.01)}})
            assert 0.45 < found.slowdown < 0.55
            assert 1.8 < found.speedup < 2.2
            assert found.low < found.slowdown < found.high
            assert found.n >= 8
        """
    )
    result.assert_outcomes(passed=1)


def test_gpu_and_plan_tell_without_loading(pytester: pytest.Pytester, run: Run) -> None:
    pytester.makeconftest("from pytest_qwen.testing import pretend_gpus\npretend_gpus('l4', 'l4')")
    result = run(
        """
        def test_gpu(gpu):
            assert gpu.spec.alias == "l4"
            assert len(gpu.devices) == 2
            assert not gpu.is_cpu

        @gpu("l4", count=2)
        def test_two(llm): pass

        @gpu("l4", count=3)
        def test_three(llm): pass

        @gpu(min_memory_gb=80)
        def test_large(llm): pass

        @model("Qwen/Qwen2.5-Coder-7B-Instruct", engine="transformers")
        def test_plan(plan):
            assert plan.fits
            assert 10 < plan.ceiling.tokens_per_sec < 30
            assert dict(plan.fit.lines)

        @model("Qwen/Qwen2.5-Coder-32B-Instruct", engine="transformers")
        def test_too_large(plan):
            assert not plan.fits
        """,
        "-rs",
        process=True,
    )
    text = text_of(result)
    result.assert_outcomes(passed=4, skipped=2)
    assert "wants 3 GPUs; this run has 2" in text
    assert "wants a GPU of at least 80 GB" in text


def test_a_model_that_cannot_fit_says_the_plan_and_loads_nothing(pytester: pytest.Pytester, run: Run) -> None:
    pytester.makeconftest("from pytest_qwen.testing import pretend_gpus\npretend_gpus('l4')")
    result = run(
        """
        from pytest_qwen.errors import DoesNotFit

        @model("Qwen/Qwen2.5-Coder-32B-Instruct")
        def test_it(llm): pass

        def test_expected(load):
            with pytest.raises(DoesNotFit, match="does not fit"):
                load("Qwen/Qwen2.5-Coder-32B-Instruct")
        """,
        process=True,
        engine="transformers",
    )
    text = text_of(result)
    result.assert_outcomes(errors=1, passed=1)
    assert "Qwen/Qwen2.5-Coder-32B-Instruct in bfloat16 does not fit NVIDIA L4" in text
    assert "weights" in text


def test_another_plugin_registers_an_engine(pytester: pytest.Pytester, run: Run) -> None:
    pytester.makepyfile(
        my_engine="""
        from pytest_qwen.engines.fake import FakeEngine

        class Mine(FakeEngine):
            def load(self, spec):
                print("mine")
                return super().load(spec)
        """
    )
    pytester.makeconftest("def pytest_qwen_register_engines(): return {'mine': 'my_engine:Mine'}")
    source = "@model('m', engine='mine')\ndef test_it(llm): assert llm.generate('a').text"
    run(source, process=True).assert_outcomes(passed=1)
    run(None, "-n", "1").assert_outcomes(passed=1)


def test_the_engine_of_a_plugin_that_is_not_there_fails_rather_than_skips(
    pytester: pytest.Pytester, run: Run
) -> None:
    pytester.makeconftest("def pytest_qwen_register_engines(): return {'gone': 'not_installed:Engine'}")
    result = run("@model('m', engine='gone')\ndef test_it(llm): pass", process=True)
    result.assert_outcomes(errors=1)
    assert "not_installed" in text_of(result, engine_output=True)
