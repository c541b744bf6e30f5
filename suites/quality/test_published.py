"""The five published star ratings beside ours, on answers written after their published descriptions."""

import hashlib
import json
from pathlib import PurePosixPath

import pytest

from pytest_qwen.agreement import FAR_STARS, agreement, read_ratings
from pytest_qwen.data import fixtures_dir
from pytest_qwen.published import load_documents

ANSWERS = fixtures_dir() / "answers"
STARS = json.loads((ANSWERS / "stars.json").read_text(encoding="utf-8"))
EXPLAINED = json.loads((ANSWERS / "explanations.json").read_text(encoding="utf-8"))["disagreements"]

RATED = next(t for t in load_documents()["code-generation"] if t.name == "quality and performance")
ROWS = {row.name.lower(): row for row in RATED.rows}
RECONSTRUCTED = "the answer is a reconstruction after its published description"
PUBLISHED = read_ratings((ANSWERS / "ratings.csv").read_text(encoding="utf-8"))


def test_agreement_with_the_published_ratings(rate, published, request):
    """Agreement is bounded, not tuned; every difference of two stars or more has its checks named."""
    names = [one.sample for one in PUBLISHED]
    cards = rate.all([ANSWERS / name for name in names], labels=names)
    for name, card in zip(names, cards, strict=True):
        found = {profile: {"overall": one.overall, **one.stars} for profile, one in card.ratings.items()}
        assert found == STARS[name], name
        row = ROWS[PurePosixPath(name).stem]
        published(row.document, row.table, row.name, stars=card.stars, why=RECONSTRUCTED)
    table = agreement(PUBLISHED, cards)
    request.node.user_properties.append(("qwen.kendall_tau_b", table.tau_b))
    request.node.user_properties.append(("qwen.mean_absolute_error_stars", table.mean_absolute_error))
    assert table.tau_b >= 0.5
    explained = {one["sample"]: one for one in EXPLAINED}
    for pair in table.far:
        said = explained.get(pair.rating.sample)
        assert said, f"{pair.rating.sample}: {pair.difference:+d} stars are not explained"
        assert said["ours"] == pair.ours
        assert set(said["checks"]) <= set(pair.checks)
        assert abs(said["ours"] - said["published"]) >= FAR_STARS


@pytest.mark.parametrize("rating", PUBLISHED, ids=lambda rating: rating.sample)
def test_the_reconstruction_is_the_one_that_was_rated(rating):
    """The data agree with each other: every rated sample is there, unchanged, and labelled."""
    index = json.loads((ANSWERS / "reconstructed" / "index.json").read_text(encoding="utf-8"))
    assert index["kind"] == "reconstruction"
    assert hashlib.sha256((ANSWERS / rating.sample).read_bytes()).hexdigest() == rating.sha256
