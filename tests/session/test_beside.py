"""The fixtures `published` and `law` in a session: in the summary, the files, over xdist, and judged again."""

import json
import xml.etree.ElementTree as ET
from collections.abc import Callable

import pytest

from .conftest import Run, text_of

WORKERS = pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "xdist"])
SOURCE = """
    QWEN = ("quantization", "memory and speed", "Qwen-7B Int4")

    @model("m", options={"load_log": %r, "itl_ms": 20.0})
    @workload(output_tokens=5)
    def test_measured(llm, published, law):
        points = []
        for batch in (1, 2, 4):
            seen = llm.measure(batch_size=batch, output_tokens=2 + batch)
            points.append(({"batch": seen.rounds[0].output_tokens}, seen.values("e2e_latency_ms")[0]))
        found = law("time of an answer", points, ("1", "batch"), unit="ms")
        assert found.coefficient("batch") == pytest.approx(20)
        published(*QWEN, memory_used_gb=8.3, tokens_per_sec=50.0)
        assert published(*QWEN, against="Qwen-7B BF16", tokens_per_sec=9.0)[0].standing == "different"

    def test_only_told(published):
        published("gpu-comparison", "7B on L4", "measured", tokens_per_sec=None, why="no L4 here")
"""
A100 = "from pytest_qwen.testing import pretend_gpus\npretend_gpus('a100-80')"


@pytest.fixture
def source(load_log: Callable[[], list[str]]) -> str:
    return SOURCE % str(load_log.path)  # type: ignore[attr-defined]


@WORKERS
def test_standings_and_laws_are_shown_and_written(
    run: Run, pytester: pytest.Pytester, source: str, workers: tuple[str, ...]
) -> None:
    pytester.makeconftest(A100)
    result = run(source, "--qwen-report=out", *workers, process=True)
    result.assert_outcomes(passed=2)
    text = text_of(result)
    assert "time of an answer = 80 ms + 20 ms x batch (R² 1.00000, n 3" in text
    assert "published figures beside ours" in text
    for line in (
        "*memory_used_gb*8.21*8.3*reproduced",
        "*tokens_per_sec*50.09*50*reproduced",
        "*tokens_per_s* 50.09 / 40.93 *9*different +6*",
        "*tokens_per_sec*30.2*-*impossible",
        "*: 1 of 43 rows*",
    ):
        result.stdout.fnmatch_lines([line])
    page = (pytester.path / "out" / "report.md").read_text()
    assert "## Published figures beside ours\n\n### " in page
    assert "| memory and speed | Qwen-7B Int4 | memory\\_used\\_gb | 8.21 | 8.3 | reproduced |  |" in page
    assert "| time of an answer | 80 ms + 20 ms x batch | 1.00000 | 3 |" in page


def test_they_are_judged_again_on_the_card_that_they_were_measured_on(
    run: Run, pytester: pytest.Pytester, source: str, load_log: Callable[[], list[str]]
) -> None:
    pytester.makeconftest(A100)
    run(source, "--qwen-report=out", process=True).assert_outcomes(passed=2)
    loads = load_log()
    pytester.makeconftest("")  # a machine without a GPU
    again = run(source, "--qwen-replay=out", "--qwen-report=again", process=True)
    again.assert_outcomes(passed=2)
    assert load_log() == loads
    first, second = (
        json.loads((pytester.path / folder / "records.json").read_text())["records"]
        for folder in ("out", "again")
    )
    for name in ("standings", "laws"):
        assert [record[name] for record in first] == [record[name] for record in second]
    assert first[0]["standings"][0]["gpu"] == "a100-80"


def test_junit_has_them_as_properties(run: Run, pytester: pytest.Pytester, source: str) -> None:
    pytester.makeconftest(A100)
    run(source, "--junitxml=junit.xml", process=True).assert_outcomes(passed=2)
    cases = ET.parse(pytester.path / "junit.xml").getroot().iter("testcase")  # noqa: S314 - our own file
    found = {p.get("name"): p.get("value") for case in cases for p in case.iter("property")}
    assert float(found["qwen.law.time of an answer.batch"]) == pytest.approx(20)
    assert found["qwen.law.time of an answer.law"] == "80 ms + 20 ms x batch"
    figure = "qwen.published.7B on L4.measured.tokens_per_sec"
    assert found[f"{figure}.standing"] == "impossible"
    assert found[f"{figure}.published"] == "30.2"
    assert f"{figure}.ours" not in found


def test_a_session_without_them_says_nothing_of_them(run: Run) -> None:
    result = run("@model('m')\ndef test_it(llm): llm.measure()")
    assert "published" not in text_of(result)
    assert "fitted" not in text_of(result)


def test_what_is_not_published_and_what_is_no_number_fails_the_test_in_words(run: Run) -> None:
    result = run(
        """
        QWEN = ("quantization", "memory and speed", "Qwen-7B Int4")

        def test_name(published): published(*QWEN, memory_used=1.0)
        def test_nothing(published): published(*QWEN)
        def test_text(published): published(*QWEN, tokens_per_sec="fast")
        def test_nan(published): published(*QWEN, tokens_per_sec=float("nan"))
        def test_flag(published): published(*QWEN, tokens_per_sec=True)
        def test_law(law): law("y", [({"x": 1}, 1.0)], ("1", "x"), unit="ms")
        """
    )
    result.assert_outcomes(failed=6)
    text = text_of(result)
    assert "did you mean 'memory_used_gb'?" in text
    assert "published(...) without a figure" in text
    assert text.count("\na measured figure is not a number") == 3
    assert "y: too few points for a fit" in text


def test_fixtures_of_these_names_may_be_the_users_own(run: Run) -> None:
    result = run(
        """
        @pytest.fixture
        def published(): return "mine"

        def test_it(published): assert published == "mine"
        """
    )
    result.assert_outcomes(passed=1)
