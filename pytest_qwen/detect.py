"""Which GPUs this machine has, asked of its driver through NVML."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from pytest_qwen.gpus import Device, identify


def detect(nvml: Any = None, environ: Mapping[str, str] | None = None) -> tuple[Device, ...]:
    """The visible GPUs in CUDA's order; empty where there is no driver, no library or no GPU.

    `nvml` is a module with pynvml's functions (pynvml itself when None). CUDA_VISIBLE_DEVICES of `environ`
    (the process's own when None) is honoured as CUDA does: indices, UUIDs and their prefixes, MIG UUIDs, and
    the first invalid entry ends the list. Indices count in the driver's bus order, which is CUDA's own order
    on machines with equal cards or with CUDA_DEVICE_ORDER=PCI_BUS_ID.
    """
    try:
        nvml = nvml or import_module("pynvml")
    except ImportError:
        return ()
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return ()
    try:
        visible = (os.environ if environ is None else environ).get("CUDA_VISIBLE_DEVICES")
        driver = _text(_read(nvml, nvml.nvmlSystemGetDriverVersion))
        handles = _visible_handles(nvml, visible)
        return tuple(_device(nvml, index, handle, driver) for index, handle in enumerate(handles))
    except nvml.NVMLError:
        return ()
    finally:
        nvml.nvmlShutdown()


def _visible_handles(nvml: Any, visible: str | None) -> list[Any]:
    """The handles of the devices that CUDA_VISIBLE_DEVICES leaves visible, in its order."""
    everything = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
    if visible is None:
        return everything
    chosen: list[Any] = []
    for entry in (part.strip() for part in visible.split(",")):
        handle = _handle_of(nvml, entry, everything)
        if handle is None:
            break
        chosen.append(handle)
    return chosen


def _handle_of(nvml: Any, entry: str, everything: list[Any]) -> Any:
    """The device that one entry names; None for an invalid one."""
    if entry.isdigit():
        return everything[int(entry)] if int(entry) < len(everything) else None
    if entry.startswith("MIG-"):
        return _read(nvml, nvml.nvmlDeviceGetHandleByUUID, entry)
    if entry.startswith("GPU-"):
        found = [h for h in everything if (_text(nvml.nvmlDeviceGetUUID(h)) or "").startswith(entry)]
        return found[0] if len(found) == 1 else None
    return None


def _device(nvml: Any, index: int, handle: Any, driver: str | None) -> Device:
    name = _text(nvml.nvmlDeviceGetName(handle)) or ""
    uuid = _text(nvml.nvmlDeviceGetUUID(handle)) or ""
    memory_bytes = int(nvml.nvmlDeviceGetMemoryInfo(handle).total)
    mig_mode = _read(nvml, nvml.nvmlDeviceGetMigMode, handle)
    capability = _read(nvml, nvml.nvmlDeviceGetCudaComputeCapability, handle)
    return Device(
        index=index,
        uuid=uuid,
        name=name,
        spec=identify(name, memory_bytes),
        memory_bytes=memory_bytes,
        mig=True if uuid.startswith("MIG-") else None if mig_mode is None else bool(mig_mode[0]),
        power_limit_w=_watts(_read(nvml, nvml.nvmlDeviceGetPowerManagementLimit, handle)),
        power_default_w=_watts(_read(nvml, nvml.nvmlDeviceGetPowerManagementDefaultLimit, handle)),
        driver=driver,
        compute_capability=None if capability is None else f"{capability[0]}.{capability[1]}",
        max_sm_clock_mhz=_read(nvml, nvml.nvmlDeviceGetMaxClockInfo, handle, nvml.NVML_CLOCK_SM),
    )


def _read(nvml: Any, function: Callable[..., Any], *arguments: Any) -> Any:
    """What the driver answers, None when this device does not support the question."""
    try:
        return function(*arguments)
    except nvml.NVMLError:
        return None


def _text(value: Any) -> str | None:
    """Older bindings answer in bytes."""
    return value.decode() if isinstance(value, bytes) else value


def _watts(milliwatts: int | None) -> float | None:
    return None if milliwatts is None else milliwatts / 1000
