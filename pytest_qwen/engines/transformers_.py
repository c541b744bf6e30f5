"""The transformers engine: real or dummy weights, run by the decode loop; imported in its child only."""

from __future__ import annotations

import contextlib
import hashlib
import os
import resource
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
import transformers

from pytest_qwen.engines import decode
from pytest_qwen.engines.base import Loaded, LoadSpec, Request, Trace
from pytest_qwen.engines.quantize import quantize
from pytest_qwen.engines.sources import config_of, loading, source_of, tokenizer_of
from pytest_qwen.engines.tokenizing import ByteTokenizer, Tokenizing, prompt_ids
from pytest_qwen.errors import EngineFault, Misuse, Unavailable, explain

_PROBE_BYTES = {"cuda": 2 << 30, "cpu": 256 << 20}


class TransformersEngine:
    """One model of the transformers library on one device."""

    def __init__(self) -> None:
        self._decoder: decode.Decoder | None = None
        self._tokenizer: Tokenizing = ByteTokenizer()
        self._device = torch.device("cpu")
        self._vocab = 0
        self._max_len = 2048

    def load(self, spec: LoadSpec) -> Loaded:
        """Load, compile where the profile says so, and answer once.

        Raises ModelUnusable, Unavailable; out of memory comes as torch's own error.
        """
        self._device = torch.device(spec.device)
        _check_possible(spec, self._device)
        if self._device.type == "cpu" and "OMP_NUM_THREADS" not in os.environ:
            # logical cores share their units in pairs, and the session that measures needs one too: threads
            # beyond that wait for each other at every layer
            torch.set_num_threads(max(1, (os.cpu_count() or 2) // 2))
        copy, read = _bandwidths(self._device)
        started = time.perf_counter()
        model, applied = self._made(spec)
        load_s = time.perf_counter() - started
        first_call_s = self._decoder.prepare() if self._decoder else None
        return Loaded(
            load_s=load_s,
            first_call_s=first_call_s,
            weights_bytes=_bytes_of(model),
            device_memory_bytes=self._peak_memory(),
            device_name=_device_name(self._device),
            applied=(*(self._decoder.applied if self._decoder else ()), *applied),
            versions=_versions(),
            config=model.config.to_dict(),
            tokenizer=self._tokenizer.name,
            copy_bytes_per_sec=copy,
            read_bytes_per_sec=read,
        )

    def _made(self, spec: LoadSpec) -> tuple[Any, list[str]]:
        """Make model, tokenizer and decoder; returns the model, and what quantisation did to it."""
        profile = decode.PROFILES[spec.optimize]
        decode.apply_flags(profile)
        source = source_of(spec)
        config = config_of(spec, source)
        with loading(spec, source):
            model = decode.build_model(
                config,
                dtype=getattr(torch, spec.dtype),
                device=self._device,
                attention=spec.attention,
                experts=spec.experts,
                weights="dummy" if spec.weights == "dummy" else str(source),
                seed=spec.seed,
                revision=spec.revision,
                trust_remote_code=spec.trust_remote_code,
            )
            self._tokenizer = tokenizer_of(spec, source)
        applied = quantize(model, spec.quantization) if spec.quantization else []
        self._vocab = config.get_text_config().vocab_size
        self._max_len = spec.max_model_len or self._max_len
        self._decoder = decode.Decoder(
            model,
            profile,
            max_batch=spec.max_batch,
            max_len=self._max_len,
            experts=spec.experts,
        )
        self._synchronize()
        return model, applied

    def run(self, request: Request, on_token: Callable[[str], None] | None = None) -> Trace:
        """Prefill and decode one batch."""
        if self._decoder is None:
            raise EngineFault("run() before load(): nothing is loaded")
        prompts = prompt_ids(request, self._tokenizer, self._vocab)
        _check_length(len(prompts[0]), request.output_tokens, self._max_len)
        ids = torch.tensor(prompts, dtype=torch.long)
        streamed = _Streamer(self._tokenizer, on_token) if on_token else None
        result = self._decoder.run(
            ids,
            request.output_tokens,
            temperature=request.temperature,
            top_p=request.top_p,
            seed=request.seed,
            eos_ids=None if request.ignore_eos else self._tokenizer.eos_ids,
            on_token=streamed,
        )
        tokens = result.token_ids.tolist()
        eos = set() if request.ignore_eos else set(self._tokenizer.eos_ids)
        stopped = bool(eos) and all(eos & set(row) for row in tokens)
        return Trace(
            prompt_tokens=len(prompts[0]),
            output_tokens=len(tokens[0]),
            batch_size=len(tokens),
            token_ns=tuple(result.token_ns),
            texts=tuple(self._tokenizer.decode(row) for row in tokens),
            finish_reason="stop" if stopped else "length",
            tokens_digest=hashlib.sha256(repr(tokens).encode()).hexdigest()[:16],
            clock="cuda-events" if self._device.type == "cuda" else "host",
            peak_memory_bytes=self._peak_memory(),
        )

    def count_tokens(self, text: str) -> int:
        """Tokens of the text as it is."""
        return len(self._tokenizer.encode(text))

    def close(self) -> None:
        """Drop the model; the child process ends right after, which gives the memory back for certain."""
        self._decoder = None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _synchronize(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def _peak_memory(self) -> int:
        """Peak bytes: reserved by the allocator on a GPU (CUDA context not included), resident on a CPU."""
        if self._device.type == "cuda":
            return int(torch.cuda.max_memory_reserved(self._device))
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class _Streamer:
    """Turns token ids of sequence 0 into new pieces of text."""

    def __init__(self, tokenizer: Tokenizing, on_token: Callable[[str], None]) -> None:
        self._tokenizer, self._on_token = tokenizer, on_token
        self._ids: list[int] = []
        self._sent = 0

    def __call__(self, token_id: int) -> None:
        self._ids.append(token_id)
        text = self._tokenizer.decode(self._ids)
        if not text.endswith("\N{REPLACEMENT CHARACTER}"):  # a character cut in two waits for its rest
            self._on_token(text[self._sent :])
            self._sent = len(text)


def _check_length(prompt_tokens: int, output_tokens: int, max_len: int) -> None:
    """Raises Misuse for a request that has no room; the engine stays usable."""
    if prompt_tokens + output_tokens > max_len:
        raise Misuse(
            explain(
                "the request is longer than the room that the model was loaded with",
                asked=f"{prompt_tokens} prompt tokens and {output_tokens} output tokens",
                found=f"room for {max_len} tokens",
                next_step="a larger model(..., max_model_len=N), or fewer output_tokens",
            )
        )


def _check_possible(spec: LoadSpec, device: torch.device) -> None:
    """What this machine cannot do, said before anything is loaded."""
    if device.type == "cuda" and not torch.cuda.is_available():
        raise Unavailable(
            explain(
                "the GPU cannot be used: this PyTorch finds no CUDA device",
                asked=f"device {spec.device}",
                found=f"torch {torch.__version__}, built for CUDA {torch.version.cuda}",
                slip="a CPU build of torch is installed" if torch.version.cuda is None else "driver too old",
            )
        )
    if (
        spec.dtype == "bfloat16"
        and device.type == "cuda"
        and torch.cuda.get_device_capability(device) < (8, 0)
    ):
        raise Unavailable(
            explain(
                "this GPU has no bfloat16",
                asked='dtype="bfloat16"',
                found=f"{torch.cuda.get_device_name(device)}, compute capability under 8.0",
                next_step='use model(..., dtype="float16")',
            )
        )
    package = {"flash_attention_2": "flash_attn", "flash_attention_3": "flash_attn_interface"}.get(
        spec.attention
    )
    if package and not transformers.utils.is_flash_attn_2_available() and package == "flash_attn":
        raise _no_attention(spec.attention, package)
    if package == "flash_attn_interface" and not transformers.utils.is_flash_attn_3_available():
        raise _no_attention(spec.attention, package)
    if spec.tensor_parallel > 1:
        raise Unavailable(
            explain(
                "the transformers engine runs on one GPU",
                asked=f"tensor_parallel={spec.tensor_parallel}",
                next_step="leave tensor_parallel out, or use an engine that serves over several GPUs",
            )
        )
    if spec.kv_cache:
        raise Unavailable(
            explain(
                "the transformers engine keeps the KV cache in the model's own precision",
                asked=f"kv_cache={spec.kv_cache!r}",
                next_step="leave kv_cache out",
            )
        )


def _no_attention(attention: str, package: str) -> Unavailable:
    return Unavailable(
        explain(
            f"attention {attention!r} is not available here",
            asked=f"attention={attention!r}",
            found=f"no usable package {package!r}, or a GPU that it does not support",
            next_step="pip install 'pytest-qwen[flash-attn]', or use attention='sdpa'",
            choices=("eager", "sdpa", "flash_attention_2", "flash_attention_3"),
        )
    )


def _bandwidths(device: torch.device) -> tuple[float, float]:
    """Copy and read bandwidth of the device's memory in bytes/s, best of several passes.

    Copy counts bytes read plus bytes written; read is a sum over the buffer. They are a health check and
    the honest roof of this very card; the data sheet's figure is never reached.
    """
    size = _PROBE_BYTES[device.type]
    source = torch.ones(size // 4, dtype=torch.float32, device=device)
    target = torch.empty_like(source)
    copy_s = min(_seconds(partial(target.copy_, source), device) for _ in range(5))
    read_s = min(_seconds(source.sum, device) for _ in range(5))
    del source, target  # the memory is given back below
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    return 2 * size / copy_s, size / read_s


def _seconds(work: Callable[[], Any], device: torch.device) -> float:
    if device.type != "cuda":
        started = time.perf_counter()
        work()
        return time.perf_counter() - started
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    work()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1000


def _bytes_of(model: Any) -> int:
    """Bytes of parameters and buffers, tied tensors once."""
    seen = {t.data_ptr(): t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers())}
    return sum(seen.values())


def _device_name(device: torch.device) -> str:
    return str(torch.cuda.get_device_name(device)) if device.type == "cuda" else "cpu"


def _versions() -> dict[str, str]:
    found = {"torch": torch.__version__, "transformers": transformers.__version__}
    if torch.version.cuda:
        found["cuda"] = torch.version.cuda
    for package in ("triton", "flash-attn", "torchao", "bitsandbytes"):
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
