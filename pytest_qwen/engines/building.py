"""A model ready to run: dummy weights made in place, or real ones read, quantised as they come."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from pytest_qwen.engines import fusion
from pytest_qwen.engines.base import LoadSpec
from pytest_qwen.engines.quantize import Quantizer, is_body_linear, loading_config, quantizer


def model_of(
    spec: LoadSpec,
    config: Any,
    source: Path | str,
    *,
    experts: str | None = None,
    quantization: str | None = None,
    fuse: bool = False,
) -> PreTrainedModel:
    """The model that a load asks for, its configuration and weights from `source`; see `build_model`."""
    return build_model(
        config,
        dtype=getattr(torch, spec.dtype),
        device=spec.device,
        attention=spec.attention,
        experts=experts,
        weights="dummy" if spec.weights == "dummy" else str(source),
        seed=spec.seed,
        revision=spec.revision,
        trust_remote_code=spec.trust_remote_code,
        quantization=quantization,
        fuse=fuse,
    )


def build_model(
    config: Any,
    *,
    dtype: torch.dtype,
    device: torch.device | str,
    attention: str = "sdpa",
    experts: str | None = None,
    weights: str = "dummy",
    seed: int = 0,
    revision: str | None = None,
    trust_remote_code: bool = False,
    quantization: str | None = None,
    fuse: bool = False,
) -> PreTrainedModel:
    """A model ready to decode.

    "dummy" weights are drawn on the device itself by the model's own initialiser (norms 1, biases 0, the
    rest normal): 61 GB take under a second and no file is read. Anything else is a folder or a hub name, of
    which only safetensors files are read. `quantization` is a method made on load: at no time is more of the
    model there in full precision than one layer (dummy) or one file (real). `fuse` stacks the projections
    of attention before they are quantised, which can only be done while nothing is loaded.
    """
    fusion.register()
    choices: dict[str, Any] = {"dtype": dtype, "attn_implementation": attention}
    if experts is not None:
        choices["experts_implementation"] = experts
    if weights != "dummy":
        if quantization is not None:
            choices["quantization_config"] = loading_config(quantization, dtype)
        model = AutoModelForCausalLM.from_pretrained(
            weights,
            config=config,
            revision=revision,
            trust_remote_code=trust_remote_code,
            use_safetensors=True,
            device_map={"": device},
            **choices,
        )
        return model.eval().requires_grad_(False)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code, **choices)
    if fuse:
        fusion.fuse_projections(model)
    torch.manual_seed(seed)
    fill_dummy(model, device, None if quantization is None else quantizer(quantization, dtype))
    return model.eval().requires_grad_(False)


def fill_dummy(model: PreTrainedModel, device: torch.device | str, quantize: Quantizer | None = None) -> None:
    """Give every module of a model on the meta device its tensors, one after the other.

    Linear layers of the body go through `quantize` as soon as they are drawn.
    """
    for parent, name, module in list(_bottom_up(model)):
        if not any(t.is_meta for t in (*module.parameters(recurse=False), *module.buffers(recurse=False))):
            continue
        module.to_empty(device=device, recurse=False)
        model._init_weights(module)
        if quantize is not None and parent is not None and is_body_linear(module, name):
            setattr(parent, name.rsplit(".", 1)[-1], quantize(module.requires_grad_(False)))
    model.tie_weights()


def _bottom_up(model: nn.Module) -> Iterator[tuple[nn.Module | None, str, nn.Module]]:
    """Every module with its parent (None for the model) and its full name."""
    by_name = dict(model.named_modules())
    for name, module in reversed(by_name.items()):
        yield (by_name[name.rpartition(".")[0]] if name else None), name, module
