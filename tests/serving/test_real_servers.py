"""Real servers on a CPU, through the plugin: llama.cpp's own and `transformers serve`, with random weights."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

# The bounds are far from anything that can be measured: what is tested is the way from a mark to a verdict.
TESTS = """
    from pathlib import Path
    from pytest_qwen import max_load_time, max_ttft, min_tokens_per_sec, model, workload

    pytestmark = [
        model({model!r}, engine={engine!r}, max_model_len=512, options={options}),
        workload(prompt_tokens=64, output_tokens=8),
    ]


    @max_load_time(300)
    @max_ttft(60_000)
    @min_tokens_per_sec(0.001)
    def test_one(llm):
        Path("applied").write_text(" ".join(llm.loaded.applied))
        counted = llm.measure().rounds[-1].streams[0]
        assert {least} <= counted.prompt_tokens <= {most}
        assert counted.output_tokens == 8
        assert counted.one_token_a_chunk


    @workload(concurrency=3, requests_per_round=3)
    @max_ttft(60_000)
    def test_many(llm):
        measured = llm.measure()
        assert all(one.complete for seen in measured.rounds for one in seen.streams)


    def test_the_same_words_again(llm):
        first, second = (llm.generate("ba be bi", output_tokens=6, ignore_eos=True) for _ in range(2))
        assert first.text == second.text != ""
        assert first.output_tokens == 6
        assert "".join(llm.stream("ba be bi", output_tokens=6, ignore_eos=True)) == first.text
"""

# llama.cpp reads a prompt that it knows in other pieces, and random weights have near ties
UNCACHED = {"body": '{"cache_prompt": false}'}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the random weights of this module's servers are kept."""
    return tmp_path_factory.mktemp("cache")


def session(folder: Path, cache: Path, source: str, *options: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_server.py").write_text(dedent(source))
    lean = ("-p", "no:cacheprovider", "-p", "no:hypothesispytest", "-p", "no:benchmark")
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "--gpu=cpu",
            "-rP",
            *lean,
            "--rootdir=.",
            "-c",
            os.devnull,
            *options,
        ],
        cwd=folder,
        env={**os.environ, "XDG_CACHE_HOME": str(cache), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def left_running(folder: Path) -> list[str]:
    """Command lines of processes that serve from that cache."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in line:
            found.append(line)
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "needs", "options", "least", "most", "tells"),
    [
        ("llama-cpp", "xllamacpp", UNCACHED, 64, 64, "server llama-cpp"),
        ("transformers-serve", "fastapi", {}, 51, 77, "server transformers"),  # words
    ],
)
def test_a_real_server_from_mark_to_verdict(
    tmp_path: Path, cache: Path, engine: str, needs: str, options: object, least: int, most: int, tells: str
) -> None:
    pytest.importorskip(needs)
    source = TESTS.format(model="embedded/qwen2-tiny", engine=engine, options=options, least=least, most=most)
    # a shared machine may keep the client from measuring: that is told, and no failure of this test
    done = session(tmp_path, cache, source, "--qwen-budget=12", "--qwen-no-verdict=skip")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout or "skipped" in done.stdout
    assert tells in (tmp_path / "applied").read_text()
    assert "1 model loaded" in done.stdout
    (errors,) = (line for line in done.stdout.splitlines() if "max_error_rate ≤ 0" in line)
    assert "PASS" in errors
    assert not left_running(cache)


REAL = "PYTEST_QWEN_REAL_GGUF"
REAL_TESTS = """
    from pytest_qwen import max_ttft, model, workload

    pytestmark = model({model!r}, engine="llama-cpp", max_model_len=1024)


    @workload(prompt_tokens=32, output_tokens=16)
    @max_ttft(60_000)
    def test_it_writes_code(llm):
        answer = llm.chat([{{"role": "user", "content": "Write add(a, b) in Python."}}], output_tokens=64)
        assert "return a + b" in answer.text
        assert llm.count_tokens("return a + b") == 4
        llm.measure()
"""


@pytest.mark.slow
@pytest.mark.skipif(REAL not in os.environ, reason=f"{REAL} names no GGUF file of a small coder model")
def test_a_real_model_on_llama_cpp(tmp_path: Path, cache: Path) -> None:
    pytest.importorskip("xllamacpp")
    source = REAL_TESTS.format(model=os.environ[REAL])
    done = session(tmp_path, cache, source, "--qwen-budget=300", "--qwen-no-verdict=skip")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 model loaded" in done.stdout
