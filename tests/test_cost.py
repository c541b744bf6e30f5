"""Costs: each formula against a value worked out by hand, and what no cost follows from."""

import pytest

from pytest_qwen import cost
from pytest_qwen.errors import Misuse


def test_a_rate_makes_an_hour_cheap_or_dear():
    assert cost.usd_per_mtok(3.6, 1000) == pytest.approx(1.0)  # 3.6 Mtok an hour
    assert cost.usd_per_mtok(0.50, 3.8) == pytest.approx(36.55, abs=0.005)


def test_a_blend_weighs_by_tokens():
    assert cost.blended_usd_per_mtok(2.5, 10, inputs_per_output=2) == pytest.approx(5.0)
    assert cost.blended_usd_per_mtok(2.5, 10, inputs_per_output=0) == 10
    assert cost.blended_usd_per_mtok(4, 8, inputs_per_output=3) == pytest.approx(5.0)


def test_a_month_of_tokens_and_of_electricity():
    assert cost.usd_a_month(1e6, 5) == pytest.approx(150)
    assert cost.usd_a_month(1e6, 5, days=1) == pytest.approx(5)
    assert cost.electricity_usd(1150, 240, 0.12) == pytest.approx(33.12)


def test_owning_is_the_purchase_over_its_months_and_what_runs_on():
    assert cost.Owned(usd=3600, months=36).usd_a_month == pytest.approx(100)
    assert cost.Owned(usd=3600, months=36, usd_a_month_besides=50).usd_a_month == pytest.approx(150)


def test_what_hardware_makes_in_a_month():
    assert cost.mtok_a_month(1000) == pytest.approx(2592)  # 30 days of 86,400 s
    assert cost.mtok_a_month(1000, utilization=0.25) == pytest.approx(648)


def test_break_even_is_where_both_cost_the_same():
    needed = cost.break_even_mtok(9000, 5)
    assert needed == 1800
    assert cost.usd_a_month(needed * 1e6 / 30, 5) == pytest.approx(9000)
    assert cost.break_even_seats(540, 19) == 29  # 28 seats are 532 USD
    assert cost.break_even_seats(38, 19) == 2


def test_a_purchase_pays_for_itself_or_never_does():
    assert cost.payback_months(4500, 117) == pytest.approx(38.46, abs=0.01)
    assert cost.payback_months(4500, 0) is None
    assert cost.payback_months(4500, -13) is None


def test_the_crossover_has_its_winners_and_as_many_units_as_needed():
    rows = cost.crossover(
        [1e6, 60e6, 500e6], api_usd_per_mtok=5, unit_usd_a_month=9000, unit_mtok_a_month=7500
    )
    assert [(row.winner, row.units) for row in rows] == [("api", 1), ("even", 1), ("own", 2)]
    assert rows[0].times == pytest.approx(60)
    assert rows[2].own_usd_a_month == 18_000
    (whole,) = cost.crossover([500e6], api_usd_per_mtok=5, unit_usd_a_month=9000)
    assert whole.units == 1
    head, *lines = cost.render(rows).splitlines()
    assert head.split()[-1] == "winner"
    assert [line.split()[4] for line in lines] == ["api", "even", "own"]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: cost.usd_per_mtok(0, 100),
        lambda: cost.usd_per_mtok(1, 0),
        lambda: cost.usd_per_mtok(float("nan"), 100),
        lambda: cost.blended_usd_per_mtok(0, 10, inputs_per_output=2),
        lambda: cost.blended_usd_per_mtok(1, 10, inputs_per_output=-1),
        lambda: cost.usd_a_month(1e6, 0),
        lambda: cost.electricity_usd(100, 10, 0),
        lambda: cost.Owned(usd=0, months=36).usd_a_month,
        lambda: cost.Owned(usd=10, months=0).usd_a_month,
        lambda: cost.mtok_a_month(10, utilization=0),
        lambda: cost.mtok_a_month(10, utilization=1.1),
        lambda: cost.break_even_mtok(100, 0),
        lambda: cost.break_even_seats(100, 0),
        lambda: cost.payback_months(0, 10),
        lambda: cost.crossover([1e6], api_usd_per_mtok=5, unit_usd_a_month=0),
    ],
)
def test_no_cost_follows_from_nothing(wrong):
    with pytest.raises(Misuse, match="no cost follows from"):
        wrong()
