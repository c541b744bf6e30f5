"""Price files: what is read, what wins, and one message for each way in which a file can be wrong."""

from pathlib import Path

import pytest

from pytest_qwen.data import fixtures_dir, load_prices, read_prices
from pytest_qwen.errors import Misuse
from pytest_qwen.gpus import CATALOGUE, lookup
from pytest_qwen.prices import SECTIONS, parse_prices

WHOLE = """
[cards.l4]
usd_per_hour = 0.6
[cards."RTX 4090"]
usd_per_hour = 0.4
[apis.mine]
input_usd_per_mtok = 1
output_usd_per_mtok = 2.5
[subscriptions.seat]
usd_per_month = 12
[hardware.box]
usd = 9000
watts = 800
[electricity.here]
usd_per_kwh = 0.31
source = "the bill"
as_of = "2026-01"
"""


def test_every_section_is_read_and_cards_go_by_alias():
    book = parse_prices(WHOLE, "mine.toml")
    assert {name: price.usd_per_hour for name, price in book.cards.items()} == {"l4": 0.6, "rtx4090": 0.4}
    assert book.apis["mine"].output_usd_per_mtok == 2.5
    assert book.subscriptions["seat"].usd_per_month == 12
    assert (book.hardware["box"].usd, book.hardware["box"].watts) == (9000, 800)
    assert (book.electricity["here"].usd_per_kwh, book.electricity["here"].source) == (0.31, "the bill")


def test_a_file_wins_over_the_shipped_prices_and_leaves_the_others(tmp_path):
    mine = tmp_path / "mine.toml"
    mine.write_text(WHOLE)
    book, shipped = load_prices(mine), load_prices()
    assert book.cards["l4"].usd_per_hour == 0.6
    assert book.cards["t4"] == shipped.cards["t4"]
    assert {*shipped.apis, "mine"} == set(book.apis)


def test_every_shipped_price_has_a_source_and_a_date():
    book = load_prices()
    for section in SECTIONS:
        entries = getattr(book, section)
        assert entries, section
        assert all(price.source and price.as_of for price in entries.values()), section


def test_the_shipped_card_prices_are_the_catalogues():
    listed = {alias: row.price_per_hour_usd for alias, row in CATALOGUE.items() if row.price_per_hour_usd}
    assert {alias: price.usd_per_hour for alias, price in load_prices().cards.items()} == listed


def test_a_copy_of_the_shipped_file_is_valid(tmp_path):
    copy = tmp_path / "prices.toml"
    copy.write_bytes((fixtures_dir() / "prices.toml").read_bytes())
    assert load_prices(copy) == load_prices()
    assert lookup("l4").price_per_hour_usd == load_prices(copy).cards["l4"].usd_per_hour


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[cards.l4", "mine.toml is not TOML"),
        ("[card.l4]\nusd_per_hour = 1", "did you mean 'cards'?"),
        ("[cards.l5]\nusd_per_hour = 1", "mine.toml: there is no GPU 'l5' in the catalogue"),
        ("[cards.l4]\nusd_per_hour = 0", "mine.toml: cards.l4.usd_per_hour: 0 is not a price above 0"),
        ("[cards.l4]\nusd_per_hour = -1", "-1 is not a price above 0"),
        ("[cards.l4]\nusd_per_hour = true", "True is not a price above 0"),
        ("[cards.l4]\nusd_per_hour = inf", "inf is not a price above 0"),
        ("[cards.l4]\nusd_per_hour = nan", "nan is not a price above 0"),
        ('[cards.l4]\nusd_per_hour = "0.7"', "'0.7' is not a price above 0"),
        ("[cards]\nl4 = 0.7", "cards.l4 is 0.7, not a table"),
        ("[cards.l4]\nusd_per_hours = 1", "did you mean 'usd_per_hour'?"),
        ("[cards.l4]\nsource = 'x'", "cards.l4 does not say usd_per_hour"),
        ("[cards.l4]\nusd_per_hour = 1\nsource = 3", "cards.l4.source is 3, not a text"),
        ("[apis.a]\ninput_usd_per_mtok = 1", "apis.a does not say output_usd_per_mtok"),
        ("[apis.a]\ninput_usd_per_mtok = 0\noutput_usd_per_mtok = 1", "0 is not a price above 0"),
        ("electricity = 0.12", "electricity is 0.12, not a table of prices"),
    ],
)
def test_what_is_wrong_is_said_in_one_message(text, said):
    with pytest.raises(Misuse) as caught:
        parse_prices(text, "mine.toml")
    assert said in str(caught.value)
    assert "mine.toml" in str(caught.value)


@pytest.mark.parametrize("kind", ["missing", "folder", "no text"])
def test_a_file_that_cannot_be_read_is_named(tmp_path, kind):
    path = Path(tmp_path) / "mine.toml"
    if kind == "folder":
        path.mkdir()
    if kind == "no text":
        path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(Misuse, match=r"price file .*mine\.toml cannot be read"):
        read_prices(path)
