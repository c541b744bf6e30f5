"""The published GPU selection guide beside one that is derived from shapes and memory."""

import pytest

from pytest_qwen.capacity import Precision, capacity, recommend
from pytest_qwen.data import find_shape
from pytest_qwen.gpus import lookup
from pytest_qwen.physics import Setup
from pytest_qwen.published import load_documents

(TABLE,) = (t for t in load_documents()["quantization"] if t.name == "GPU selection guide")
# The guide's cards: RTX 3090 and 4090; RTX 3070 and 3060 stand under one heading.
CARDS = {"24": "rtx3090", "12": "rtx3060", "8": "rtx3070"}
MODELS = ("Qwen/Qwen-72B", "Qwen/Qwen-14B", "Qwen/Qwen-7B", "Qwen/Qwen-1_8B")
PRECISIONS = {"BF16": None, "Int8": "int8", "Int4": "gptq"}
# The guide's figures are from generating 2,048 tokens.
CONTEXT_TOKENS = 2048
FIT = {"feasible", "tight"}


def setup(shape, precision, card):
    """One sequence that ends at 2,048 tokens, on one card."""
    return Setup(
        shape=shape,
        gpu=lookup(card),
        quantization=precision.quantization,
        prompt_tokens=1,
        output_tokens=CONTEXT_TOKENS - 1,
    )


def named(row):
    """Card, shape and precision of a row such as "24 GB: Qwen-7B-Chat-Int4"."""
    memory, _, text = row.name.partition(" GB: ")
    model, _, precision = text.replace("-Chat", "").replace(" ", "-").rpartition("-")
    shape = find_shape(f"Qwen/{model.replace('1.8B', '1_8B')}")
    return CARDS[memory], shape, Precision(quantization=PRECISIONS[precision])


@pytest.mark.parametrize("row", TABLE.rows, ids=lambda row: row.name)
def test_a_row_of_the_guide(row, published, record_property):
    """Whether it fits agrees in every row, also where the guide's own figure says otherwise."""
    card, shape, precision = named(row)
    found = capacity(setup(shape, precision, card))
    published(
        "quantization",
        TABLE.name,
        row.name,
        computed=True,
        why="the plan of one sequence of 2,048 tokens, the driver's context included",
        needs_gb=found.fit.total_bytes / 1e9,
    )
    record_property("answer", f"{found.verdict}, {found.fit.total_bytes / 1e9:.1f} GB")
    assert (found.verdict in FIT) == row["said_to_fit"]


def best(card):
    """Names of the models that fit, with their precision, best first."""
    shapes = [find_shape(model) for model in MODELS]
    wanted = [Precision(quantization=q) for q in PRECISIONS.values()]
    found = recommend(shapes, wanted, lambda shape, precision: setup(shape, precision, card))
    return [(one.setup.shape.model_id.removeprefix("Qwen/"), one.setup.quantization) for one in found]


@pytest.mark.parametrize(
    ("card", "derived", "difference"),
    [
        (
            "rtx3090",
            [("Qwen-14B", "int8"), ("Qwen-7B", None), ("Qwen-1_8B", None)],
            "the guide has 14B in 4 bits and 7B in 8; both fit in more bits, with less room for batches",
        ),
        (
            "rtx3060",
            [("Qwen-7B", "int8"), ("Qwen-1_8B", None)],
            "the guide has one list for 8 and 12 GB, so it leaves out 7B in 8 bits, which 12 GB hold",
        ),
        (
            "rtx3070",
            [("Qwen-7B", "gptq"), ("Qwen-1_8B", None)],
            "agreed, although the guide's own 8.2 GB exceed the card's 8",
        ),
    ],
)
def test_the_derived_recommendation(card, derived, difference, record_property):
    """The largest model that fits, each in the most bits that do."""
    record_property("difference", difference)
    assert best(card) == derived


def test_the_guides_models_are_among_those_that_fit():
    """What it recommends for a card is never a larger model than the derived best one."""
    for row in TABLE.rows:
        if row["said_to_fit"]:
            card, shape, _ = named(row)
            largest = find_shape(f"Qwen/{best(card)[0][0]}")
            assert shape.parameters <= largest.parameters, row.name
