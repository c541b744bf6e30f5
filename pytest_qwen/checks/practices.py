"""Checks of how the program is written: what blocks, what is loaded when, errors, types, size."""

from __future__ import annotations

from pytest_qwen.checks.facts import Facts, at, found, none_of, of_lint, of_tree
from pytest_qwen.checks.findings import failed, passed
from pytest_qwen.checks.source import predict_handlers
from pytest_qwen.scorecards import Finding

# Calls that hold up the event loop: HTTP, processes, open(), sleep().
BLOCKING = {"ASYNC210", "ASYNC212", "ASYNC220", "ASYNC221", "ASYNC222", "ASYNC230", "ASYNC251"}
INSECURE = {
    *("S105", "S106", "S107", "S113", "S301", "S307", "S310", "S324", "S501", "S506"),
    *("S602", "S603", "S604", "S605", "S608"),
}
_LONGEST_FUNCTION = 60
_ANNOTATED = 0.9


@of_tree
def b1_source(facts: Facts) -> Finding:
    """B1, as the source has it: no handler runs the model in the event loop.

    A `def` handler does not, for the framework calls it in a thread. An `async def` one must hand the model's
    work over, itself or in what it calls, and nothing it calls may run the model directly. A handler that is
    not seen to run the model (it puts the image in a queue) is good when some place hands the work over.
    """
    handlers = predict_handlers(facts)
    if not handlers:
        return failed("there is no handler that takes an image")
    elsewhere = any(one["inference"] for one in facts["offloads"])
    good = []
    for one in handlers:
        blocking = [call for call in one["inference"] if not call["offloaded"]]
        if not one["async"]:
            good.append(f"{at(one)} {one['name']} is a def handler")
        elif blocking:
            return failed(
                f"{at(blocking[0])} {blocking[0]['call']}() runs in the event loop of {one['name']}"
            )
        elif one["offloads"]:
            good.append(f"{at(one['offloads'][0])} {one['offloads'][0]['call']}")
        elif elsewhere:
            good.append(f"{at(one)} {one['name']} leaves the work to others")
        else:
            return failed(f"{at(one)} {one['name']} is async and hands its work to no thread")
    return none_of([], "; ".join(good))


@of_tree
def b2_source(facts: Facts) -> Finding:
    """B2, as the source has it: no handler loads a model.

    Nor does a function that a handler calls or depends on, unless it does so once: behind a cache, or a test
    that the model is not there yet. In the handler's own body such a test does not help.
    """
    if not any(load["model"] for load in facts["loads"]):
        return failed("no call loads a model")
    if not facts["handlers"]:
        return failed("there is no handler")
    wrong = [
        f"{at(load)} loads a model when {one['name']} is called"
        for one in facts["handlers"]
        for load in one["loads"]
        if load["direct"] or not load["once"]
    ]
    first = next(load for load in facts["loads"] if load["model"])
    return none_of(wrong, f"{at(first)} loads the model, and no handler does")


@of_tree
def has_a_lifespan(facts: Facts) -> Finding:
    """B3: the app has a lifespan, and nothing uses on_event, which is deprecated."""
    if facts["on_event"]:
        return failed(f"{at(facts['on_event'][0])} on_event is deprecated")
    return (
        passed(f"{at(facts['lifespan'])} lifespan") if facts["lifespan"] else failed("there is no lifespan")
    )


@of_lint
def never_blocks(facts: Facts) -> Finding:
    """B4: nothing in an async function holds up the event loop (ASYNC210, 212, 220-222, 230, 251)."""
    return none_of(found(facts, BLOCKING), "no blocking call in an async function")


@of_lint
def b5_source(facts: Facts) -> Finding:
    """B5, as the source has it: no bare or blind except that does not raise again, no raise without a cause.

    Ruff's BLE001 itself knows which blind handlers raise or log the error; a bare except (E722) is good when
    it raises. A raise in an except block must say `from` (B904).
    """
    bare = [
        f"{at(one)} a bare except swallows every error (E722)"
        for one in facts["bare_excepts"]
        if not one["reraises"]
    ]
    return none_of(bare + found(facts, {"BLE001", "B904"}), "no error is swallowed or loses its cause")


@of_lint
def is_secure(facts: Facts) -> Finding:
    """B6: none of bandit's findings S105-107, 113, 301, 307, 310, 324, 501, 506, 602-605, 608."""
    return none_of(found(facts, INSECURE), "none of the scored bandit findings")


@of_tree
def is_annotated(facts: Facts) -> Finding:
    """B7: at least 90 % of the parameters and returns of public functions are annotated.

    Counted over functions, and methods of classes, whose names do not begin with an underscore; self, cls,
    *args and **kwargs are left out. A program without any has nothing annotated.
    """
    told = facts["annotations"]
    if not told["total"]:
        return failed("there is no public function")
    share = f"{told['annotated']} of {told['total']} parameters and returns are annotated"
    if told["annotated"] >= _ANNOTATED * told["total"]:
        return passed(share)
    return none_of([f"{share}, not {at(told['missing'][0])} {told['missing'][0]['name']}"], "")


@of_lint
def is_simple(facts: Facts) -> Finding:
    """B9: complexity at most 10 (C901), no function over 60 lines, nothing of 10 or more lines said twice.

    A function's docstring is not counted. Blank lines and comments do not make lines different.
    """
    long = [
        f"{at(one)} {one['name']} has {one['lines']} lines"
        for one in facts["functions"]
        if one["lines"] > _LONGEST_FUNCTION
    ]
    twice = [
        f"{at(one)} repeats {one['lines']} lines of {one['other_path']}:{one['other_line']}"
        for one in facts["duplicates"]
    ]
    return none_of(found(facts, {"C901"}) + long + twice, "no long, tangled or repeated code")


@of_lint
def logs_and_infers_well(facts: Facts) -> Finding:
    """B10: it logs and does not print; where it calls a model itself, gradients are off.

    A program that only calls a pipeline, which turns gradients off by itself, need not.
    """
    wrong = found(facts, {"T201"})
    if not facts["logging"]:
        wrong.append("no logging is used")
    if facts["direct_inference"] and not facts["no_grad"]:
        wrong.append(f"{at(facts['direct_inference'][0])} calls the model without no_grad or inference_mode")
    return none_of(wrong, "it logs, and does not print")


@of_lint
def is_idiomatic(facts: Facts) -> Finding:
    """B11: none of FAST001, FAST003, B006 and PERF."""
    perf = {code for code in facts["ruff"]["findings"] if code.startswith("PERF")}
    return none_of(found(facts, {"FAST001", "FAST003", "B006"} | perf), "no FAST, B006 or PERF finding")
