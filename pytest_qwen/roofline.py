"""One model on one kind of card: what it needs in bytes and FLOPs, and the least time that takes."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_qwen.gpus import Device, GpuSpec
from pytest_qwen.models import DTYPE_BYTES, KV_BYTES, WEIGHT_BYTES, ModelShape

# Cards may clock above the boost clock that a data sheet's compute rate stands for (H100 SXM: 1,980 against
# 1,830 MHz); memory clocks are fixed.
_CLOCK_HEADROOM = 1.1
# GeForce cards double their fp16 matrix rate when software accumulates in fp16.
_FP16_ACCUMULATE = 2.0


def spec_of(gpu: GpuSpec | Device) -> GpuSpec | None:
    """The catalogue's row of a card, None for a device that is not in it."""
    return gpu.spec if isinstance(gpu, Device) else gpu


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
    def memory_bytes(self) -> float | None:
        """Memory of one card: what the driver says, else the advertised size in units of 1e9 bytes (the
        cautious reading: a driver never reports less)."""
        if isinstance(self.gpu, Device):
            return self.gpu.memory_bytes
        return None if self.gpu.memory_gb is None else self.gpu.memory_gb * 1e9

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
        """KV cache of the whole batch at its longest."""
        return self.shape.kv_bytes_per_token(self._kv_dtype) * self.context_tokens * self.batch

    @property
    def weights_bytes(self) -> float:
        """All weights, over all cards."""
        return self.shape.weights_bytes(self.dtype, self.quantization)

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
