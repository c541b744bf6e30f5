"""Weights in fewer bits through torchao and bitsandbytes: one layer at a time, or while a file is read."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import nn

Quantizer = Callable[[nn.Linear], nn.Module]


def _torchao_config(method: str) -> Any:
    """The library's configuration of a method.

    Its own settings of the compiler stay off: they are process-wide, search for minutes, and the profiles
    have theirs. int4 in tiles is the layout of the kernel that is in torch itself.
    """
    torchao = import_module("torchao.quantization")
    if method == "int4":
        return torchao.Int4WeightOnlyConfig(
            group_size=128, int4_packing_format="tile_packed_to_4d", set_inductor_config=False
        )
    kind = {"int8": "Int8WeightOnlyConfig", "fp8": "Float8WeightOnlyConfig"}[method]
    return getattr(torchao, kind)(set_inductor_config=False)


def quantizer(method: str, dtype: torch.dtype) -> Quantizer:
    """What turns one linear layer, with its weights on the device, into its quantised form."""
    if method == "nf4":
        return lambda layer: _nf4(layer, dtype)
    config, apply = _torchao_config(method), import_module("torchao.quantization").quantize_

    def quantized(layer: nn.Linear) -> nn.Module:
        apply(layer, config)
        return layer

    return quantized


def loading_config(method: str, dtype: torch.dtype) -> Any:
    """What `from_pretrained` needs to quantise each tensor as it is read, the head left as it is."""
    transformers = import_module("transformers")
    if method == "nf4":
        return transformers.BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    return transformers.TorchAoConfig(_torchao_config(method), modules_to_not_convert=["lm_head"])


def is_body_linear(module: nn.Module, name: str) -> bool:
    """Linear layers of the body; head and router stay as they are, as published quantised models do it."""
    return type(module) is nn.Linear and "lm_head" not in name and not name.endswith("mlp.gate")


def _nf4(layer: nn.Linear, dtype: torch.dtype) -> nn.Module:
    """4-bit normal floats with double quantisation (Dettmers et al. 2023, "QLoRA")."""
    modules = import_module("bitsandbytes").nn
    with torch.device("meta"):
        made = modules.Linear4bit(
            layer.in_features,
            layer.out_features,
            bias=False,
            compute_dtype=dtype,
            compress_statistics=True,
            quant_type="nf4",
        )
    weight = modules.Params4bit(
        layer.weight.data, requires_grad=False, compress_statistics=True, quant_type="nf4"
    )
    made.weight = weight.to(layer.weight.device)  # moving it is what quantises it
    made.bias = layer.bias
    return made
