"""Random weights of a folder's configuration, saved beside it, for servers that only load what is on disk."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM


def save(folder: Path, seed: int) -> None:
    """Draw the weights in bfloat16 and write them as safetensors."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=torch.bfloat16)
    model.save_pretrained(folder)
