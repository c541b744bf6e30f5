"""Marks wherever pytest allows them, options and their ini twins, and names that others own too."""

import pytest

from .conftest import Run, text_of


def test_marks_on_function_class_module_and_parameter_as_pytest_mark_and_by_import(run: Run) -> None:
    result = run(
        """
        pytestmark = pytest.mark.model("of/module", dtype="float16")

        def test_module(llm):
            assert (llm.spec.model, llm.spec.dtype) == ("of/module", "float16")

        @model("of/function")
        def test_function(llm):
            assert (llm.spec.model, llm.spec.dtype) == ("of/function", "float16")

        @pytest.mark.model("of/class")
        class TestClass:
            def test_class(self, llm):
                assert llm.spec.model == "of/class"

            @model(seed=3)
            def test_both(self, llm):
                assert (llm.spec.model, llm.spec.seed) == ("of/class", 3)

        @pytest.mark.parametrize("name", [
            pytest.param("a", marks=model("of/a")), pytest.param("b", marks=pytest.mark.model("of/b")),
        ])
        def test_parameter(llm, name):
            assert llm.spec.model == "of/" + name
        """,
        "--strict-markers",
    )
    result.assert_outcomes(passed=6)


def test_bounds_merge_from_module_to_parameter_and_the_closest_wins(run: Run) -> None:
    result = run(
        """
        pytestmark = [model("m"), max_ttft(1)]

        @max_ttft(500)
        def test_relaxed(llm):
            llm.measure()

        def test_inherited(llm):
            llm.measure()

        @pytest.mark.parametrize("n", [pytest.param(1, marks=max_ttft(600))])
        def test_parameter(llm, n):
            llm.measure()
        """
    )
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["*FAIL max_ttft: median ≤ 1 ms: measured 100 ms*"])


@pytest.mark.parametrize("strict", [(), ("--strict-markers",)], ids=["lax", "strict"])
def test_a_bare_gpu_mark_of_another_project_leaves_its_tests_alone(
    pytester: pytest.Pytester, run: Run, strict: tuple[str, ...]
) -> None:
    result = run(
        """
        @pytest.mark.gpu
        def test_theirs():
            pass

        @pytest.mark.gpu
        @pytest.mark.model
        class TestTheirs:
            def test_theirs_too(self):
                pass
        """,
        *strict,
    )
    result.assert_outcomes(passed=2)
    assert "qwen:" not in result.stdout.str().replace("qwen: qwen-engine=fake", "")


def test_a_bare_gpu_mark_on_a_test_of_ours_wants_any_gpu(run: Run) -> None:
    result = run("@gpu\n@model('m')\ndef test_it(llm): pass", "--gpu=cpu", "-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["*wants a gpu; this run is on CPU*"])


@pytest.mark.parametrize("given", [("--gpu=cpu",), ("--gpu", "cpu"), ("--qwen-gpu=cpu",)])
def test_gpu_is_an_option_of_ours(run: Run, given: tuple[str, ...]) -> None:
    result = run("def test_it(gpu):\n    assert gpu.is_cpu and gpu.named", *given)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["qwen: *qwen-gpu=cpu*; on CPU"])


OWNER = """
def pytest_addoption(parser):
    parser.addoption("--gpu", type=int, default=0)
"""


@pytest.mark.parametrize("owner", ["conftest", "plugin"])
@pytest.mark.parametrize("given", [("--gpu=7",), ("--gpu", "7")])
def test_another_owner_of_gpu_keeps_it_and_ours_is_the_long_name(
    pytester: pytest.Pytester, run: Run, owner: str, given: tuple[str, ...]
) -> None:
    if owner == "conftest":
        pytester.makeconftest(OWNER)
    else:
        pytester.makepyfile(gpu_owner=OWNER)
        given = ("-p", "gpu_owner", *given)
    result = run(
        """
        def test_it(gpu, pytestconfig):
            assert pytestconfig.getoption("--gpu") == 7
            assert gpu.is_cpu and gpu.asked == "cpu"
        """,
        "--qwen-gpu=cpu",
        *given,
        process=True,
    )
    result.assert_outcomes(passed=1)


def test_ini_twins_and_the_command_line_over_them(pytester: pytest.Pytester, run: Run) -> None:
    pytester.makeini(
        """
        [pytest]
        qwen_model = from/ini
        qwen_gpu = cpu
        qwen_budget = 7
        qwen_no_verdict = skip
        """
    )
    source = """
        def test_it(llm, pytestconfig):
            settings = pytestconfig.pluginmanager.getplugin("qwen-session").settings
            print(settings.model, settings.gpu, settings.budget_s, settings.no_verdict)
    """
    run(source, "-s").stdout.fnmatch_lines(["*from/ini cpu 7.0 skip*"])
    run(None, "-s", "--qwen-model=from/line", "--qwen-budget=3").stdout.fnmatch_lines(
        ["*from/line cpu 3.0 skip*"]
    )


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("--qwen-budget=long", "is not a number"),
        ("--qwen-budget=-1", "is not above 0"),
        ("--qwen-alpha=0.7", "is not between 0 and 0.5"),
        ("--qwen-no-verdict=pass", "is not a choice"),
        ("--qwen-weights=dumy", "did you mean 'dummy'?"),
        ("--qwen-replay=nowhere", "there are no records to read"),
        ("--gpu=h10", "did you mean"),
    ],
)
def test_a_wrong_option_is_one_message_and_exit_code_4(run: Run, option: str, says: str) -> None:
    result = run("def test_it(): pass", option, process=True)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert says in text_of(result)
    assert text_of(result).count(says) == 1


def test_the_header_is_there_only_with_an_option(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_it(): pass")
    pytester.runpytest_inprocess().stdout.no_fnmatch_line("qwen:*")
    pytester.runpytest_inprocess("--qwen-budget=5").stdout.fnmatch_lines(["qwen: qwen-budget=5*"])


def test_markers_are_documented_each_with_signature_and_example(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_inprocess("--markers")
    result.stdout.fnmatch_lines(
        [
            "@pytest.mark.gpu(*names, count=1, min_memory_gb=None): *",
            "@pytest.mark.model(id=None, *",
            "@pytest.mark.max_ttft(limit, stat='median'): *Example: @max_ttft(500*",
        ]
    )


def test_help_lists_every_option(pytester: pytest.Pytester) -> None:
    text = pytester.runpytest_inprocess("--help").stdout.str()
    for option in (
        "--gpu=",
        "--qwen-gpu",
        "--qwen-plan",
        "--qwen-report",
        "--qwen-replay",
        "--qwen-baseline",
    ):
        assert option in text


OTHERS = """
    import pytest

    @pytest.fixture
    def gpu(): return "my gpu"

    @pytest.fixture
    def load(): return "my load"

    def test_fixture(gpu, load):
        assert (gpu, load) == ("my gpu", "my load")

    @pytest.mark.parametrize(("plan", "load"), [("a", "b")])
    def test_parameter(plan, load):
        assert (plan, load) == ("a", "b")

    @pytest.mark.gpu
    @pytest.mark.parametrize("compare", [1])
    def test_with_their_mark(gpu, compare):
        assert compare == 1
"""


def test_fixtures_and_parameters_of_the_users_own_are_not_ours(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(OTHERS)
    result = pytester.runpytest_inprocess("--strict-markers", "-W", "error")
    result.assert_outcomes(passed=3)
    assert "qwen:" not in result.stdout.str().replace("qwen: qwen-engine=fake", "")


def test_a_bound_beside_a_users_own_fixture_of_our_name_still_lacks_ours(run: Run) -> None:
    result = run(
        """
        @pytest.mark.parametrize("load", [1])
        @max_ttft(500)
        def test_it(load): pass
        """
    )
    result.assert_outcomes(errors=1)
    assert "a bound was set on a test that measures nothing" in text_of(result)
