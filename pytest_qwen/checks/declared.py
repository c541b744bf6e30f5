"""What a reader sees of the interface without running it: what the handlers themselves declare."""

from __future__ import annotations

from pytest_qwen.checks.facts import Facts, at, none_of, of_tree
from pytest_qwen.checks.findings import failed, passed
from pytest_qwen.checks.source import predict_handlers
from pytest_qwen.scorecards import Finding


@of_tree
def declares_an_image(facts: Facts) -> Finding:
    """K1, as the source has it: a handler takes a file or a body that can hold an image."""
    taking = [one for one in facts["handlers"] if one["takes_image"]]
    if not taking:
        return failed("no handler declares a file or an image")
    return passed(f"{at(taking[0])} {taking[0]['name']} takes an image")


@of_tree
def declares_its_answer(facts: Facts) -> Finding:
    """B8, as the source has it: the predict handler has a response model or a typed return."""
    untyped = [one for one in predict_handlers(facts) if not (one["response_model"] or one["returns"])]
    if not predict_handlers(facts):
        return failed("there is no handler that takes an image")
    return none_of(
        [f"{at(one)} {one['name']} has no response model and no typed return" for one in untyped],
        "the predict handler declares its answer",
    )


@of_tree
def describes_its_handlers(facts: Facts) -> Finding:
    """D3, as the source has it: every handler has a docstring, which becomes its description."""
    if not facts["handlers"]:
        return failed("there is no handler")
    bare = [f"{at(one)} {one['name']} has no docstring" for one in facts["handlers"] if not one["docstring"]]
    return none_of(bare, "every handler has a docstring")


@of_tree
def titles_itself(facts: Facts) -> Finding:
    """D4, as the source has it: FastAPI() is given a title, a description and a version."""
    app = facts["app"]
    if app is None:
        return failed("there is no app object")
    missing = [name for name in ("title", "description", "version") if name not in app["arguments"]]
    return none_of([f"{at(app)} FastAPI() has no {name}" for name in missing], "title, description, version")
