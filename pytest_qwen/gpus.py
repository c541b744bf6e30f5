"""The GPU catalogue: one sourced row a card, names that people use, names that drivers report."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from pytest_qwen.errors import Misuse, closest, explain


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuSpec:
    """What a data sheet says of one card; None is unknown, never a guess.

    Rates are dense tensor-core TFLOP/s (fp16 and bf16 with fp32 accumulation), never the "with sparsity"
    figures. `memory_gb` is the advertised size; drivers report at least that many 1e9 bytes.
    `device_names` are the driver's product names without the "NVIDIA " prefix. `note` says what published
    articles get wrong.
    """

    alias: str
    name: str
    family: str
    form_factor: str
    memory_gb: float | None
    bandwidth_gb_per_sec: float | None
    fp16_tflops: float | None = None
    bf16_tflops: float | None = None
    fp8_tflops: float | None = None
    power_w: float | None = None
    compute_capability: str | None = None
    vendor: str = "NVIDIA"
    price_per_hour_usd: float | None = None
    source: str = ""
    note: str = ""
    device_names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One GPU of this machine as its driver describes it; None is unknown.

    `index` is CUDA's ordinal among the visible devices; the driver is asked by `uuid`. `spec` is the
    catalogue's row, None for a card that is not in it. `mig` is True for a slice and for a card cut into
    slices.
    """

    index: int
    uuid: str
    name: str
    spec: GpuSpec | None
    memory_bytes: int
    mig: bool | None = None
    power_limit_w: float | None = None
    power_default_w: float | None = None
    driver: str | None = None
    compute_capability: str | None = None
    max_sm_clock_mhz: int | None = None

    @property
    def label(self) -> str:
        """The device in one line for people: "NVIDIA H200, 143771 MiB, 700 W, driver 580.159.04"."""
        parts = [self.name, f"{self.memory_bytes // 2**20} MiB"]
        if self.power_limit_w is not None:
            parts.append(f"{self.power_limit_w:g} W")
        if self.mig:
            parts.append("MIG")
        if self.driver:
            parts.append(f"driver {self.driver}")
        return ", ".join(parts)


_A100: dict[str, Any] = {
    "family": "a100",
    "fp16_tflops": 312.0,
    "bf16_tflops": 312.0,
    "compute_capability": "8.0",
    "source": "NVIDIA A100 Tensor Core GPU data sheet, 2021",
    "note": 'a published table gives "TF32 312": 312 is dense FP16/BF16 (and sparse TF32); dense TF32 is 156',
}
_HOPPER_NOTE = (
    "the data sheet prints rates with sparsity, halved here; published articles give 1,979 as FP16, 989 as "
    "TF32; 1,979 is sparse FP16, 989 is dense FP16 (and sparse TF32) of the SXM form, dense TF32 is 495"
)
_SXM5: dict[str, Any] = {"fp16_tflops": 989.0, "bf16_tflops": 989.0, "fp8_tflops": 1979.0}
_NVL: dict[str, Any] = {"fp16_tflops": 835.5, "bf16_tflops": 835.5, "fp8_tflops": 1670.5}
_FP32_ACCUMULATE = "FP16 tensor rate with FP32 accumulation, dense"
_AMPERE_SOURCE = "NVIDIA Ampere GA102 GPU architecture whitepaper, 2020"
_ADA_SOURCE = "NVIDIA Ada GPU architecture whitepaper, 2022"
_SHADER_NOTE = "published 'FP16 TFLOPS' are shader rates, not tensor-core rates"

_ROWS: tuple[GpuSpec, ...] = (
    GpuSpec(
        alias="t4", name="NVIDIA T4", family="t4", form_factor="PCIe", memory_gb=16, bandwidth_gb_per_sec=320,
        fp16_tflops=65, power_w=70, compute_capability="7.5", price_per_hour_usd=0.50,
        source="NVIDIA Turing GPU architecture whitepaper, 2018; price: upper figure of the published guide",
        note="no bf16 tensor rate; a published guide calls its tensor cores first generation and the first "
        "of NVIDIA: Turing's are the second, after Volta's",
        device_names=("Tesla T4", "T4"),
    ),
    GpuSpec(
        alias="l4", name="NVIDIA L4", family="l4", form_factor="PCIe", memory_gb=24, bandwidth_gb_per_sec=300,
        fp16_tflops=121, bf16_tflops=121, fp8_tflops=242.5, power_w=72, compute_capability="8.9",
        price_per_hour_usd=0.75,
        source="NVIDIA L4 data sheet, 2023 (rates with sparsity halved); price: upper figure of the "
        "published guide",
        note="slower memory than the T4: any bandwidth-bound rate is at most 94 % of the T4's",
        device_names=("L4",),
    ),
    GpuSpec(
        alias="a10g", name="NVIDIA A10G", family="a10g", form_factor="PCIe", memory_gb=24,
        bandwidth_gb_per_sec=600, fp16_tflops=70, bf16_tflops=70, power_w=300, compute_capability="8.6",
        source="NVIDIA A10G data sheet (AWS G5), 2021",
        note="not the A10, which has 125 TFLOP/s at 150 W",
        device_names=("A10G",),
    ),
    GpuSpec(
        alias="a100-80", name="NVIDIA A100 80GB SXM", form_factor="SXM4", memory_gb=80,
        bandwidth_gb_per_sec=2039, power_w=400,
        device_names=("A100-SXM4-80GB", "A100-SXM-80GB"), **_A100,
    ),
    GpuSpec(
        alias="a100-80-pcie", name="NVIDIA A100 80GB PCIe", form_factor="PCIe", memory_gb=80,
        bandwidth_gb_per_sec=1935, power_w=300,
        device_names=("A100 80GB PCIe",), **_A100,
    ),
    GpuSpec(
        alias="a100-40", name="NVIDIA A100 40GB SXM", form_factor="SXM4", memory_gb=40,
        bandwidth_gb_per_sec=1555, power_w=400,
        device_names=("A100-SXM4-40GB",), **_A100,
    ),
    GpuSpec(
        alias="a100-40-pcie", name="NVIDIA A100 40GB PCIe", form_factor="PCIe", memory_gb=40,
        bandwidth_gb_per_sec=1555, power_w=250,
        device_names=("A100-PCIE-40GB",), **_A100,
    ),
    GpuSpec(
        alias="l40s", name="NVIDIA L40S", family="l40s", form_factor="PCIe", memory_gb=48,
        bandwidth_gb_per_sec=864, fp16_tflops=362, bf16_tflops=362, fp8_tflops=733, power_w=350,
        compute_capability="8.9", source="NVIDIA L40S data sheet, 2023", device_names=("L40S",),
    ),
    GpuSpec(
        alias="h100", name="NVIDIA H100 SXM", family="h100", form_factor="SXM5", memory_gb=80,
        bandwidth_gb_per_sec=3350, power_w=700, compute_capability="9.0",
        source="NVIDIA H100 Tensor Core GPU data sheet, 2023", note=_HOPPER_NOTE,
        device_names=("H100 80GB HBM3",), **_SXM5,
    ),
    GpuSpec(
        alias="h100-pcie", name="NVIDIA H100 PCIe", family="h100", form_factor="PCIe", memory_gb=80,
        bandwidth_gb_per_sec=2000, fp16_tflops=756, bf16_tflops=756, fp8_tflops=1513, power_w=350,
        compute_capability="9.0", source="NVIDIA H100 Tensor Core GPU data sheet, 2022", note=_HOPPER_NOTE,
        device_names=("H100 PCIe",),
    ),
    GpuSpec(
        alias="h100-nvl", name="NVIDIA H100 NVL", family="h100", form_factor="NVL", memory_gb=94,
        bandwidth_gb_per_sec=3900, power_w=400, compute_capability="9.0", price_per_hour_usd=4.50,
        source="NVIDIA H100 NVL data sheet, 2024; price: the published guide's cost table",
        note=f"{_HOPPER_NOTE}; the guide's table for the NVL gives the SXM form's sparse rates",
        device_names=("H100 NVL",), **_NVL,
    ),
    GpuSpec(
        alias="h200", name="NVIDIA H200 SXM", family="h200", form_factor="SXM5", memory_gb=141,
        bandwidth_gb_per_sec=4800, power_w=700, compute_capability="9.0",
        source="NVIDIA H200 Tensor Core GPU data sheet, 2024", note=_HOPPER_NOTE,
        device_names=("H200",), **_SXM5,
    ),
    GpuSpec(
        alias="h200-nvl", name="NVIDIA H200 NVL", family="h200", form_factor="NVL", memory_gb=141,
        bandwidth_gb_per_sec=4800, power_w=600, compute_capability="9.0",
        source="NVIDIA H200 Tensor Core GPU data sheet, 2024", note=_HOPPER_NOTE,
        device_names=("H200 NVL",), **_NVL,
    ),
    GpuSpec(
        alias="b200", name="NVIDIA B200", family="b200", form_factor="SXM6", memory_gb=180,
        bandwidth_gb_per_sec=8000, fp16_tflops=2250, bf16_tflops=2250, fp8_tflops=4500, power_w=1000,
        compute_capability="10.0", source="NVIDIA DGX B200 data sheet, 2024 (an eighth of the system)",
        note='192 GB are on the package, 180 usable; a published table gives "TF32 2,250": that is FP16',
        device_names=("B200",),
    ),
    GpuSpec(
        alias="rtx3060", name="NVIDIA GeForce RTX 3060 12GB", family="rtx3060", form_factor="desktop",
        memory_gb=12, bandwidth_gb_per_sec=360, power_w=170, compute_capability="8.6",
        source="NVIDIA GeForce RTX 3060 product page, 2021",
        note="an 8 GB card of the same name with two thirds of the bandwidth exists; it is not this row",
        device_names=("GeForce RTX 3060",),
    ),
    GpuSpec(
        alias="rtx3070", name="NVIDIA GeForce RTX 3070", family="rtx3070", form_factor="desktop", memory_gb=8,
        bandwidth_gb_per_sec=448, fp16_tflops=40.6, bf16_tflops=40.6, power_w=220, compute_capability="8.6",
        source=_AMPERE_SOURCE, note=_FP32_ACCUMULATE, device_names=("GeForce RTX 3070",),
    ),
    GpuSpec(
        alias="rtx3090", name="NVIDIA GeForce RTX 3090", family="rtx3090", form_factor="desktop",
        memory_gb=24, bandwidth_gb_per_sec=936, fp16_tflops=71, bf16_tflops=71, power_w=350,
        compute_capability="8.6", source=_AMPERE_SOURCE, note=_FP32_ACCUMULATE,
        device_names=("GeForce RTX 3090",),
    ),
    GpuSpec(
        alias="rtx4060ti-16", name="NVIDIA GeForce RTX 4060 Ti 16GB", family="rtx4060ti",
        form_factor="desktop", memory_gb=16, bandwidth_gb_per_sec=288, power_w=165, compute_capability="8.9",
        source="NVIDIA GeForce RTX 4060 Ti product page, 2023",
        note=f"{_SHADER_NOTE}; the published 160 W and $400 are those of the 8 GB card",
        device_names=("GeForce RTX 4060 Ti",),
    ),
    GpuSpec(
        alias="rtx4080", name="NVIDIA GeForce RTX 4080", family="rtx4080", form_factor="desktop",
        memory_gb=16, bandwidth_gb_per_sec=716.8, fp16_tflops=97.5, bf16_tflops=97.5, fp8_tflops=194.9,
        power_w=320,
        compute_capability="8.9", source=_ADA_SOURCE, note=f"{_FP32_ACCUMULATE}; {_SHADER_NOTE}",
        device_names=("GeForce RTX 4080",),
    ),
    GpuSpec(
        alias="rtx4090", name="NVIDIA GeForce RTX 4090", family="rtx4090", form_factor="desktop",
        memory_gb=24, bandwidth_gb_per_sec=1008, fp16_tflops=165.2, bf16_tflops=165.2, fp8_tflops=330.3,
        power_w=450,
        compute_capability="8.9", source=_ADA_SOURCE, note=f"{_FP32_ACCUMULATE}; {_SHADER_NOTE}",
        device_names=("GeForce RTX 4090",),
    ),
    GpuSpec(
        alias="rtx5090", name="NVIDIA GeForce RTX 5090", family="rtx5090", form_factor="desktop",
        memory_gb=32, bandwidth_gb_per_sec=1792, fp16_tflops=209.5, bf16_tflops=209.5, fp8_tflops=419,
        power_w=575,
        compute_capability="12.0", source="NVIDIA RTX Blackwell GPU architecture whitepaper, 2025",
        note=f"{_FP32_ACCUMULATE}; {_SHADER_NOTE}", device_names=("GeForce RTX 5090",),
    ),
    GpuSpec(
        alias="mi300x", name="AMD Instinct MI300X", family="mi300x", form_factor="OAM", memory_gb=192,
        bandwidth_gb_per_sec=5300, fp16_tflops=1307.4, bf16_tflops=1307.4, fp8_tflops=2614.9, power_w=750,
        vendor="AMD", source="AMD Instinct MI300X data sheet, 2023",
        note="a published table gives 653.7 as FP16: that is the dense TF32 rate",
        device_names=("AMD Instinct MI300X",),
    ),
)  # fmt: skip

CATALOGUE: Mapping[str, GpuSpec] = MappingProxyType({row.alias: row for row in _ROWS})

CPU = GpuSpec(
    alias="cpu",
    name="CPU",
    family="cpu",
    form_factor="host",
    memory_gb=None,
    bandwidth_gb_per_sec=None,
    vendor="",
    source="no data sheet: hosts differ",
)

# Names of one exact form whose catalogue alias is also the family's name, or leaves the form unsaid.
_EXACT_NAMES = {
    "h100-sxm": "h100",
    "h200-sxm": "h200",
    "a100-40-sxm": "a100-40",
    "a100-80-sxm": "a100-80",
}
_MEMORY_TOLERANCE = 0.10


def names() -> tuple[str, ...]:
    """Every name that `lookup` takes: aliases, families, exact names and "cpu"."""
    families = {row.family for row in _ROWS}
    return (*sorted({*CATALOGUE, *families, *_EXACT_NAMES}), CPU.alias)


def _squashed(name: str) -> str:
    """The name without what people vary: case, separators, maker and brand, "GB" after a size."""
    text = re.sub(r"[\s_-]+", " ", name.lower()).strip()
    text = re.sub(r"^(?:nvidia|amd) ", "", text)
    text = re.sub(r"^(?:tesla|geforce|instinct) ", "", text)
    text = re.sub(r"(?<=\d) ?gb\b", "", text)
    return text.replace(" ", "")


_BY_SQUASHED = {_squashed(name): name for name in names()}


def canonical(name: str) -> str:
    """The catalogue's spelling of a name; Misuse when nothing is called so."""
    found = _BY_SQUASHED.get(_squashed(name))
    if found is not None:
        return found
    meant = closest(_squashed(name), _BY_SQUASHED)
    slip = f"did you mean {_BY_SQUASHED[meant]!r}?" if meant else None
    if _squashed(name) == "auto":
        slip = "'auto' is a value of the option --gpu; a test names a card, or no card at all"
    raise Misuse(
        explain(f"there is no GPU {name!r} in the catalogue", asked=name, slip=slip, choices=names())
    )


def check_name(name: str) -> None:
    """Raises Misuse unless `name` is a card, a family, an exact form or "cpu"."""
    canonical(name)


def lookup(name: str) -> GpuSpec:
    """The row of a card, in any spelling; a family's name gives the family's first row (its SXM form).

    Raises Misuse with "did you mean" and every valid name.
    """
    found = canonical(name)
    if found == CPU.alias:
        return CPU
    found = _EXACT_NAMES.get(found, found)
    return CATALOGUE.get(found) or next(row for row in _ROWS if row.family == found)


def matches(asked: str, spec: GpuSpec) -> bool:
    """Whether a card is what was asked: a family matches each of its forms, a form only itself.

    Raises Misuse for an unknown name.
    """
    found = canonical(asked)
    return found == spec.family or _EXACT_NAMES.get(found, found) == spec.alias


def identify(device_name: str, memory_bytes: int) -> GpuSpec | None:
    """The catalogue's row of a driver's product name, None for a card that is not in the catalogue.

    The name must be equal, not alike: "RTX 4090 D", "... Laptop GPU", "H20", "GH200" and MIG slices are
    other devices. The memory must agree within 10 %, which tells cards of one name apart (RTX 3060 with 8
    and 12 GB); drivers report between 94 % (ECC in use) and 100 % of the advertised GiB.
    """
    plain = device_name.removeprefix("NVIDIA ").strip()
    for row in _ROWS:
        if plain in row.device_names and row.memory_gb is not None:
            advertised = row.memory_gb * 2**30
            return row if abs(memory_bytes - advertised) <= _MEMORY_TOLERANCE * advertised else None
    return None
