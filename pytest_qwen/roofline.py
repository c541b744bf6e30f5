"""One model on one kind of card: what it needs in bytes and FLOPs, and the least time that takes."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_qwen.gpus import Device, GpuSpec
from pytest_qwen.models import DTYPE_BYTES, KV_BYTES, WEIGHT_BYTES, ModelShape, weight_bytes

# Cards may clock above the boost clock that a data sheet's compute rate stands for (H100 SXM: 1,980 against
# 1,830 MHz); memory clocks are fixed.
_CLOCK_HEADROOM = 1.1
# Serving engines prefill long prompts in chunks; 8,192 tokens is the largest common default (vLLM's on large
# cards).
SERVING_CHUNK_TOKENS = 8192
# GeForce cards double their fp16 matrix rate when software accumulates in fp16.
_FP16_ACCUMULATE = 2.0


def spec_of(gpu: GpuSpec | Device) -> GpuSpec | None:
    """The catalogue's row of a card, None for a device that is not in it."""
    return gpu.spec if isinstance(gpu, Device) else gpu


def memory_bytes(gpu: GpuSpec | Device) -> float | None:
    """Memory of one card: what the driver says, else the advertised size in units of 1e9 bytes (the cautious
    reading: a driver never reports less)."""
    if isinstance(gpu, Device):
        return gpu.memory_bytes
    return None if gpu.memory_gb is None else gpu.memory_gb * 1e9


def peak_bytes_per_sec(gpu: GpuSpec | Device) -> float | None:
    """The data sheet's memory bandwidth of one card."""
    spec = spec_of(gpu)
    if spec is None or spec.bandwidth_gb_per_sec is None:
        return None
    return spec.bandwidth_gb_per_sec * 1e9


def peak_flops_per_sec(gpu: GpuSpec | Device, dtype: str, quantization: str | None = None) -> float | None:
    """The data sheet's dense matrix rate of one card for these number formats.

    float32 is held to the fp16 rate, which it never exceeds. int4, nf4, GPTQ and AWQ weights are multiplied
    in `dtype`. int8 is unknown: 8-bit integer rates are not in the catalogue.
    """
    spec = spec_of(gpu)
    if spec is None or quantization == "int8":
        return None
    tflops = spec.bf16_tflops if dtype == "bfloat16" else spec.fp16_tflops
    if quantization == "fp8":
        tflops = spec.fp8_tflops or tflops
    return None if tflops is None else tflops * 1e12


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """A model on `count` equal cards, with the work that decides its needs.

    `prompt_tokens` and `output_tokens` are those of one sequence; `batch` sequences run together.
    `reserved_tokens` is the room that an engine takes for each sequence at once, None where the cache grows.
    `padded_inputs` is what the kernel of the weights fills the inputs of each layer up to a multiple of.
    `users` is how many requests a load keeps going at once, None without a load; what is said of one sequence
    is then of one request, and what is said of the system of all of them.
    `chunk_tokens` is the most that is prefilled at once, None for all prompts as a whole. With `widens_kv` a
    layer's KV cache in fewer bits is widened as a whole before it is read.
    """

    shape: ModelShape
    gpu: GpuSpec | Device
    dtype: str = "bfloat16"
    quantization: str | None = None
    kv_dtype: str | None = None
    prompt_tokens: int = 64
    output_tokens: int = 128
    batch: int = 1
    count: int = 1
    attention: str = "sdpa"
    reserved_tokens: int | None = None
    chunk_tokens: int | None = SERVING_CHUNK_TOKENS
    padded_inputs: int = 1
    users: int | None = None
    widens_kv: bool = True

    @property
    def sizes_known(self) -> bool:
        """Whether the bytes of every number format that is asked for are known."""
        weights = self.quantization is None or self.quantization in WEIGHT_BYTES
        return weights and self.dtype in DTYPE_BYTES and self._kv_dtype in KV_BYTES

    @property
    def _kv_dtype(self) -> str:
        return self.kv_dtype or self.dtype

    @property
    def context_tokens(self) -> int:
        """Tokens that a sequence holds at its end."""
        return self.prompt_tokens + self.output_tokens

    @property
    def cached_tokens(self) -> int:
        """Tokens of one sequence that the KV cache has room for."""
        return self.context_tokens if self.reserved_tokens is None else self.reserved_tokens

    @property
    def growing_bytes(self) -> float:
        """KV cache that only the answer adds, where the cache grows and prompts are processed as a whole."""
        if self.reserved_tokens is not None or self.chunk_tokens is not None:
            return 0.0
        return self.kv_bytes * self.output_tokens / max(self.cached_tokens, 1)

    @property
    def score_bytes(self) -> float:
        """Attention scores that are alive at once: all pairs of a prompt's tokens with eager attention.

        Ten bytes a pair and head in 16 bits: the scores, the masked scores, their softmax in 32 bits and its
        copy in 16 (measured on an H200 with transformers 5.17: 10.0-10.1 at 1,024 to 4,096 tokens). Other
        kernels keep none.
        """
        if self.attention != "eager":
            return 0.0
        each = 3 * DTYPE_BYTES[self.dtype] + 4
        return each * self.shape.heads * self.batch * self.prompt_tokens**2

    @property
    def memory_bytes(self) -> float | None:
        """Memory of one card."""
        return memory_bytes(self.gpu)

    @property
    def bytes_per_sec(self) -> float | None:
        """Peak memory bandwidth of all cards together."""
        peak = peak_bytes_per_sec(self.gpu)
        return None if peak is None else peak * self.count

    @property
    def flops_per_sec(self) -> float | None:
        """The data sheet's matrix rate of all cards together."""
        peak = peak_flops_per_sec(self.gpu, self.dtype, self.quantization)
        return None if peak is None else peak * self.count

    @property
    def most_flops_per_sec(self) -> float | None:
        """What matrix units never exceed: 10 % above the data sheet, doubled for fp16 on GeForce cards."""
        peak, spec = self.flops_per_sec, spec_of(self.gpu)
        if peak is None or spec is None:
            return None
        doubled = spec.form_factor == "desktop" and self.dtype == "float16"
        return peak * _CLOCK_HEADROOM * (_FP16_ACCUMULATE if doubled else 1.0)

    @property
    def kv_bytes(self) -> float:
        """KV cache of the whole batch: at its longest, or all that was reserved."""
        each = self.shape.kv_bytes_per_token(self._kv_dtype) + self.shape.kv_scale_bytes_per_token(
            self._kv_dtype
        )
        return each * self.cached_tokens * self.batch

    @property
    def weights_bytes(self) -> float:
        """All weights, over all cards."""
        return self.shape.weights_bytes(self.dtype, self.quantization) + self.padding_bytes

    @property
    def padding_bytes(self) -> float:
        """What the kernel of quantised weights fills up."""
        if self.quantization is None:
            return 0.0
        extra = self.shape.padding_weights(self.padded_inputs)
        return extra * weight_bytes(self.dtype, self.quantization)

    def step_bytes(self, context_tokens: float | None = None, *, least: bool = False) -> float:
        """Bytes that one decode step reads: weights, and the KV cache of every sequence.

        `context_tokens` is the mean over the output when None. `least` is for statements that must hold
        always: the fewest experts that routing can choose.
        """
        context = self.prompt_tokens + self.output_tokens / 2 if context_tokens is None else context_tokens
        distinct = self.shape.experts_per_token if least else None
        weights = self.shape.read_bytes_per_step(self.dtype, self.quantization, self.batch, distinct)
        return weights + self.shape.kv_bytes_per_token(self._kv_dtype) * context * self.batch

    @property
    def least_step_seconds(self) -> float | None:
        """The least time of one decode step, right after the prompt; None where the bandwidth is unknown."""
        if self.bytes_per_sec is None:
            return None
        return self.step_bytes(self.prompt_tokens, least=True) / self.bytes_per_sec

    @property
    def least_prefill_seconds(self) -> float | None:
        """The least time to the first token: all prompt FLOPs at the peak rate, or all weights read once.

        None where neither limit is known; one that is unknown is left out.
        """
        limits = []
        if self.most_flops_per_sec is not None:
            limits.append(self.shape.prefill_flops(self.prompt_tokens, self.batch) / self.most_flops_per_sec)
        if self.bytes_per_sec is not None:
            limits.append(self.step_bytes(0, least=True) / self.bytes_per_sec)
        return max(limits, default=None)

    @property
    def label(self) -> str:
        """ "Qwen/Qwen3-32B in int4 on 2 x H100 SXM"."""
        return f"{self.shape.model_id} in {self.quantization or self.dtype} on {self.cards}"

    @property
    def cards(self) -> str:
        """The cards for people: "2 x H100 SXM"."""
        spec = spec_of(self.gpu)
        name = spec.name.removeprefix("NVIDIA ") if spec else self.gpu.name
        return f"{self.count} x {name}" if self.count > 1 else name
