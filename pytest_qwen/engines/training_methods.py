"""What is trained and how: adapters, quantised base, whole model, and their optimisers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from pytest_qwen.engines.base import LoadSpec
from pytest_qwen.engines.building import model_of
from pytest_qwen.engines.sources import config_of, loading, source_of
from pytest_qwen.errors import NotInstalled, Unavailable, explain

_LEARNING_RATE = 1e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One way to fine-tune: the options of a training load, read."""

    method: str
    rank: int
    targets: tuple[str, ...]
    checkpointing: bool
    optimizer: str

    @classmethod
    def of(cls, spec: LoadSpec) -> Recipe:
        """The recipe in a load's options."""
        options: Mapping[str, Any] = dict(spec.options)
        return cls(
            method=options["method"],
            rank=options["rank"],
            targets=tuple(options["targets"].split(",")),
            checkpointing=options["gradient_checkpointing"],
            optimizer=options["optimizer"],
        )

    @property
    def adapters(self) -> bool:
        """Whether adapters are trained beside a frozen model."""
        return self.method != "full"


def prepare_model(spec: LoadSpec, recipe: Recipe) -> tuple[Any, list[str]]:
    """The model with what is trained made trainable, and what was done to it in words.

    Raises NotInstalled for a missing package, Unavailable for Q-LoRA without a GPU, ModelUnusable.
    """
    _check_packages(spec, recipe)
    model, applied = _made(spec, source_of(spec))
    if recipe.checkpointing:
        # renamed in later versions of transformers; the old name warns there
        enable = (
            getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        )
        enable({"use_reentrant": False})
        applied.append("each layer's activations computed again in the backward pass")
    if recipe.adapters:
        model = _with_adapters(model, recipe, getattr(torch, spec.dtype))
        applied.append(f"adapters of rank {recipe.rank} on {', '.join(recipe.targets)}")
    else:
        model.requires_grad_(True)
    return model.train(), applied


def _check_packages(spec: LoadSpec, recipe: Recipe) -> None:
    if recipe.method == "qlora" and spec.device == "cpu":
        raise Unavailable(
            explain(
                "Q-LoRA needs a GPU: its 4-bit kernels are made for CUDA",
                asked='finetune("qlora") on the CPU',
                next_step='finetune("lora"), or --gpu with a GPU',
            )
        )
    uses_bitsandbytes = recipe.method == "qlora" or recipe.optimizer != "adamw"
    if recipe.optimizer != "adamw" and spec.device == "cpu":
        raise Unavailable(
            explain(
                f"optimizer {recipe.optimizer!r} needs a GPU: its kernels are made for CUDA",
                asked=f"optimizer={recipe.optimizer!r} on the CPU",
                next_step='optimizer="adamw"',
            )
        )
    needed = {"peft": recipe.adapters, "bitsandbytes": uses_bitsandbytes, "accelerate": uses_bitsandbytes}
    for package, wanted in needed.items():
        if wanted and find_spec(package) is None:
            raise NotInstalled(
                explain(
                    f"fine-tuning by {recipe.method!r} with {recipe.optimizer!r} needs the package {package}",
                    found="it is not installed",
                    next_step="pip install 'pytest-qwen[finetune]'",
                )
            )


def _made(spec: LoadSpec, source: Path | str) -> tuple[Any, list[str]]:
    """The frozen model; under Q-LoRA with nf4 weights, made one layer at a time."""
    config, applied = config_of(spec, source)
    with loading(spec, source):
        model = model_of(spec, config, source, quantization=spec.quantization)
    if spec.quantization:
        model.is_loaded_in_4bit = True  # peft looks here for the kind of the layers under its adapters
        applied = [*applied, f"{spec.quantization} weights, linear layers except the head (bitsandbytes)"]
    return model, applied


def _with_adapters(model: Any, recipe: Recipe, dtype: torch.dtype) -> Any:
    """Adapters in the model's own number format; with embeddings: full copies of both, trained."""
    peft = import_module("peft")
    embeddings = ["embed_tokens", "lm_head"] if recipe.method == "lora-embeddings" else None
    config = peft.LoraConfig(
        r=recipe.rank,
        lora_alpha=16,
        lora_dropout=0.0,
        bias="none",
        target_modules=list(recipe.targets),
        modules_to_save=embeddings,
        task_type="CAUSAL_LM",
    )
    made = peft.get_peft_model(model, config, autocast_adapter_dtype=False)
    for parameter in made.parameters():
        if parameter.requires_grad and parameter.dtype != dtype:
            parameter.data = parameter.data.to(dtype)
    return made


def make_optimizer(recipe: Recipe, parameters: Sequence[Any]) -> Any:
    """The optimiser by name. "adamw" keeps its states in the parameters' number format, in one kernel."""
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=_LEARNING_RATE, fused=True)
    of: Mapping[str, Callable[..., Any]] = vars(import_module("bitsandbytes").optim)
    made = {"adamw-fp32": "AdamW32bit", "adamw8bit": "AdamW8bit", "paged-adamw8bit": "PagedAdamW8bit"}
    return of[made[recipe.optimizer]](parameters, lr=_LEARNING_RATE)
