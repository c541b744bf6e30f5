"""What a run is for: the GPU that was asked, the devices that are there, and whether a test's marks match."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pytest_qwen import gpus
from pytest_qwen.errors import Misuse, explain
from pytest_qwen.gpus import Device, GpuSpec
from pytest_qwen.markers import Gpu
from pytest_qwen.prices import PriceBook


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What tests run on. `devices` is empty on a CPU and when only planning.

    `spec` is the catalogue's row: of the devices there, or of the asked card when planning; None for an
    unknown card. `asked` is the option's text.
    """

    asked: str
    spec: GpuSpec | None
    devices: tuple[Device, ...] = ()

    @property
    def is_cpu(self) -> bool:
        """Whether this run uses no GPU."""
        return self.spec is not None and self.spec.alias == gpus.CPU.alias

    @property
    def named(self) -> bool:
        """Whether the user asked for this very target, so that measuring nothing is a failure."""
        return self.asked != "auto"

    @property
    def label(self) -> str:
        """For people: the real device, or the card that is planned for."""
        if self.devices:
            more = f" and {len(self.devices) - 1} more" if len(self.devices) > 1 else ""
            return self.devices[0].label + more
        return self.spec.name if self.spec else "unknown"


def resolve(asked: str, devices: Sequence[Device], *, planning: bool) -> Target:
    """The target of a run.

    Raises Misuse for an unknown name, and when the asked GPU is not in this machine (unless planning).
    """
    if asked.lower() == gpus.CPU.alias or (asked == "auto" and not devices):
        return Target(asked=asked, spec=gpus.CPU)
    if asked == "auto":
        first = devices[0]
        alike = tuple(d for d in devices if d.name == first.name)
        return Target(asked=asked, spec=first.spec, devices=alike)
    spec = gpus.lookup(asked)
    matching = tuple(d for d in devices if d.spec is not None and gpus.matches(asked, d.spec))
    if matching:
        return Target(asked=asked, spec=matching[0].spec, devices=matching)
    if planning:
        return Target(asked=asked, spec=spec)
    raise Misuse(
        explain(
            f"--gpu={asked}: this machine has no such GPU",
            asked=f"{spec.name}, to be measured",
            found="; ".join(d.label for d in devices) or "no GPU (NVML found none)",
            slip="CUDA_VISIBLE_DEVICES hides it, the driver is not running, or this is another machine",
            next_step="--qwen-plan --gpu=" + asked + " plans for it on any machine",
            choices=sorted({"auto", gpus.CPU.alias, *(d.spec.alias for d in devices if d.spec)}),
        )
    )


def priced(target: Target, prices: PriceBook) -> Target:
    """The same target with the hourly prices of a price file in place of the catalogue's."""

    def of(spec: GpuSpec | None) -> GpuSpec | None:
        price = prices.cards.get(spec.alias) if spec else None
        return replace(spec, price_per_hour_usd=price.usd_per_hour) if spec and price else spec

    devices = tuple(replace(device, spec=of(device.spec)) for device in target.devices)
    return replace(target, spec=of(target.spec), devices=devices)


def mismatch(wanted: Gpu | None, target: Target) -> str | None:
    """Why a test's `gpu` mark does not match the target (wanted and found), None when it does."""
    if wanted is None:
        return None
    if wanted.names and not _any_name_matches(wanted.names, target):
        return f"wants gpu {' or '.join(wanted.names)}; this run is on {target.label}"
    if not wanted.names and target.is_cpu:
        return f"wants a gpu; this run is on {target.label}"
    if target.devices and wanted.count > len(target.devices):
        return f"wants {wanted.count} GPUs; this run has {len(target.devices)}: {target.label}"
    if wanted.min_memory_gb is not None:
        have = _memory_gb(target)
        if have is None or have < wanted.min_memory_gb:
            found = "unknown memory" if have is None else f"{have:.0f} GB"
            return (
                f"wants a GPU of at least {wanted.min_memory_gb:g} GB; this run has {found}: {target.label}"
            )
    return None


def _any_name_matches(names: Sequence[str], target: Target) -> bool:
    if target.spec is None:
        return False
    if target.is_cpu:
        return gpus.CPU.alias in (name.lower() for name in names)
    return any(gpus.matches(name, target.spec) for name in names)


def _memory_gb(target: Target) -> float | None:
    if target.devices and target.devices[0].memory_bytes:
        return target.devices[0].memory_bytes / 1e9
    return target.spec.memory_gb if target.spec else None
