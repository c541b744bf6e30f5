"""What each quantisation needs of hardware, packages and weights: a table, and the check against it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from types import MappingProxyType
from typing import Literal

from pytest_qwen.engines.base import LoadSpec
from pytest_qwen.errors import Misuse, Unavailable, closest, explain

KV_CACHES = ("fp8", "int8", "int4")


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One way to store weights in fewer bits.

    `made` says where the bits come from: "on load" from the model's own weights (real or dummy), from a
    "checkpoint" that was quantised before, or in an "other engine". `capability` is the least compute
    capability of an NVIDIA card; `cpu` whether it also runs without one. `packages` are imported names.
    `padded_inputs` is what the kernel fills each layer's inputs up to a multiple of.
    """

    name: str
    what: str
    made: Literal["on load", "checkpoint", "other engine"]
    packages: tuple[str, ...] = ()
    capability: tuple[int, int] = (7, 0)
    cpu: bool = False
    dtypes: tuple[str, ...] = ("bfloat16", "float16", "float32")
    padded_inputs: int = 1


METHODS: Mapping[str, Method] = MappingProxyType(
    {
        row.name: row
        for row in (
            Method(
                name="int8",
                what="8-bit integers, a scale a row (torchao, weight only)",
                made="on load",
                packages=("torchao",),
                cpu=True,
            ),
            Method(
                name="int4",
                what="4-bit integers, scale and zero point for 128 weights (torchao, kernel of torch)",
                made="on load",
                packages=("torchao",),
                capability=(8, 0),
                dtypes=("bfloat16",),
                padded_inputs=1024,
            ),
            Method(
                name="fp8",
                what="8-bit floats (e4m3), a scale a row (torchao, weight only)",
                made="on load",
                packages=("torchao",),
                capability=(8, 9),
            ),
            Method(
                name="nf4",
                what="4-bit normal floats for 64 weights, scales quantised again (bitsandbytes)",
                made="on load",
                packages=("bitsandbytes",),
                capability=(7, 5),
            ),
            Method(
                name="awq",
                what="a checkpoint made by AWQ, run by the kernels of gptqmodel",
                made="checkpoint",
                packages=("gptqmodel",),
                capability=(7, 5),
            ),
            Method(
                name="gptq",
                what="a checkpoint made by GPTQ, run by the kernels of gptqmodel",
                made="checkpoint",
                packages=("gptqmodel",),
                capability=(7, 5),
            ),
            Method(
                name="compressed-tensors",
                what="a checkpoint in the compressed-tensors format",
                made="checkpoint",
                packages=("compressed_tensors",),
                capability=(7, 5),
            ),
            Method(
                name="gguf",
                what='a llama.cpp file, named with its type: "gguf:Q4_K_M"',
                made="other engine",
                cpu=True,
            ),
        )
    }
)


def method_of(quantization: str) -> Method:
    """The row of a quantisation as a mark names it. Raises Misuse for an unknown one."""
    name = quantization.partition(":")[0]
    if name not in METHODS or (":" in quantization) != (name == "gguf"):
        meant = closest(quantization, METHODS)
        raise Misuse(
            explain(
                f"quantization {quantization!r} is not known",
                asked=f"quantization={quantization!r}",
                slip=_slip(name, meant),
                choices=[*(m for m in METHODS if m != "gguf"), "gguf:TYPE"],
            )
        )
    return METHODS[name]


def padded_inputs(spec: LoadSpec) -> int:
    """What a load's kernel fills inputs up to a multiple of; 1 where nothing is filled up, or not by us."""
    row = METHODS.get(spec.quantization or "")
    return 1 if row is None or spec.engine != "transformers" else row.padded_inputs


def check(spec: LoadSpec, *, capability: tuple[int, int] | None, checkpoint: str | None = None) -> Method:
    """The method of a load, when this machine can do it here.

    `capability` is the card's, None on a CPU; `checkpoint` the method that the model's own configuration
    names, None for weights in full precision. Raises Misuse for an unknown method or one that contradicts
    the checkpoint, Unavailable where this machine or its Python lacks what it needs.
    """
    asked = f"quantization={spec.quantization!r}"
    method = method_of(spec.quantization or "")
    if method.made == "other engine":
        raise Unavailable(
            explain(
                f"{spec.quantization} runs in llama.cpp, not in the transformers engine",
                asked=asked,
                next_step='@model("FILE.gguf", engine="llama-cpp"), or a method that this engine makes',
                choices=[m.name for m in METHODS.values() if m.made == "on load"],
            )
        )
    if method.made == "checkpoint" and checkpoint != method.name:
        raise _not_a_checkpoint(spec, method, checkpoint)
    if method.made == "on load" and checkpoint is not None:
        raise Misuse(
            explain(
                f"{spec.model!r} is quantised already",
                asked=asked,
                found=f"its configuration says {checkpoint}",
                next_step=f"quantization={checkpoint!r}, or the model that it was made from",
            )
        )
    if capability is None and not method.cpu:
        raise Unavailable(
            explain(
                f"{method.name} weights need a GPU: their kernels are made for CUDA",
                asked=f"{asked} on the CPU",
                choices=[m.name for m in METHODS.values() if m.cpu and m.made == "on load"],
            )
        )
    if capability is not None and capability < method.capability:
        raise Unavailable(_too_old(spec, method, capability))
    if spec.dtype not in method.dtypes:
        raise Unavailable(
            explain(
                f"{method.name} weights do not go with {spec.dtype}",
                asked=f"{asked}, dtype={spec.dtype!r}",
                choices=method.dtypes,
            )
        )
    for package in method.packages:
        if find_spec(package) is None:
            raise Unavailable(
                explain(
                    f"quantization {method.name!r} needs the package {package}, which is not installed",
                    asked=asked,
                    next_step=f"pip install {package.replace('_', '-')}",
                )
            )
    return method


def card_lacks(spec: LoadSpec, capability: str) -> str | None:
    """Why a card of a compute capability such as "7.5" cannot run a load's weights; None when it can.

    Raises Misuse for an unknown method.
    """
    if spec.quantization is None:
        return None
    method, numbers = method_of(spec.quantization), tuple(map(int, capability.split(".")))
    return _too_old(spec, method, numbers) if numbers < method.capability else None


def _too_old(spec: LoadSpec, method: Method, capability: tuple[int, ...]) -> str:
    return explain(
        f"this GPU cannot run {method.name} weights",
        asked=f"quantization={spec.quantization!r}",
        found=f"compute capability {_dotted(capability)}",
        slip=f"{method.name} needs {_dotted(method.capability)} or later",
        choices=[m.name for m in METHODS.values() if _made_on(m, capability)],
    )


def check_kv_cache(kv_cache: str) -> None:
    """Raises Misuse for a KV cache type that this engine does not have."""
    if kv_cache not in KV_CACHES:
        meant = closest(kv_cache, KV_CACHES)
        raise Misuse(
            explain(
                f"kv_cache {kv_cache!r} is not known",
                asked=f"kv_cache={kv_cache!r}",
                slip=f"did you mean {meant!r}?" if meant else "leave it out for the model's own precision",
                choices=KV_CACHES,
            )
        )


def _not_a_checkpoint(spec: LoadSpec, method: Method, checkpoint: str | None) -> Unavailable | Misuse:
    if spec.weights == "dummy":
        return Unavailable(
            explain(
                f"{method.name} weights cannot be made up: they come from a checkpoint",
                asked=f"quantization={method.name!r} with weights='dummy'",
                next_step="quantization='int4' has the same bytes and is made on load",
            )
        )
    return Misuse(
        explain(
            f"{spec.model!r} is not a checkpoint in {method.name}",
            asked=f"quantization={method.name!r}",
            found=f"its configuration says {checkpoint or 'full precision'}",
            slip="the id of the quantised model has a suffix such as -AWQ or -GPTQ-Int4",
        )
    )


def _slip(name: str, meant: str | None) -> str | None:
    if name == "gguf":
        return "a gguf type goes after a colon"
    return f"did you mean {meant!r}?" if meant else None


def _made_on(method: Method, capability: tuple[int, ...]) -> bool:
    return capability >= method.capability and method.made == "on load"


def _dotted(capability: tuple[int, ...]) -> str:
    return ".".join(map(str, capability))
