"""The servers that can be started: one row each, how it is called and what each part of a load is to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One kind of server: how it is called, and what each part of a load is on its command line.

    `module` (with arguments) is run by this Python when `package` is installed; `program` with `program_args`
    is looked for on PATH; `program_first` says which of the two is tried first. `model` is the flag before
    the model ("" for a bare argument), `alias` the one before the name under which it is served. `flags` maps
    fields of `LoadSpec`, "speculative" and "sleep" to flags; what is not in it cannot be asked of the server,
    and `hints` may say what to do instead. `values` translates our names of a value. `dummy` are the
    arguments for random weights, None where there are none. `sleeping` is the environment of sleep mode.
    `ready` answers 200 when requests are welcome. `dialect` is the kind of server to its client.
    """

    name: str
    package: str
    module: tuple[str, ...]
    program: str
    program_args: tuple[str, ...] = ()
    program_first: bool = False
    install: str
    model: str = "--model"
    alias: str = ""
    address: tuple[str, str] | None = ("--host", "--port")
    flags: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    always: tuple[str, ...] = ()
    on_cpu: tuple[str, ...] = ()
    dummy: tuple[str, ...] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    sleeping: Mapping[str, str] = field(default_factory=dict)
    hints: Mapping[str, str] = field(default_factory=dict)
    ready: str = "/health"
    dialect: str


_SHARED_FLAGS = {"revision": "--revision", "trust_remote_code": "--trust-remote-code", "dtype": "--dtype"}

SERVERS: Mapping[str, Server] = MappingProxyType(
    {
        row.name: row
        for row in (
            Server(
                name="vllm",
                dialect="vllm",
                package="vllm",
                module=("vllm.entrypoints.openai.api_server",),
                program="vllm",
                program_args=("serve",),
                install="pip install vllm",
                alias="--served-model-name",
                flags={
                    **_SHARED_FLAGS,
                    "max_model_len": "--max-model-len",
                    "tensor_parallel": "--tensor-parallel-size",
                    "quantization": "--quantization",
                    "kv_cache": "--kv-cache-dtype",
                    "seed": "--seed",
                    "speculative": "--speculative-config",
                    "sleep": "--enable-sleep-mode",
                },
                values={
                    "quantization": {
                        "fp8": "fp8",
                        "awq": "awq",
                        "gptq": "gptq",
                        "nf4": "bitsandbytes",
                        "compressed-tensors": "compressed-tensors",
                    },
                    "kv_cache": {"fp8": "fp8"},
                },
                dummy=("--load-format", "dummy"),
                environment={"VLLM_NO_USAGE_STATS": "1"},  # a measurement tells nobody
                sleeping={"VLLM_SERVER_DEV_MODE": "1"},
            ),
            Server(
                name="sglang",
                dialect="sglang",
                package="sglang",
                module=("sglang.launch_server",),
                program="sglang",
                program_args=("serve",),
                install='pip install "sglang[all]"',
                model="--model-path",
                alias="--served-model-name",
                flags={
                    **_SHARED_FLAGS,
                    "max_model_len": "--context-length",
                    "tensor_parallel": "--tp-size",
                    "quantization": "--quantization",
                    "kv_cache": "--kv-cache-dtype",
                    "seed": "--random-seed",
                },
                values={
                    "quantization": {
                        "fp8": "fp8",
                        "int8": "w8a8_int8",
                        "awq": "awq",
                        "gptq": "gptq",
                        "compressed-tensors": "compressed-tensors",
                    },
                    "kv_cache": {"fp8": "fp8_e4m3"},
                },
                always=("--enable-metrics",),
                on_cpu=("--device", "cpu"),
                dummy=("--load-format", "dummy"),
                hints={"speculative": 'options={"args": ("--speculative-algorithm", ...)}'},
            ),
            Server(
                name="llama-cpp",
                dialect="llama-cpp",
                package="xllamacpp",
                module=("pytest_qwen.engines.llama_server",),
                program="llama-server",
                program_first=True,
                install="pip install 'pytest-qwen[llama-cpp]', or put llama.cpp's llama-server on PATH",
                alias="--alias",
                flags={
                    "max_model_len": "--ctx-size",
                    "kv_cache": "--cache-type-k",
                    "seed": "--seed",
                    "speculative": "--model-draft",
                },
                values={"kv_cache": {"int8": "q8_0", "int4": "q4_0"}},
                always=("--metrics",),
                on_cpu=("--n-gpu-layers", "0"),
                dummy=(),
                hints={"quantization": "the file's own: name a GGUF file of that type as the model"},
            ),
            Server(
                name="transformers-serve",
                dialect="transformers",
                package="transformers",
                module=("transformers.cli.transformers", "serve"),
                program="transformers",
                program_args=("serve",),
                install="pip install 'pytest-qwen[serve]'",
                model="",
                flags={
                    "dtype": "--dtype",
                    "quantization": "--quantization",
                    "seed": "--default-seed",
                    "trust_remote_code": "--trust-remote-code",
                    "attention": "--attn-implementation",
                },
                values={"quantization": {"nf4": "bnb-4bit", "int8": "bnb-8bit"}},
                on_cpu=("--device", "cpu"),
                dummy=(),
            ),
            Server(
                name="ollama",
                dialect="ollama",
                package="",
                module=(),
                program="ollama",
                program_args=("serve",),
                install="https://ollama.com/download",
                address=None,
                environment={"OLLAMA_HOST": "{host}:{port}", "OLLAMA_CONTEXT_LENGTH": "{max_model_len}"},
                flags={"max_model_len": "", "kv_cache": ""},
                values={"kv_cache": {"int8": "q8_0", "int4": "q4_0"}},
                hints={"quantization": 'the tag\'s own: name it, as in "qwen2.5-coder:7b-instruct-q4_K_M"'},
                ready="/api/version",
            ),
        )
    }
)
