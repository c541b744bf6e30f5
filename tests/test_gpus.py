"""The catalogue: names, families, what drivers call the cards, and facts that every row must hold."""

import pytest

from pytest_qwen.errors import Misuse
from pytest_qwen.gpus import CATALOGUE, CPU, Device, check_name, identify, lookup, matches, names

MIB = 2**20
ROWS = list(CATALOGUE.values())


def test_every_card_of_the_published_articles_has_a_row():
    wanted = """t4 l4 a10g a100-40 a100-80 a100-80-pcie l40s h100 h100-pcie h100-nvl h200 h200-nvl b200
        rtx3060 rtx3070 rtx3090 rtx4060ti-16 rtx4080 rtx4090 rtx5090 mi300x"""
    assert set(wanted.split()) <= set(CATALOGUE)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.alias)
def test_a_row_is_sourced_and_its_rates_are_dense(row):
    assert row.source
    assert row.memory_gb
    assert row.bandwidth_gb_per_sec
    assert row.power_w
    if row.fp8_tflops is not None:
        # a sparse rate in one column and a dense one in the other would break this ratio
        assert row.fp8_tflops / row.fp16_tflops == pytest.approx(2, rel=0.02)
    if row.bf16_tflops is not None:
        assert row.bf16_tflops == row.fp16_tflops


@pytest.mark.parametrize(
    ("alias", "fp16", "bandwidth"),
    [
        ("h100", 989, 3350),
        ("h100-nvl", 835.5, 3900),
        ("a100-80", 312, 2039),
        ("t4", 65, 320),
        ("l4", 121, 300),
    ],
)
def test_rates_are_those_of_the_data_sheets_not_of_the_articles(alias, fp16, bandwidth):
    assert (CATALOGUE[alias].fp16_tflops, CATALOGUE[alias].bandwidth_gb_per_sec) == (fp16, bandwidth)


def test_the_t4_has_no_bf16_rate():
    assert CATALOGUE["t4"].bf16_tflops is None


def test_only_cards_with_a_published_price_have_one():
    priced = {alias: row.price_per_hour_usd for alias, row in CATALOGUE.items() if row.price_per_hour_usd}
    assert priced == {"t4": 0.50, "l4": 0.75, "h100-nvl": 4.50}


@pytest.mark.parametrize(
    ("written", "alias"),
    [
        ("h100", "h100"),
        ("H100-SXM", "h100"),
        ("NVIDIA H100 NVL", "h100-nvl"),
        ("h100_pcie", "h100-pcie"),
        ("Tesla T4", "t4"),
        ("nvidia tesla t4", "t4"),
        ("a100", "a100-80"),
        ("A100-80GB", "a100-80"),
        ("a100 40 gb", "a100-40"),
        ("RTX 4090", "rtx4090"),
        ("GeForce RTX 4060 Ti 16GB", "rtx4060ti-16"),
        ("rtx4060ti", "rtx4060ti-16"),
        ("AMD Instinct MI300X", "mi300x"),
        ("cpu", "cpu"),
    ],
)
def test_lookup_takes_the_spellings_that_people_use(written, alias):
    assert lookup(written).alias == alias


@pytest.mark.parametrize("name", names())
def test_every_listed_name_is_valid(name):
    check_name(name)
    assert matches(name, lookup(name))


def test_an_unknown_name_says_what_was_meant_and_what_is_valid():
    with pytest.raises(Misuse, match="did you mean 'h100-nvl'") as caught:
        lookup("h100-nlv")
    assert all(alias in str(caught.value) for alias in CATALOGUE)


def test_auto_is_no_card():
    with pytest.raises(Misuse, match="option --gpu"):
        check_name("auto")


@pytest.mark.parametrize(
    ("asked", "matching"),
    [
        ("h100", {"h100", "h100-pcie", "h100-nvl"}),
        ("h100-sxm", {"h100"}),
        ("h100-nvl", {"h100-nvl"}),
        ("h200", {"h200", "h200-nvl"}),
        ("a100", {"a100-40", "a100-40-pcie", "a100-80", "a100-80-pcie"}),
        ("a100-80", {"a100-80"}),
        ("l4", {"l4"}),
        ("cpu", set()),
    ],
)
def test_a_family_matches_every_form_and_a_form_only_itself(asked, matching):
    assert {alias for alias, row in CATALOGUE.items() if matches(asked, row)} == matching


def test_cpu_matches_only_the_cpu():
    assert matches("CPU", CPU)
    assert not matches("h100", CPU)
    assert CPU.bandwidth_gb_per_sec is None


@pytest.mark.parametrize(
    ("name", "mib", "alias"),
    [
        ("Tesla T4", 15360, "t4"),
        ("NVIDIA L4", 23034, "l4"),
        ("NVIDIA A10G", 23028, "a10g"),
        ("NVIDIA A100-SXM4-40GB", 40960, "a100-40"),
        ("NVIDIA A100-SXM4-80GB", 81920, "a100-80"),
        ("NVIDIA A100 80GB PCIe", 81920, "a100-80-pcie"),
        ("A100-PCIE-40GB", 40536, "a100-40-pcie"),
        ("NVIDIA L40S", 46068, "l40s"),
        ("NVIDIA H100 80GB HBM3", 81559, "h100"),
        ("NVIDIA H100 PCIe", 81559, "h100-pcie"),
        ("NVIDIA H100 NVL", 95830, "h100-nvl"),
        ("NVIDIA H200", 143771, "h200"),
        ("NVIDIA H200 NVL", 143771, "h200-nvl"),
        ("NVIDIA B200", 183359, "b200"),
        ("NVIDIA GeForce RTX 3060", 12288, "rtx3060"),
        ("NVIDIA GeForce RTX 4060 Ti", 16380, "rtx4060ti-16"),
        ("NVIDIA GeForce RTX 4090", 24564, "rtx4090"),
    ],
)
def test_identify_knows_the_drivers_names(name, mib, alias):
    found = identify(name, mib * MIB)
    assert found is CATALOGUE[alias]
    assert mib * MIB >= found.memory_gb * 1e9  # the cautious reading of the advertised size


@pytest.mark.parametrize(
    ("name", "mib"),
    [
        ("NVIDIA GeForce RTX 3060", 8192),
        ("NVIDIA GeForce RTX 4060 Ti", 8188),
        ("NVIDIA GeForce RTX 4090 D", 24564),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", 16376),
        ("NVIDIA GeForce RTX 3070 Ti", 8192),
        ("NVIDIA GeForce RTX 4080 SUPER", 16376),
        ("NVIDIA GH200 480GB", 97871),
        ("NVIDIA H20", 97871),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", 4864),
        ("NVIDIA A100-SXM4-40GB", 4864),
        ("GRID T4-16Q", 16384),
        ("", 0),
    ],
)
def test_identify_does_not_guess(name, mib):
    assert identify(name, mib * MIB) is None


def test_a_device_describes_itself():
    device = Device(
        index=0,
        uuid="GPU-1",
        name="NVIDIA H200",
        spec=CATALOGUE["h200"],
        memory_bytes=143771 * MIB,
        power_limit_w=700.0,
        driver="580.159.04",
    )
    assert device.label == "NVIDIA H200, 143771 MiB, 700 W, driver 580.159.04"
