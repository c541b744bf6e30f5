"""Checks of published claims against physics, data sheets and model configurations."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_qwen.gpus import CATALOGUE
from pytest_qwen.physics import ceiling, fit
from pytest_qwen.published import Check, Kind, Problem, Row, Span, printed, span

# Articles write GB for 1e9 bytes and for 2**30 alike; a size is impossible only in both readings.
_GIB = 2**30 / 1e9
# A sheet's rounding, and a formula's approximations of a quantised model's size.
_SHEET, _SIZE, _QUANTIZED_SIZE, _KV = 0.01, 0.01, 0.10, 0.05
# The generation of tensor cores by compute capability (NVIDIA's architecture whitepapers).
_TENSOR_CORES = {"7.0": 1, "7.5": 2, "8.0": 3, "8.6": 3, "8.9": 4, "9.0": 4, "10.0": 5, "12.0": 5}


def _rate(row: Row) -> Iterator[Problem]:
    """A decode rate above memory bandwidth / bytes that a step must read."""
    setup = row.setup
    top = ceiling(setup, least=True) if setup else None
    if top is None:
        return
    for field, limit in (
        ("tokens_per_sec", top.tokens_per_sec),
        ("system_tokens_per_sec", top.system_tokens_per_sec),
    ):
        if field in row and row.span(field).low > limit:
            yield "impossible", f"{printed(row[field])} tok/s; {top.arithmetic}"


def _used_memory(row: Row) -> Iterator[Problem]:
    """Less memory in use than the weights that it holds."""
    setup = row.setup
    if setup is None or "memory_used_gb" not in row:
        return
    used, weights_gb = row.span("memory_used_gb"), setup.weights_bytes / 1e9
    if used.high * _GIB < weights_gb:
        yield "impossible", f"{printed(row['memory_used_gb'])} GB in use for {weights_gb:.2f} GB of weights"


def _weights(row: Row) -> Iterator[Problem]:
    """A size of weights that parameters x bits contradict."""
    if "weights_gb" not in row:
        return
    stated = row.span("weights_gb")
    if "bits" in row:
        nominal = float(row["billion_parameters"]) * float(row["bits"]) / 8
        if stated.high * _GIB < nominal:
            yield "impossible", f"{printed(row['weights_gb'])} GB for {nominal:.1f} GB of parameters x bits"
    shape = row.shape
    if shape is None:
        return
    exact = shape.weights_bytes(row.dtype, row.quantization) / 1e9
    least = shape.parameters * 0.5 / 1e9 if row.quantization in {"awq", "gptq", "int4"} else exact
    share = _QUANTIZED_SIZE if row.quantization else _SIZE
    what = f"{shape.parameters / 1e9:.2f} B parameters in {row.quantization or row.dtype} are {exact:.1f} GB"
    if stated.high * _GIB < least:
        yield "impossible", f"{printed(row['weights_gb'])} GB; {what}"
    elif not stated.overlaps(Span(exact, exact).widened(share)):
        yield "inconsistent", f"{printed(row['weights_gb'])} GB; {what}"


def _kv_cache(row: Row) -> Iterator[Problem]:
    """A KV cache that is neither the 16-bit nor the 8-bit size of the model's layers and KV heads."""
    shape = row.shape
    if shape is None or "kv_cache_gb" not in row:
        return
    tokens = int(row["sequences"]) * int(row["context_tokens"])
    sizes = [shape.kv_bytes_per_token(kind) * tokens / 1e9 for kind in ("bfloat16", "fp8")]
    if not any(row.span("kv_cache_gb").overlaps(Span(size, size).widened(_KV)) for size in sizes):
        said = f"{printed(row['kv_cache_gb'])} GB for {row['sequences']} x {row['context_tokens']} tokens"
        heads = f"{shape.layers} layers with {shape.kv_heads} KV heads of {shape.head_dim}"
        yield "inconsistent", f"{said}; {heads} need {sizes[0]:.1f} GB in 16 bits, {sizes[1]:.1f} GB in 8"


def _kv_saving(row: Row) -> Iterator[Problem]:
    """Quantising a KV cache that saves more than the whole cache takes."""
    shape = row.shape
    if shape is None or "kv_saving" not in row:
        return
    saving = {name: span(value) for name, value in row["kv_saving"].items()}
    tokens = int(row["sequences"]) * int(row["context_tokens"])
    whole_gb = shape.kv_bytes_per_token(row.dtype) * tokens / 1e9
    if saving["saved_gb"].low > whole_gb * _GIB:
        text = f"{printed(row['kv_saving']['saved_gb'])} GB saved of a cache of {whole_gb:.2f} GB"
        yield "inconsistent", f"{text}: the larger figure holds copies of it"
    left = Span(
        saving["without_gb"].low - saving["with_gb"].high, saving["without_gb"].high - saving["with_gb"].low
    )
    if not left.overlaps(saving["saved_gb"]):
        yield "inconsistent", f"{left.low:.1f}-{left.high:.1f} GB lie between the two sizes"


def _load(row: Row) -> Iterator[Problem]:
    """A load that is said to succeed where the weights exceed the card, or to fail where everything fits."""
    setup = row.setup
    plan = fit(setup) if setup else None
    if plan is None or "load" not in row:
        return
    sizes = f"{plan.total_bytes / 1e9:.1f} GB needed, {plan.available_bytes / 1e9:.0f} GB there"
    if row["load"] == "success" and plan.lines[0][1] > plan.available_bytes * _GIB:
        yield "impossible", f"said to load; {sizes}"
    if row["load"] == "out of memory" and plan.fits:
        yield "inconsistent", f"said not to load; {sizes}"


def _card_choice(row: Row) -> Iterator[Problem]:
    """A model that is said to fit, or not to fit, a card's memory."""
    if "said_to_fit" not in row:
        return
    kind: Kind = "inconsistent" if "needs_gb" in row else "impossible"
    size = float(row.fields.get("billion_parameters", 0)) * float(row.fields.get("bits", 0)) / 8
    needs = row.span("needs_gb") if "needs_gb" in row else Span(size / _GIB, size)
    card = float(row["card_memory_gb"])
    if row["said_to_fit"] and needs.low > card:
        yield kind, f"said to fit {card:g} GB; it needs {needs.high:.1f} GB"
    if not row["said_to_fit"] and needs.high <= card:
        yield "inconsistent", f"said not to fit {card:g} GB; it needs {needs.high:.1f} GB"


def _utilization(row: Row) -> Iterator[Problem]:
    """A utilisation above 100 %, or an overall efficiency above that of compute and of bandwidth."""
    stated = row.fields.get("utilization_percent", {})
    for name, value in stated.items():
        if span(value).low > 100:
            yield "impossible", f"{name} utilisation of {printed(value)} %"
    if "overall_percent" not in row:
        return
    overall = row.span("overall_percent")
    busiest = max(span(stated[name]).high for name in ("compute", "bandwidth"))
    if overall.low > 100:
        yield "impossible", f"overall efficiency of {printed(row['overall_percent'])} %"
    elif overall.low > busiest:
        yield (
            "inconsistent",
            f"overall efficiency of {printed(row['overall_percent'])} % above both compute and bandwidth "
            f"(at most {busiest:.1f} %): a full memory was counted as efficiency",
        )


def _specification(row: Row) -> Iterator[Problem]:
    """A specification that the data sheet contradicts."""
    if "gpu" not in row:
        return
    spec = CATALOGUE[row["gpu"]]
    for field in ("memory_gb", "bandwidth_gb_per_sec", "fp16_tflops", "fp8_tflops", "power_w"):
        known = getattr(spec, field)
        if field in row and known and not row.span(field).overlaps(Span(known, known).widened(_SHEET)):
            yield "inconsistent", f"{field} {printed(row[field])}; the data sheet says {known:g}"
    if "tf32_tflops" in row and spec.fp16_tflops:
        half = spec.fp16_tflops / 2
        if row.span("tf32_tflops").low > half * 1.05:
            said = f"TF32 rate of {printed(row['tf32_tflops'])}"
            yield "inconsistent", f"{said}; dense TF32 is half of dense FP16, {half:g}"
    generation = _TENSOR_CORES.get(spec.compute_capability or "")
    if "tensor_core_generation" in row and generation != row["tensor_core_generation"]:
        said = f"tensor cores of generation {row['tensor_core_generation']}"
        yield (
            "inconsistent",
            f"{said}; compute capability {spec.compute_capability} has generation {generation}",
        )
    if "bf16_over_fp16" in row and spec.bf16_tflops and spec.fp16_tflops:
        known = spec.bf16_tflops / spec.fp16_tflops
        if row.span("bf16_over_fp16").low > known:
            said = f"BF16 {row['bf16_over_fp16']}x as fast as FP16"
            yield "inconsistent", f"{said}; the data sheet says {known:g}x"


def _context(row: Row) -> Iterator[Problem]:
    """A context longer than the positions that the model's configuration has."""
    shape = row.shape
    if shape is None or shape.max_positions is None or "context_limit_tokens" not in row:
        return
    if int(row["context_limit_tokens"]) > shape.max_positions:
        yield (
            "inconsistent",
            f"{row['context_limit_tokens']} tokens; the configuration has {shape.max_positions} "
            "positions, more only with rope scaling",
        )


def _training(row: Row) -> Iterator[Problem]:
    """Training memory below weights, gradients and Adam's two moments; memory that falls with length."""
    shape = row.shape
    if shape is None or "training" not in row:
        return
    training = row["training"]
    memory = [span(value) for value in training["memory_gb"]]
    if training["trains"] == "everything":
        states_gb = 4 * shape.weights_bytes(row.dtype) / 1e9
        if memory[0].high * _GIB < states_gb:
            least = f"{printed(training['memory_gb'][0])} GB on one card"
            states = f"weights, gradients and Adam's two moments take {states_gb:.1f} GB in 16 bits"
            yield "inconsistent", f"{least}; {states}, unless sharded or offloaded"
    for i in range(1, len(memory)):
        if memory[i].high < memory[i - 1].low:
            short, long = training["tokens"][i - 1 : i + 1]
            yield "inconsistent", f"{long} tokens take less memory than {short}"


PHYSICS_CHECKS: dict[str, Check] = {
    "rate above the ceiling": _rate,
    "memory below the weights": _used_memory,
    "size of the weights": _weights,
    "KV cache": _kv_cache,
    "KV saving": _kv_saving,
    "load": _load,
    "fits the card": _card_choice,
    "utilisation": _utilization,
    "specification": _specification,
    "context": _context,
    "training memory": _training,
}
