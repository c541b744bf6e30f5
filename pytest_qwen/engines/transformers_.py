"""The transformers engine: real or dummy weights, run by the decode loop; imported in its child only."""

from __future__ import annotations

import gc
import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
import transformers

from pytest_qwen.engines import decode, scoring
from pytest_qwen.engines.base import Likelihood, Loaded, LoadSpec, Pair, Request, Trace
from pytest_qwen.engines.building import model_of
from pytest_qwen.engines.device import (
    device_name,
    reserved_peak_bytes,
    synchronize,
    use_physical_cores,
    versions,
)
from pytest_qwen.engines.precisions import check, check_kv_cache
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
        use_physical_cores(self._device)
        copy, read = _bandwidths(self._device)
        started = time.perf_counter()
        model, applied = self._made(spec)
        load_s = time.perf_counter() - started
        first_call_s = self._decoder.prepare() if self._decoder else None
        peak = reserved_peak_bytes(self._device)
        self._forget_peak()
        return Loaded(
            load_s=load_s,
            first_call_s=first_call_s,
            weights_bytes=_bytes_of(model),
            device_memory_bytes=peak,
            device_name=device_name(self._device),
            applied=(*(self._decoder.applied if self._decoder else ()), *applied),
            versions=versions("triton", "flash-attn", "torchao", "bitsandbytes"),
            config=model.config.to_dict(),
            tokenizer=self._tokenizer.name,
            copy_bytes_per_sec=copy,
            read_bytes_per_sec=read,
        )

    def _made(self, spec: LoadSpec) -> tuple[Any, list[str]]:
        """Make model, tokenizer and decoder; returns the model, and what was done to its weights."""
        profile = decode.PROFILES[spec.optimize]
        decode.apply_flags(profile)
        source = source_of(spec)
        config, applied = config_of(spec, source)
        on_load = _quantized_on_load(spec, config, self._device, applied)
        with loading(spec, source):
            model = model_of(
                spec,
                config,
                source,
                experts=spec.experts,
                quantization=on_load,
                fuse=profile.fuse_projections,
            )
            self._tokenizer = tokenizer_of(spec, source)
        self._vocab = config.get_text_config().vocab_size
        self._max_len = spec.max_model_len or self._max_len
        self._decoder = decode.Decoder(
            model,
            profile,
            max_batch=spec.max_batch,
            max_len=self._max_len,
            experts=spec.experts,
            kv_cache=spec.kv_cache,
        )
        synchronize(self._device)
        return model, applied

    def run(self, request: Request, on_token: Callable[[str], None] | None = None) -> Trace:
        """Prefill and decode one batch."""
        if self._decoder is None:
            raise EngineFault("run() before load(): nothing is loaded")
        prompts = prompt_ids(request, self._tokenizer, self._vocab)
        _check_length(len(prompts[0]), request.output_tokens, self._max_len)
        ids = torch.tensor(prompts, dtype=torch.long)
        streamed = _Streamer(self._tokenizer, on_token, request.stop) if on_token or request.stop else None
        self._forget_peak(keep_cached=True)
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
        stopped = stopped or (streamed is not None and streamed.stopped)
        return Trace(
            prompt_tokens=len(prompts[0]),
            output_tokens=len(tokens[0]),
            batch_size=len(tokens),
            token_ns=tuple(result.token_ns),
            texts=tuple(self._tokenizer.decode(row) for row in tokens),
            finish_reason="stop" if stopped else "length",
            tokens_digest=hashlib.sha256(repr(tokens).encode()).hexdigest()[:16],
            clock="cuda-events" if self._device.type == "cuda" else "host",
            peak_memory_bytes=reserved_peak_bytes(self._device),
            peak_allocated_bytes=self._peak_allocated(),
        )

    def count_tokens(self, text: str) -> int:
        """Tokens of the text as it is."""
        return len(self._tokenizer.encode(text))

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of the text as it is."""
        return tuple(token % self._vocab for token in self._tokenizer.encode(text))

    def score(self, pairs: Sequence[Pair]) -> tuple[Likelihood, ...]:
        """How likely the model holds each continuation. Raises Misuse for one that is too long."""
        if self._decoder is None:
            raise EngineFault("score() before load(): nothing is loaded")
        return scoring.score(self._decoder.model, pairs)

    def rest(self) -> None:
        """Nothing goes on between runs."""

    def close(self) -> None:
        """Drop the model; the child process ends right after, which gives the memory back for certain."""
        self._decoder = None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _peak_allocated(self) -> int | None:
        """Peak bytes of the tensors since the run began; None where no allocator counts."""
        if self._device.type != "cuda":
            return None
        return int(torch.cuda.max_memory_allocated(self._device))

    def _forget_peak(self, *, keep_cached: bool = False) -> None:
        """Let the peaks begin anew: what loading and compiling took is not the running model's."""
        if self._device.type != "cuda":
            return
        if not keep_cached:
            gc.collect()
            torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self._device)


class _Streamer:
    """Turns token ids of sequence 0 into new pieces of text, until one of the texts to stop at is there."""

    def __init__(
        self, tokenizer: Tokenizing, on_token: Callable[[str], None] | None, stop: Sequence[str]
    ) -> None:
        self._tokenizer, self._on_token, self._stop = tokenizer, on_token, stop
        self._ids: list[int] = []
        self._sent = 0
        self.stopped = False

    def __call__(self, token_id: int) -> bool:
        self._ids.append(token_id)
        text = self._tokenizer.decode(self._ids)
        if not text.endswith("\N{REPLACEMENT CHARACTER}"):  # a character cut in two waits for its rest
            if self._on_token is not None:
                self._on_token(text[self._sent :])
            self._sent = len(text)
        self.stopped = any(end in text for end in self._stop)
        return self.stopped


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
        check_kv_cache(spec.kv_cache)


def _quantized_on_load(spec: LoadSpec, config: Any, device: torch.device, applied: list[str]) -> str | None:
    """The method that weights go through while they are loaded; None for a checkpoint that has its own.

    Raises Misuse or Unavailable for what this model or machine cannot do.
    """
    if spec.quantization is None:
        return None
    capability = torch.cuda.get_device_capability(device) if device.type == "cuda" else None
    stored = getattr(config, "quantization_config", None) or {}
    checkpoint = stored.get("quant_method") if isinstance(stored, dict) else stored.quant_method
    method = check(spec, capability=capability, checkpoint=checkpoint)
    if getattr(config.get_text_config(), "num_experts", 0) and method.made == "on load":
        raise Unavailable(
            explain(
                f"{method.name} weights are not made for mixtures of experts by this engine",
                asked=f"model {spec.model!r}, quantization={spec.quantization!r}",
                found="all experts of a layer are one tensor in transformers, which the methods pass over",
                next_step="a checkpoint that was quantised before, on an engine that serves it",
            )
        )
    applied.append(f"weights of the linear layers except the head: {method.what}")
    return method.name if method.made == "on load" else None


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
    """Bytes of parameters and buffers, tied tensors once, quantised ones with their scales."""
    held = (plain for t in (*model.parameters(), *model.buffers()) for plain in _plain_tensors(t))
    return sum({t.data_ptr(): t.numel() * t.element_size() for t in held}.values())


def _plain_tensors(tensor: Any) -> Iterator[torch.Tensor]:
    """The tensors that a quantised one is made of; a plain one is its own."""
    if hasattr(tensor, "__tensor_flatten__"):
        names, _ = tensor.__tensor_flatten__()
        for name in names:
            yield from _plain_tensors(getattr(tensor, name))
        return
    yield tensor
    state = getattr(tensor, "quant_state", None)  # bitsandbytes keeps scales beside the codes
    while state is not None:
        yield state.absmax
        state = state.state2
