"""Published tables as data: spans of printed numbers, rows, and the shipped documents."""

from decimal import Decimal

import pytest

from pytest_qwen.published import Span, load_tables, printed, span

TABLES = load_tables()


@pytest.mark.parametrize(
    ("stated", "low", "high"),
    [
        (307, 306.5, 307.5),
        (Decimal("30.2"), 30.15, 30.25),
        (Decimal("24.10"), 24.095, 24.105),
        ("~18", 17.1, 18.9),
        (">=15", 15, float("inf")),
        ([35, 40], 34.5, 40.5),
        ([-66, -50], -66.5, -49.5),
        (["0.6", "6.5"], 0.55, 6.55),
    ],
)
def test_a_printed_number_stands_for_a_span(stated, low, high):
    assert (span(stated).low, span(stated).high) == pytest.approx((low, high))


def test_a_quotient_of_spans_holds_every_quotient():
    rate = Span(550, 550) / span(Decimal("10.3"))
    assert rate.low == pytest.approx(550 / 10.35)
    assert rate.high == pytest.approx(550 / 10.25)
    assert rate.overlaps(span(Decimal("53.1")))
    assert not rate.overlaps(span(Decimal("52.1")))


def test_numbers_are_printed_as_they_were():
    assert printed(Decimal("36.50")) == "36.50"
    assert printed([35, 40]) == "35-40"


def test_all_five_documents_are_shipped():
    assert len({table.document for table in TABLES}) == 5
    assert len({table.label for table in TABLES}) == len(TABLES)
    assert all(table.section and table.rows for table in TABLES)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.label)
def test_every_row_that_names_a_model_or_card_is_known(table):
    for row in table.rows:
        assert "model" not in row or row.shape is not None
        assert not {"model", "gpu"} <= set(row.fields) or row.setup is not None


def test_a_row_knows_its_precision_and_setup():
    row = next(row for table in TABLES for row in table.rows if row.name == "Qwen-72B Int8")
    assert (row.quantization, row.dtype) == ("int8", "bfloat16")
    assert row.setup.count == 2
    assert "count" in row
    assert row.span("tokens_per_sec").overlaps(Span(9.05, 9.05))
