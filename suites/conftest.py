"""Shared by the shipped suites: a model that cannot fit this card skips, with the plan's words."""

import pytest


@pytest.fixture(autouse=True)
def _fits_this_card(request: pytest.FixtureRequest) -> None:
    """The suites run on any card: that a model is too large for one is a fact of the plan, not a failure."""
    if {"llm", "compare", "accuracy"}.isdisjoint(request.fixturenames):
        return
    plan = request.getfixturevalue("plan")
    if plan.fit is not None and plan.fit.hopeless:
        pytest.skip(plan.line)
