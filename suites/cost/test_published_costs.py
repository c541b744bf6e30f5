"""Every published cost, break-even and electricity bill, recomputed; disagreements are named."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from pytest_qwen import cost
from pytest_qwen.claims import findings
from pytest_qwen.data import load_prices
from pytest_qwen.gpus import lookup
from pytest_qwen.published import Row, load_documents

DOCUMENTS = load_documents()
PRICES = load_prices()
SHARES = {"2:1": 2.0, "1:1": 1.0}


def factors(row: Row) -> dict[str, float]:
    """The factors of a product by their printed names."""
    return {name: float(value) for name, value in row["product"]["factors"].items()}


def spend(row: Row) -> float:
    """Tokens a day at a rate, for a month, or for the one day when the row names no days."""
    given = factors(row)
    tokens = given["million tokens a day"] * 1e6
    return cost.usd_a_month(tokens, given["USD per million"], days=given.get("days", 1))


def electricity(row: Row) -> float:
    """A power drawn for some hours, at a price."""
    given = factors(row)
    return cost.electricity_usd(1000 * given["kW"], given["hours"], given["USD per kWh"])


def times_each(row: Row) -> float:
    """So many, at so much each: months, nodes, developers, hours."""
    (_, number), (_, each) = row["product"]["factors"].items()
    return float(number) * float(each)


def blended(row: Row) -> float:
    """An API's two rates as one, for the row's ratio of prompt to answer."""
    api, _, ratio = row.name.partition(" at ")
    rates = PRICES.apis[api]
    return cost.blended_usd_per_mtok(
        rates.input_usd_per_mtok, rates.output_usd_per_mtok, inputs_per_output=SHARES[ratio]
    )


def furthest(row: Row) -> float:
    """The quotient that lies furthest from the middle of the stated range."""
    given = row["multiple"]
    quotients = [float(of) / float(given["to"]) for of in given["of"]]
    middle = (float(given["times"][0]) + float(given["times"][1])) / 2
    return max(quotients, key=lambda quotient: abs(quotient - middle))


def payback(row: Row) -> float:
    """Months until hardware of the middle price has paid for itself."""
    low, high = (float(end) for end in row["multiple"]["of"])
    months = cost.payback_months((low + high) / 2, float(row["multiple"]["to"]))
    assert months is not None
    return months


def quotient(row: Row) -> float:
    """One monthly price over the other."""
    return float(row["ratio"]["of"]) / float(row["ratio"]["to"])


def amortized(row: Row) -> float:
    """A purchase written off evenly."""
    return cost.Owned(usd=float(row["ratio"]["of"]), months=float(row["ratio"]["to"])).usd_a_month


def together(row: Row) -> float:
    """The parts of a monthly price."""
    return sum(float(part) for part in row["parts"].values())


def of_a_rate(row: Row) -> float:
    """An hour's price over an hour's tokens."""
    return cost.usd_per_mtok(float(row["usd_per_hour"]), float(row["tokens_per_sec"]))


def of_a_thousand(row: Row) -> float:
    """The same for a thousand tokens, at the card's price."""
    price = PRICES.cards[lookup(row["gpu"]).alias].usd_per_hour
    return cost.usd_per_mtok(price, float(row["tokens_per_sec"])) / 1000


# document, table, how a row with this field is recomputed, and which of its figures that is
Formula = Callable[[Row], float]
FORMULAS: list[tuple[str, str, str, str, Formula]] = [
    ("infrastructure", "services", "product", "product_result", times_each),
    ("infrastructure", "blended rates", "parts", "total", blended),
    ("infrastructure", "API token spend a developer", "product", "product_result", spend),
    ("infrastructure", "cost sensitivity", "product", "product_result", spend),
    ("infrastructure", "electricity", "product", "product_result", electricity),
    ("infrastructure", "consumer hardware", "product", "product_result", electricity),
    ("infrastructure", "consumer hardware", "multiple", "multiple_times", payback),
    ("infrastructure", "crossover", "product", "product_result", spend),
    ("infrastructure", "crossover", "parts", "total", together),
    ("infrastructure", "crossover", "ratio", "ratio_times", quotient),
    ("infrastructure", "API spend and programme cost", "product", "product_result", times_each),
    ("infrastructure", "API spend and programme cost", "multiple", "multiple_times", furthest),
    ("gpu-comparison", "cost per million tokens", "usd_per_mtok", "usd_per_mtok", of_a_rate),
    ("gpu-comparison", "cost per million tokens", "ratio", "ratio_times", quotient),
    ("gpu-comparison", "tokens per second across GPUs", "usd_per_ktok", "usd_per_ktok", of_a_thousand),
    ("gpu-comparison", "break-even", "product", "product_result", times_each),
]
SPECIAL: dict[str, Formula] = {"two DGX nodes": times_each, "hardware of a node": amortized}

WRONG_KWH = "8,760 hours at the stated 0.12 USD/kWh; the printed figures follow from 0.10"
CARD_PRICE = (
    "the card's hourly price over the stated rate; the other table of the same article agrees with this"
)
SEVERAL = "the programme's range over the token spend goes beyond the stated multiple"
DIFFERENT = {
    **{
        ("electricity", name): WRONG_KWH
        for name in ("RTX 4090", "RTX 5090", "dual RTX 5090", "H100 SXM", "8x H100 DGX", "GB200 NVL72")
    },
    ("crossover", "two DGX nodes"): "twice a node's 9,000 USD",
    **{
        ("API spend and programme cost", f"{team}, programme against tokens"): SEVERAL
        for team in ("small startup", "mid-size team", "enterprise division")
    },
    **{("tokens per second across GPUs", name): CARD_PRICE for name in ("T4", "L4", "H100 NVL")},
}  # fmt: skip


def cases() -> Iterator[object]:
    """Each row with each formula that reads it."""
    for document, table, field, figure, formula in FORMULAS:
        (found,) = (t for t in DOCUMENTS[document] if t.name == table)
        for row in found.rows:
            if field in row:
                chosen = SPECIAL.get(row.name, formula)
                yield pytest.param(document, row, figure, chosen, id=f"{table}: {row.name}: {figure}")


@pytest.mark.parametrize(("document", "row", "figure", "formula"), list(cases()))
def test_a_published_cost(document, row, figure, formula, published, record_property):
    """Reproduced from the row's inputs, or different for the reason that is named here."""
    reason = DIFFERENT.get((row.table, row.name), "")
    (found,) = published(document, row.table, row.name, computed=True, why=reason, **{figure: formula(row)})
    record_property("standing", f"{found.standing}: published {found.published}, ours {found.measured:g}")
    assert found.standing == ("different" if reason else "reproduced"), (found, reason)


def test_what_is_different_is_found_by_the_checks_as_well():
    """The general checks of published claims name each of these rows, or the table that contradicts it."""
    named = {(one.table, one.row) for one in findings(t for tables in DOCUMENTS.values() for t in tables)}
    contradicted = {"T4": "7B on T4", "L4": "7B on L4", "H100 NVL": "7B on H100"}
    for table, row in DIFFERENT:
        other = ("cost per million tokens", contradicted.get(row, ""))
        assert {(table, row), other} & named, (table, row)


def test_the_electricity_was_computed_at_another_price():
    """One price explains every row of the table, and it is not the stated one."""
    (table,) = (t for t in DOCUMENTS["infrastructure"] if t.name == "electricity")
    for row in table.rows:
        given = factors(row)
        at_ten_cents = cost.electricity_usd(1000 * given["kW"], given["hours"], 0.10)
        assert given["USD per kWh"] == pytest.approx(0.12)
        assert float(str(row["product"]["result"]).strip("~")) == pytest.approx(at_ten_cents, rel=0.03)


# ---- the crossover table as a whole, from the stated price of a node

NODE_USD_A_MONTH = cost.Owned(usd=198_000, months=36, usd_a_month_besides=3500).usd_a_month
TOKENS_A_DAY = [1e6, 10e6, 30e6, 60e6, 100e6, 500e6]
PUBLISHED_WINNERS = ["api", "api", "api", "even", "own", "own"]


def test_the_crossover_table(record_property):
    """Winners agree with the published ones; two nodes, as the last row wants them, cost 18,000 USD."""
    # 198,000 / 36 + 3,500 is the published 9,000; 200,000 would be 9,056
    assert pytest.approx(9000) == NODE_USD_A_MONTH
    half = 250e6 * cost.DAYS_A_MONTH / 1e6  # what a node can do, if the last row needs two
    rows = cost.crossover(
        TOKENS_A_DAY, api_usd_per_mtok=5, unit_usd_a_month=NODE_USD_A_MONTH, unit_mtok_a_month=half
    )
    assert [row.winner for row in rows] == PUBLISHED_WINNERS
    assert rows[-1].units == 2
    assert rows[-1].own_usd_a_month == pytest.approx(18_000)
    assert rows[-1].times == pytest.approx(4.2, abs=0.05)  # published as 5
    record_property("crossover", cost.render(rows))


@pytest.mark.parametrize(("api", "published_mtok_a_day"), [("GPT-4o", 60), ("Claude Opus", 25)])
def test_the_break_even_of_a_node(api, published_mtok_a_day, record_property):
    """From the unrounded blended rate; the published figures take 5 and 12 USD."""
    rates = PRICES.apis[api]
    rate = cost.blended_usd_per_mtok(rates.input_usd_per_mtok, rates.output_usd_per_mtok, inputs_per_output=2)
    a_day = cost.break_even_mtok(NODE_USD_A_MONTH, rate) / cost.DAYS_A_MONTH
    record_property("break-even", f"{api}: {a_day:.1f} Mtok a day at {rate:.2f} USD/Mtok")
    assert a_day == pytest.approx(published_mtok_a_day, rel=0.03)


def test_a_team_of_a_hundred_does_not_use_up_an_l4(record_property):
    """The published break-even has 10 Mtok a month: too few for an L4 to be cheaper than an API."""
    month = PRICES.cards["l4"].usd_per_hour * cost.HOURS_A_MONTH
    gpt = PRICES.apis["GPT-4o"]
    rate = cost.blended_usd_per_mtok(gpt.input_usd_per_mtok, gpt.output_usd_per_mtok, inputs_per_output=2)
    needed = cost.break_even_mtok(month, rate)
    seats = cost.break_even_seats(month, PRICES.subscriptions["GitHub Copilot Business"].usd_per_month)
    record_property(
        "break-even", f"{needed:.0f} Mtok a month against the API, {seats} seats of the subscription"
    )
    assert needed > 10
    assert seats < 100
