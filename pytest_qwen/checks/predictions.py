"""Reads a label and a score out of whatever JSON shape a generated server answers with."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Words that name a score's field, the likelier first.
_SCORE_WORDS = ("score", "confidence", "probab", "prob", "certainty", "likelihood")
_DEEPEST = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What a response says: the label in the model's spelling and the score given with it, 0-1.

    `scored` is the label that the score belongs to: a field named "nsfw_score" speaks of "nsfw" whatever
    label was chosen. Either is None when the response does not carry it.
    """

    label: str | None
    score: float | None
    scored: str | None = None


def read_prediction(body: str, labels: Sequence[str]) -> Prediction:
    """The prediction in a JSON body; both parts None when the body is no JSON or holds none."""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        return Prediction(label=None, score=None)
    by_name = {label.casefold(): label for label in labels}
    found = [read for item in _mappings(data) if (read := _in_mapping(item, by_name))]
    whole = [read for read in found if read.label is not None and read.score is not None]
    if whole:  # of a list of labels with scores the highest is the prediction
        return max(whole, key=lambda read: read.score or 0.0)
    label = next((read.label for read in found if read.label), None)
    score = next((read for read in found if read.score is not None), None)
    return Prediction(
        label=label,
        score=score.score if score else None,
        scored=(score.scored if score else None) or label,
    )


def agrees(
    read: Prediction, truth: Mapping[str, Any], labels: Sequence[str], tolerance: float = 1e-3
) -> bool:
    """Whether a prediction is the oracle's: `truth` has "label" and its "score" (0-1)."""
    if read.label != truth["label"] or read.score is None:
        return False
    expected = float(truth["score"])
    if read.scored is not None and read.scored != truth["label"] and len(labels) == 2:
        expected = 1.0 - expected
    return abs(read.score - expected) <= tolerance


def _mappings(data: Any, depth: int = 0) -> Iterator[Mapping[str, Any]]:
    """Every mapping in the data, outer ones first."""
    if depth > _DEEPEST:
        return
    if isinstance(data, Mapping):
        yield data
        data = list(data.values())
    if isinstance(data, list):
        for item in data:
            yield from _mappings(item, depth + 1)


def _in_mapping(item: Mapping[str, Any], by_name: Mapping[str, str]) -> Prediction | None:
    """A label, a score or both among the values of one mapping."""
    per_label = {
        by_name[k.casefold()]: float(v) for k, v in item.items() if k.casefold() in by_name and _is_share(v)
    }
    if len(per_label) > 1:
        best = max(per_label, key=lambda name: per_label[name])
        return Prediction(label=best, score=per_label[best], scored=best)
    label = next(
        (by_name[v.casefold()] for v in item.values() if isinstance(v, str) and v.casefold() in by_name), None
    )
    label = label or _from_flag(item, by_name)
    score, scored = _score(item, by_name)
    if label is None and score is None:
        return None
    return Prediction(label=label, score=score, scored=scored or label)


def _from_flag(item: Mapping[str, Any], by_name: Mapping[str, str]) -> str | None:
    """The label that a truth value such as "is_nsfw" stands for; a false one means the other of two."""
    for key, value in item.items():
        if not isinstance(value, bool):
            continue
        named = next((by_name[name] for name in by_name if name in key.casefold()), None)
        if named is not None and len(by_name) == 2:
            return named if value else next(label for label in by_name.values() if label != named)
    return None


def _score(item: Mapping[str, Any], by_name: Mapping[str, str]) -> tuple[float | None, str | None]:
    """The score of one mapping and the label that its field names, if any."""
    for word in _SCORE_WORDS:
        for key, value in item.items():
            if word in key.casefold() and _is_share(value):
                return float(value), next((by_name[name] for name in by_name if name in key.casefold()), None)
    return None, None


def _is_share(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1
