"""llama.cpp's own HTTP server from the xllamacpp package, with the flags of `llama-server` that we use.

Run as `python -m pytest_qwen.engines.llama_server --model FILE --port PORT ...`; the C++ server in that
package is the one that `llama-server` runs.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from typing import Any

_CACHES = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")
_ATTENTION = {"on": "ENABLED", "off": "DISABLED", "auto": "AUTO"}


def main(arguments: list[str] | None = None) -> int:
    """Serve until a signal ends the process; 1 when the server cannot start (it has said why)."""
    asked = _parser().parse_args(arguments)
    import xllamacpp

    try:
        server = xllamacpp.Server(_parameters(asked, xllamacpp))
    except RuntimeError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    sys.stderr.write(f"listening on {server.listening_address}\n")
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="llama_server", description=__doc__, allow_abbrev=False)
    parser.add_argument("-m", "--model", required=True, type=Path, help="a GGUF file")
    parser.add_argument("--alias", help="the name under which it is served")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("-c", "--ctx-size", type=int, default=0, help="tokens of all slots together")
    parser.add_argument("-np", "--parallel", type=int, default=1, help="slots: requests at once")
    parser.add_argument("-t", "--threads", type=int, help="CPU threads")
    parser.add_argument("-ngl", "--n-gpu-layers", type=int, help="layers on the GPU")
    parser.add_argument("-s", "--seed", type=int)
    parser.add_argument("-ctk", "--cache-type-k", choices=_CACHES, default="f16")
    parser.add_argument("-ctv", "--cache-type-v", choices=_CACHES, default="f16")
    parser.add_argument("-fa", "--flash-attn", choices=_ATTENTION, default="auto")
    parser.add_argument("-md", "--model-draft", type=Path, help="a smaller model for speculative decoding")
    parser.add_argument("--metrics", action="store_true")
    return parser


def _parameters(asked: argparse.Namespace, xllamacpp: Any) -> Any:
    """The server's parameters; those that were not asked keep its own defaults."""
    types, attention = xllamacpp.ggml_type, xllamacpp.llama_flash_attn_type
    wanted = {
        "model_alias": {asked.alias} if asked.alias else None,
        "hostnames": [asked.host],
        "port": asked.port,
        "n_ctx": asked.ctx_size,
        "n_parallel": asked.parallel,
        "n_gpu_layers": asked.n_gpu_layers,
        "cache_type_k": getattr(types, f"GGML_TYPE_{asked.cache_type_k.upper()}"),
        "cache_type_v": getattr(types, f"GGML_TYPE_{asked.cache_type_v.upper()}"),
        "flash_attn_type": getattr(attention, f"LLAMA_FLASH_ATTN_TYPE_{_ATTENTION[asked.flash_attn]}"),
        "endpoint_metrics": asked.metrics,
        "ui": False,
    }
    parameters = xllamacpp.CommonParams()
    for name, value in wanted.items():
        if value is not None:
            setattr(parameters, name, value)
    parameters.model.path = str(asked.model)
    if asked.threads is not None:
        parameters.cpuparams.n_threads = asked.threads
    if asked.seed is not None:
        parameters.sampling.seed = asked.seed
    if asked.model_draft is not None:
        parameters.speculative.draft.mparams.path = str(asked.model_draft)
        parameters.speculative.types = [
            xllamacpp.common_speculative_type.COMMON_SPECULATIVE_TYPE_DRAFT_SIMPLE
        ]
    return parameters


if __name__ == "__main__":
    sys.exit(main())
