"""Runs a test file through the plugin on the fake engine, in a real pytest session."""

from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

PREAMBLE = """
import pytest
from pytest_qwen import (
    gpu, max_itl, max_load_time, max_slowdown, max_ttft, max_usd_per_mtok, max_vram,
    min_tokens_per_sec, model, sla, workload,
)
"""
# plugins of the development environment that cost start-up time and add nothing here
LEAN = ("-p", "no:hypothesispytest", "-p", "no:benchmark", "-p", "no:cov", "-p", "no:cacheprovider")

Run = Callable[..., pytest.RunResult]


@pytest.fixture
def run(pytester: pytest.Pytester) -> Run:
    """`run(source, "--option", process=True)`: the outcome of that file, `source` None for the last one.

    In this process unless `process` or a number of workers is asked for.
    """

    def run_file(
        source: str | None, *arguments: object, process: bool = False, engine: str = "fake"
    ) -> pytest.RunResult:
        if source is not None:
            pytester.makepyfile(PREAMBLE + dedent(source))
        given = [*LEAN, f"--qwen-engine={engine}", *map(str, arguments)]
        apart = process or "-n" in given
        return pytester.runpytest_subprocess(*given) if apart else pytester.runpytest_inprocess(*given)

    return run_file


@pytest.fixture
def load_log(tmp_path: Path) -> Callable[[], list[str]]:
    """The model of each load that the fake engine wrote down; its file is `load_log.path`."""
    path = tmp_path / "loads.txt"

    def models() -> list[str]:
        lines = path.read_text().splitlines() if path.exists() else []
        return [line.split("@")[0] for line in lines]

    models.path = path  # type: ignore[attr-defined]
    return models


def text_of(result: pytest.RunResult, *, engine_output: bool = False) -> str:
    """Everything that the session printed, after checking that none of it is a failure of the plugin.

    `engine_output` allows what a failed engine process printed last, its own traceback among it.
    """
    text = result.stdout.str() + result.stderr.str()
    assert "INTERNALERROR" not in text, text
    ours = [line for line in text.splitlines() if "Traceback" in line or "pytest_qwen/" in line]
    allowed = ("    | ", "(/") if engine_output else ()
    assert not [line for line in ours if not any(mark in line for mark in allowed)], text
    return text
