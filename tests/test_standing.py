"""Where published figures stand: the tolerance at its edges, other cards, physics, and names that do not exist."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from pytest_qwen.errors import Misuse
from pytest_qwen.published import Row, load_documents
from pytest_qwen.standing import Ours, Standing, figures, find_row, nature_of, problems_of, standing_of

DOCUMENTS = load_documents()
QWEN = ("quantization", "memory and speed")
INT4, BF16 = (find_row(DOCUMENTS, *QWEN, f"Qwen-7B {kind}") for kind in ("Int4", "BF16"))


def row(**fields: Any) -> Row:
    return Row(document="d", table="t", name="r", fields=fields)


def stand(of: Row, figure: str, value: float | None, gpu: str = "a100-80", **given: Any) -> Standing:
    against = given.pop("against", None)
    return standing_of(of, figure, Ours(value=value, gpu=gpu, **given), against=against)


@pytest.mark.parametrize(
    ("value", "word"),
    [
        (8.21, "reproduced"),
        (8.205 * 0.9501, "reproduced"),
        (8.215 * 1.0499, "reproduced"),
        (8.205 * 0.9499, "different"),
        (8.215 * 1.0501 * 2**30 / 1e9, "different"),
    ],
)
def test_memory_is_the_same_within_five_percent_of_the_printed_digits(value: float, word: str) -> None:
    assert stand(INT4, "memory_used_gb", value).standing == word


def test_a_gigabyte_may_have_been_2_to_the_30() -> None:
    found = stand(INT4, "memory_used_gb", 8.21 * 2**30 / 1e9)
    assert (found.standing, found.why) == ("reproduced", "if GB stands for 2^30 bytes there")


@pytest.mark.parametrize(
    ("value", "word"), [(45.1, "reproduced"), (45.0, "different"), (55.1, "reproduced"), (56.0, "different")]
)
def test_a_rate_on_the_published_card_within_ten_percent(value: float, word: str) -> None:
    assert stand(INT4, "tokens_per_sec", value).standing == word


def test_by_how_much_is_counted_from_the_printed_digits() -> None:
    assert stand(INT4, "tokens_per_sec", 50.095 * 1.5).percent == pytest.approx(50)
    assert stand(INT4, "tokens_per_sec", 50.085 * 0.5).percent == pytest.approx(-50)
    assert stand(INT4, "tokens_per_sec", 50.09).percent == 0
    assert stand(row(tokens_per_sec=">=15"), "tokens_per_sec", 99.0).percent == 0
    assert stand(row(product_zero=Decimal(0)), "product_zero", 5.0).percent == pytest.approx(900)  # from 0.5


def test_on_another_card_memory_compares_and_speed_does_not() -> None:
    assert stand(INT4, "memory_used_gb", 8.3, "h200").standing == "reproduced"
    speed = stand(INT4, "tokens_per_sec", 50.09, "h200")
    assert speed.standing == "not measurable here"
    assert speed.percent is None
    assert speed.measured == 50.09
    assert "A100 80GB SXM, ours on H200 SXM" in speed.why
    apart = stand(INT4, "memory_used_gb", 12.0, "h200")
    assert apart.standing == "different"
    assert "ours on H200 SXM; the weights alone are 5.86 GB" in apart.why


def test_a_ratio_compares_on_any_card_but_not_on_a_processor() -> None:
    same = stand(INT4, "tokens_per_sec", 50.09 / 40.93, "h200", against=BF16)
    assert (same.standing, same.figure) == ("reproduced", "tokens_per_sec / Qwen-7B BF16")
    assert same.published == "50.09 / 40.93"
    more = stand(INT4, "tokens_per_sec", 2.0, "h200", against=BF16)
    assert more.standing == "different"
    assert more.percent == pytest.approx(63.4, abs=0.1)
    assert stand(INT4, "tokens_per_sec", 1.2, "cpu", against=BF16).standing == "not measurable here"


def test_another_number_of_cards_is_another_machine() -> None:
    two = find_row(DOCUMENTS, *QWEN, "Qwen-72B BF16")
    assert stand(two, "tokens_per_sec", 8.48).standing == "not measurable here"
    assert stand(two, "tokens_per_sec", 8.48, count=2).standing == "reproduced"
    assert "2 x A100 80GB SXM, ours on A100 80GB SXM" in stand(two, "tokens_per_sec", 8.48).why


def test_memory_of_a_processor_is_no_memory_of_a_card() -> None:
    assert stand(INT4, "memory_used_gb", 8.21, "cpu").standing == "not measurable here"


def test_what_could_not_be_measured_says_why() -> None:
    found = stand(INT4, "memory_used_gb", None, why="no GPTQ kernels for this card")
    assert (found.standing, found.measured, found.why) == (
        "not measurable here",
        None,
        "no GPTQ kernels for this card",
    )


def test_what_physics_forbids_is_impossible_whatever_was_measured() -> None:
    l4 = find_row(DOCUMENTS, "gpu-comparison", "7B on L4", "measured")
    for value, gpu in ((20.0, "l4"), (30.2, "l4"), (150.0, "h200"), (None, "h200")):
        found = stand(l4, "tokens_per_sec", value, gpu)
        assert found.standing == "impossible"
        assert "at most 21.2 tok/s" in found.why
    t4 = find_row(DOCUMENTS, "gpu-comparison", "memory on T4", "Qwen2.5-Coder-7B-Instruct")
    assert stand(t4, "memory_used_gb", 15.6, "t4").standing == "impossible"
    assert stand(t4, "memory_free_gb", 2.3, "t4").standing == "reproduced"


def test_a_ratio_with_an_impossible_end_is_impossible() -> None:
    table = "tokens per second across GPUs"
    t4, l4 = (find_row(DOCUMENTS, "gpu-comparison", table, name) for name in ("T4", "L4"))
    assert stand(l4, "tokens_per_sec", 7.9, "l4", against=t4).standing == "impossible"


def test_an_inconsistency_is_named_as_a_reason_and_only_where_ours_differs() -> None:
    batch = find_row(DOCUMENTS, "quantization", "KV quantisation by batch", "batch 32")
    assert "larger figure holds copies" in stand(batch, "kv_saving_saved_gb", 8.6).why
    assert stand(batch, "kv_saving_saved_gb", 18.5).why == ""
    assert stand(batch, "kv_saving_with_gb", 30.2).standing == "reproduced"


def test_what_was_computed_must_agree_within_a_percent_on_any_card() -> None:
    nodes = find_row(DOCUMENTS, "infrastructure", "crossover", "two DGX nodes")
    found = stand(nodes, "product_result", 18_000.0, "cpu", computed=True)
    assert (found.standing, found.computed) == ("different", True)
    assert "2 nodes x 9000 USD a node = 18,000" in found.why
    cost = row(gpu="l4", usd_per_mtok=Decimal("6.90"))
    assert stand(cost, "usd_per_mtok", 6.8981, "h200", computed=True).standing == "reproduced"
    assert stand(cost, "usd_per_mtok", 6.905 * 1.0101, "h200", computed=True).standing == "different"


def test_quality_does_not_depend_on_the_card() -> None:
    stars = row(gpu="h100-nvl", stars=5)
    assert stand(stars, "stars", 5.0, "cpu").standing == "reproduced"
    assert stand(stars, "stars", 4.0, "h200").standing == "different"


def test_without_a_reason_it_says_what_is_left() -> None:
    found = stand(INT4, "tokens_per_sec", 100.0)
    assert found.why == "the same card; software, settings or workload differ"
    assert stand(INT4, "tokens_per_sec", 100.0, why="fused kernels").why == "fused kernels"


def test_every_number_of_a_row_has_a_name() -> None:
    lora = find_row(DOCUMENTS, "quantization", "fine-tuning Qwen-7B", "LoRA")
    names = figures(lora)
    assert names["training_memory_gb_256"] == Decimal("20.1")
    assert names["training_seconds_8192"] == Decimal("21.3")
    assert "training_tokens" not in names
    assert figures(row(row="512", a=True, b="text", c=[1, 2, 3], d="~4", e=[35, 40])).keys() == {"d", "e"}


def test_every_figure_of_every_published_row_can_be_set_beside_ours() -> None:
    words = set()
    for tables in DOCUMENTS.values():
        for one in (r for table in tables for r in table.rows):
            words |= {stand(one, name, 1.0, "h200").standing for name in figures(one)}
    assert words == {"reproduced", "different", "impossible", "not measurable here"}


def test_a_problem_is_told_of_its_own_figure_only() -> None:
    card = find_row(DOCUMENTS, "infrastructure", "consumer and AMD cards", "RTX 4080")
    report = find_row(DOCUMENTS, "h100-report", "configuration comparison", "current Qwen-3 14B")
    assert [kind for kind, _ in problems_of(report, "utilization_percent_memory")] == ["impossible"]
    assert not list(problems_of(report, "utilization_percent_compute"))
    full = find_row(DOCUMENTS, "quantization", "fine-tuning Qwen-7B", "full-parameter")
    assert not list(problems_of(full, "training_memory_gb_8192"))
    assert not list(problems_of(card, "memory_gb"))  # though "fp16" is in what is wrong beside it
    assert [kind for kind, _ in problems_of(card, "fp16_tflops")] == ["inconsistent"]


@pytest.mark.parametrize(
    ("figure", "nature"),
    [
        ("memory_used_gb", "memory"),
        ("training_memory_gb_256", "memory"),
        ("kv_saving_saved_gb", "memory"),
        ("memory_free_gb", "speed"),
        ("bandwidth_gb_per_sec", "speed"),
        ("training_seconds_256", "speed"),
        ("usd_per_mtok", "speed"),
        ("stars", "plain"),
        ("product_result", "plain"),
    ],
)
def test_what_a_figure_depends_on(figure: str, nature: str) -> None:
    assert nature_of(figure) == nature


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("quantisation", *QWEN[1:], "Qwen-7B Int4"), "did you mean 'quantization'"),
        (("quantization", "memory and sped", "Qwen-7B Int4"), "did you mean 'memory and speed'"),
        ((*QWEN, "Qwen-7B int-4"), "did you mean 'Qwen-7B Int4'"),
        ((*QWEN, "zzz"), "valid: 'Qwen-1.8B BF16'"),
    ],
)
def test_an_unknown_name_is_misuse_with_the_nearest_one(names: tuple[str, str, str], said: str) -> None:
    with pytest.raises(Misuse, match=said):
        find_row(DOCUMENTS, *names)


def test_a_document_may_be_named_by_its_title() -> None:
    assert find_row(DOCUMENTS, INT4.document, INT4.table, INT4.name) is INT4


def test_an_unknown_figure_is_misuse() -> None:
    with pytest.raises(Misuse, match="did you mean 'tokens_per_sec'"):
        stand(INT4, "token_per_sec", 50.0)
