"""What every engine of this library asks of its device and its packages: threads, memory, name, versions."""

from __future__ import annotations

import contextlib
import os
import resource
from importlib.metadata import PackageNotFoundError, version

import torch
import transformers


def use_physical_cores(device: torch.device) -> None:
    """On a CPU, one thread for two logical cores, unless OMP_NUM_THREADS says otherwise.

    They share their units in pairs, and the session that measures needs one too: threads beyond that wait
    for each other at every layer.
    """
    if device.type == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 2) // 2))


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def reserved_peak_bytes(device: torch.device) -> int:
    """Peak bytes: reserved by the allocator on a GPU (CUDA context not included), resident on a CPU."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_reserved(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def device_name(device: torch.device) -> str:
    """The product name of a GPU, or "cpu"."""
    return str(torch.cuda.get_device_name(device)) if device.type == "cuda" else "cpu"


def versions(*packages: str) -> dict[str, str]:
    """Versions of torch, transformers, CUDA, and those of `packages` that are installed."""
    found = {"torch": torch.__version__, "transformers": transformers.__version__}
    if torch.version.cuda:
        found["cuda"] = torch.version.cuda
    for package in packages:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
