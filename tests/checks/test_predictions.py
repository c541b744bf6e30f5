"""Labels and scores in whatever JSON a generated server answers with."""

import json

import pytest

from pytest_qwen.checks.predictions import Prediction, agrees, read_prediction

LABELS = ["normal", "nsfw"]
SHAPES = {
    "flat": ({"label": "nsfw", "score": 0.8}, ("nsfw", 0.8)),
    "other words": ({"prediction": "NSFW", "confidence": 0.8}, ("nsfw", 0.8)),
    "nested": ({"filename": "x.png", "result": {"class": "normal", "probability": 0.6}}, ("normal", 0.6)),
    "the pipeline's list": ([{"label": "nsfw", "score": 0.8}, {"label": "normal", "score": 0.2}], ("nsfw", 0.8)),
    "a list, lowest first": ({"predictions": [{"label": "normal", "score": 0.2}, {"label": "nsfw", "score": 0.8}]}, ("nsfw", 0.8)),
    "a score a label": ({"normal": 0.2, "nsfw": 0.8}, ("nsfw", 0.8)),
    "a flag and a label": ({"is_nsfw": True, "confidence": 0.8, "label": "nsfw"}, ("nsfw", 0.8)),
    "a flag alone": ({"is_nsfw": False, "confidence": 0.9}, ("normal", 0.9)),
    "label and score apart": ({"label": "nsfw", "details": {"score": 0.8}}, ("nsfw", 0.8)),
    "no score": ({"label": "nsfw"}, ("nsfw", None)),
    "a percentage is no share": ({"label": "nsfw", "score": 80.0}, ("nsfw", None)),
    "nothing": ({"status": "ok"}, (None, None)),
    "other labels": ({"label": "cat", "score": 0.8}, (None, 0.8)),
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_reads_shape(shape: str) -> None:
    body, (label, score) = SHAPES[shape]
    read = read_prediction(json.dumps(body), LABELS)
    assert (read.label, read.score) == (label, score)


@pytest.mark.parametrize("body", ["", "no json", "[" * 100_000, "NaN", '{"label": null}'])
def test_reads_nothing_out_of_rubbish(body: str) -> None:
    assert read_prediction(body, LABELS) == Prediction(label=None, score=None)


TRUTH = {"label": "normal", "score": 0.9}


@pytest.mark.parametrize(
    ("body", "same"),
    [
        ({"label": "normal", "score": 0.9}, True),
        ({"label": "normal", "score": 0.9009}, True),
        ({"label": "normal", "score": 0.902}, False),
        ({"label": "nsfw", "score": 0.9}, False),
        ({"label": "normal"}, False),
        ({"label": "normal", "nsfw_score": 0.1}, True),
        ({"label": "normal", "nsfw_score": 0.9}, False),
    ],
)
def test_agrees_with_the_oracle(body: dict[str, object], same: bool) -> None:
    assert agrees(read_prediction(json.dumps(body), LABELS), TRUTH, LABELS) is same
