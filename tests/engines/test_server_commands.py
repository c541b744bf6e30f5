"""What a load is on each server's command line, and what a server cannot do, in words."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from pytest_qwen.engines.base import LoadSpec
from pytest_qwen.engines.launching import OF_THE_CLIENT, STARTING, launch, options_of
from pytest_qwen.engines.servers import SERVERS
from pytest_qwen.errors import Misuse, NotInstalled, QwenError, Unavailable


def command(engine: str, **fields: object) -> str:
    """The command after the program, with the options of the load given by name."""
    options = fields.pop("options", {})
    given = {"binary": sys.executable.replace("python", "python")} | options  # type: ignore[operator]
    spec = LoadSpec(engine=engine, model="org/m", options=tuple(sorted(given.items())), **fields)  # type: ignore[arg-type]
    made = launch(spec, options_of(spec), "SOURCE", 1234)
    return " ".join(made.command[1:])


@pytest.fixture
def program(tmp_path: Path) -> str:
    file = tmp_path / "server"
    file.write_text("#!/bin/sh\n")
    file.chmod(0o755)
    return str(file)


def test_vllm_gets_all_that_a_load_says() -> None:
    said = command(
        "vllm",
        dtype="bfloat16",
        quantization="nf4",
        kv_cache="fp8",
        revision="r1",
        tensor_parallel=2,
        max_model_len=4096,
        trust_remote_code=True,
        seed=7,
        weights="dummy",
        options={"speculative": '{"method": "ngram"}', "sleep": True, "args": ("--max-num-seqs", "8")},
    )
    assert said == (
        "-m vllm.entrypoints.openai.api_server --model SOURCE --served-model-name org/m --host 127.0.0.1"
        ' --port 1234 --dtype bfloat16 --max-model-len 4096 --speculative-config {"method": "ngram"}'
        " --quantization bitsandbytes --kv-cache-dtype fp8 --revision r1 --trust-remote-code"
        " --tensor-parallel-size 2 --seed 7 --enable-sleep-mode --load-format dummy --max-num-seqs 8"
    )


@pytest.mark.parametrize(
    ("engine", "fields", "said"),
    [
        (
            "sglang",
            {"kv_cache": "fp8", "tensor_parallel": 2, "seed": 3, "max_model_len": 512},
            "-m sglang.launch_server --model-path SOURCE --served-model-name org/m --host 127.0.0.1 --port 1234"
            " --dtype bfloat16 --context-length 512 --kv-cache-dtype fp8_e4m3 --tp-size 2 --random-seed 3"
            " --enable-metrics --device cpu",
        ),
        (
            "transformers-serve",
            {"dtype": "float32", "quantization": "int8", "seed": 3},
            "-m transformers.cli.transformers serve SOURCE --host 127.0.0.1 --port 1234 --dtype float32"
            " --quantization bnb-8bit --default-seed 3 --device cpu",
        ),
        (
            "llama-cpp",
            {"max_model_len": 2048, "max_batch": 8, "kv_cache": "int8"},
            "-m pytest_qwen.engines.llama_server --model SOURCE --alias org/m --host 127.0.0.1 --port 1234"
            " --ctx-size 16384 --cache-type-k q8_0 --cache-type-v q8_0 --flash-attn on --parallel 8 --metrics"
            " --n-gpu-layers 0",
        ),
        (
            "llama-cpp",
            {"max_model_len": 2048, "options": {"args": ("-np", "2")}},
            "-m pytest_qwen.engines.llama_server --model SOURCE --alias org/m --host 127.0.0.1 --port 1234"
            " --ctx-size 4096 --metrics --n-gpu-layers 0 -np 2",
        ),
    ],
)
def test_the_others_too(engine: str, fields: dict[str, object], said: str) -> None:
    assert command(engine, **fields) == said


def test_ollama_is_told_by_its_environment(program: str) -> None:
    spec = LoadSpec(
        engine="ollama",
        model="qwen2.5:0.5b",
        kv_cache="int8",
        max_model_len=4096,
        options=(("binary", program),),
    )
    made = launch(spec, options_of(spec), "qwen2.5:0.5b", 1234)
    assert made.command == (program, "serve")
    assert made.environment["OLLAMA_HOST"] == "127.0.0.1:1234"
    assert made.environment["OLLAMA_CONTEXT_LENGTH"] == "4096"
    assert made.environment["OLLAMA_KV_CACHE_TYPE"] == "q8_0"


def test_the_sleep_routes_are_opened_only_for_a_load_that_sleeps(program: str) -> None:
    for sleeps in (True, False):
        options = (("binary", program), ("sleep", sleeps))
        spec = LoadSpec(engine="vllm", model="m", device="cuda", options=options)
        made = launch(spec, options_of(spec), "m", 1)
        assert ("VLLM_SERVER_DEV_MODE" in made.environment) == sleeps


@pytest.mark.parametrize(
    ("engine", "fields", "error", "said"),
    [
        ("llama-cpp", {"tensor_parallel": 2}, Unavailable, "an engine that can: vllm, sglang"),
        ("llama-cpp", {"quantization": "fp8"}, Unavailable, "name a GGUF file of that type"),
        (
            "llama-cpp",
            {"quantization": "gguf:Q4_K_M", "weights": "dummy"},
            Unavailable,
            "random weights for llama.cpp are written in half precision",
        ),
        ("vllm", {"kv_cache": "int4"}, Unavailable, "valid: fp8"),
        ("vllm", {"attention": "eager"}, Unavailable, "transformers-serve"),
        ("transformers-serve", {"kv_cache": "fp8"}, Unavailable, "cannot be asked for kv_cache"),
        ("sglang", {"options": {"speculative": "{}"}}, Unavailable, "--speculative-algorithm"),
        ("llama-cpp", {"options": {"sleep": True}}, Unavailable, "vllm"),
        ("vllm", {"options": {"argz": 1}}, Misuse, "did you mean 'args'"),
        ("vllm", {"options": {"url": "http://x"}}, Misuse, 'engine="endpoint"'),
        ("vllm", {"options": {"args": "--a b"}}, Misuse, "one word an argument"),
        ("vllm", {"options": {"args": ("--port", "1")}}, Misuse, "--qwen-endpoint=URL"),
        ("ollama", {}, Misuse, "no Python program"),
        ("vllm", {"options": {"binary": "/nowhere/vllm"}}, NotInstalled, "no such program"),
    ],
)
def test_what_a_server_cannot_do_is_said(
    engine: str, fields: dict[str, object], error: type[QwenError], said: str
) -> None:
    with pytest.raises(error) as caught:
        command(engine, **fields)
    assert type(caught.value) is error
    assert said in str(caught.value)


def test_random_weights_that_a_server_lacks_are_named_elsewhere(program: str) -> None:
    spec = LoadSpec(engine="ollama", model="m", weights="dummy", options=(("binary", program),))
    with pytest.raises(Unavailable, match="valid: vllm, sglang, llama-cpp, transformers-serve"):
        launch(spec, options_of(spec), "m", 1)


def test_a_missing_server_comes_with_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr("pytest_qwen.engines.launching.find_spec", lambda _name: None)
    for name, row in SERVERS.items():
        spec = LoadSpec(engine=name, model="m")
        with pytest.raises(NotInstalled) as caught:
            launch(spec, options_of(spec), "m", 1)
        assert row.install in str(caught.value)


def test_every_server_is_an_engine_and_a_dialect_of_the_client() -> None:
    from pytest_qwen.engines import target_of
    from pytest_qwen.engines.dialects import DIALECTS

    for name, row in SERVERS.items():
        assert target_of(name) == "pytest_qwen.engines.server:ServerEngine"
        assert row.dialect in DIALECTS


def test_the_page_on_servers_has_the_same_table() -> None:
    page = (Path(__file__).parents[2] / "docs" / "servers.md").read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| `")]
    told = {row[0].strip("`"): row for row in rows if row[0].strip("`") in SERVERS}
    assert told.keys() == SERVERS.keys()
    for name, row in SERVERS.items():
        _, _, quantization, kv_cache, parallel, dummy, sleeps = told[name]
        for field, cell in (("quantization", quantization), ("kv_cache", kv_cache)):
            assert set(re.findall(r"`([\w-]+)`", cell)) == set(row.values.get(field, {})), (name, field)
        assert (parallel == "yes") == ("tensor_parallel" in row.flags)
        assert (dummy == "no") == (row.dummy is None)
        assert (sleeps == "yes") == ("sleep" in row.flags)
    for option in (*STARTING, *OF_THE_CLIENT):
        assert f"`{option}`" in page
