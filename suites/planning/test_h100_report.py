"""The published H100 optimisation report done right: what each configuration needs and what would fit."""

from dataclasses import replace

import pytest

from pytest_qwen.optimization import optimization
from pytest_qwen.physics import fit
from pytest_qwen.published import load_documents

(TABLE,) = load_documents()["h100-report"]
# Whether the configuration as published fits one card, and how many of its sequences do, by computing.
FITS = {
    "current Qwen-3 14B": (False, 8),
    "optimised Qwen-3 14B": (False, 8),
    "current Qwen-3 8B": (True, 8),
    "optimised Qwen-3 8B": (False, 7),
}


@pytest.mark.parametrize("row", TABLE.rows, ids=lambda row: row.name)
def test_a_configuration(row, published, record_property):
    """One definition of each share: memory of the card's 80 GB; MBU and MFU of a step at the roofline."""
    found = optimization(row)
    print(found.explain())  # noqa: T201 - what the reader of this suite came for
    record_property("report", found.explain())
    fits, sequences = FITS[row.name]
    assert found.fit.fits is fits
    assert found.batch == sequences
    assert found.total_gb == pytest.approx(found.memory_percent / 100 * 80)
    shares = found.shares
    assert shares is not None
    assert shares.memory <= 100
    # decoding long contexts reads far more than it computes: the memory's bandwidth is the limit in all four
    assert shares.bandwidth == pytest.approx(100)
    assert 0 < shares.compute < 10
    published(
        "h100-report",
        TABLE.name,
        row.name,
        computed=True,
        why="; ".join(found.contradictions),
        weights_gb=found.weights_gb,
        kv_cache_gb=found.kv_cache_gb,
        total=found.total_gb,
        utilization_percent_memory=found.memory_percent,
    )


@pytest.mark.parametrize("row", TABLE.rows, ids=lambda row: row.name)
def test_what_would_fit_is_the_most_that_fits(row):
    """The largest batch at the asked context, and the longest context of the asked batch, and no more."""
    found = optimization(row)
    if found.batch < found.setup.batch:
        more = fit(replace(found.setup, batch=found.batch + 1))
        assert more is not None
        assert not more.fits
    longest = found.longest_context
    positions = found.setup.shape.max_positions
    assert fit(replace(found.setup, prompt_tokens=longest - 1)).fits
    assert longest == positions or not fit(replace(found.setup, prompt_tokens=longest)).fits


@pytest.mark.parametrize("row", TABLE.rows, ids=lambda row: row.name)
def test_every_configuration_contradicts_itself(row):
    """Sizes that no such model has, parts that do not add up, a mean of shares of different things."""
    texts = "\n".join(optimization(row).contradictions)
    assert "parameters in" in texts
    assert "KV heads" in texts
    assert "the components add up to" in texts
    assert "is the mean of memory, compute and bandwidth" in texts
    assert ("positions" in texts) == (int(row["context_tokens"]) > 40_960)


def test_the_total_is_five_gb_above_its_parts_in_all_four():
    """Something of 5 GB is in every total and in no list of parts."""
    for row in TABLE.rows:
        parts = sum(float(part) for part in row["parts"].values())
        assert float(row["total"]) - parts == pytest.approx(5.0, abs=0.15)


def test_the_optimised_14b_differs_in_nothing_but_the_cache():
    """Half the cache at the same context and batch is a cache of half the bits; it does not say so."""
    now, then = (
        next(r for r in TABLE.rows if r.name == f"{name} Qwen-3 14B") for name in ("current", "optimised")
    )
    assert float(then["kv_cache_gb"]) == pytest.approx(float(now["kv_cache_gb"]) / 2)
    same = {"sequences", "context_tokens", "quantization", "weights_gb"}
    assert all(now[field] == then[field] for field in same)
