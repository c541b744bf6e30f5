"""Checks of how the program is set up for production: settings, pins, limits, no development switches."""

from __future__ import annotations

from pytest_qwen.checks.facts import Facts, at, none_of, of_text, of_tree
from pytest_qwen.checks.findings import failed, passed
from pytest_qwen.escaping import escaped
from pytest_qwen.scorecards import Finding

_PINNED = 0.8
_NO_LIST = {"command", "prose"}


@of_tree
def is_configurable(facts: Facts) -> Finding:
    """P6: it reads its configuration from the environment or has a class of settings."""
    found = facts["configuration"]
    return (
        passed(escaped(f"{at(found[0])} {found[0]['how']}")) if found else failed("nothing can be configured")
    )


@of_tree
def is_not_for_development(facts: Facts) -> Finding:
    """P7: no reload=True, no debug=True, no CORS for every origin together with credentials."""
    reload = [
        f"{at(one)} uvicorn.run(reload=True)"
        for one in facts["uvicorn_runs"]
        if one["arguments"].get("reload") == "True"
    ]
    debug = [f"{at(one)} {one['what']}" for one in facts["debug"]]
    cors = [
        f"{at(one)} CORS lets every origin in with credentials"
        for one in facts["cors"]
        if one["wildcard"] and one["credentials"]
    ]
    return none_of(reload + debug + cors, "no reload, no debug, no open CORS with credentials")


@of_text
def pins_its_dependencies(facts: Facts) -> Finding:
    """P8: at least 80 % of the listed dependencies are pinned to one version.

    The requirements and pyproject files are the list; without any, the install commands are. No list fails.
    """
    listed = [one for one in facts["requirements"] if one["origin"] not in _NO_LIST] or facts["requirements"]
    pinned: dict[str, bool] = {}
    for one in listed:
        pinned[one["name"]] = one["pinned"] or pinned.get(one["name"], False)
    if not pinned:
        return failed("there is no list of dependencies")
    share = f"{sum(pinned.values())} of {len(pinned)} dependencies are pinned"
    if sum(pinned.values()) >= _PINNED * len(pinned):
        return passed(share)
    return failed(escaped(f"{share}, not {next(name for name, one in pinned.items() if not one)}"))


@of_tree
def bounds_its_work(facts: Facts) -> Finding:
    """P11: work is bounded by an executor with max_workers, a semaphore or a sized queue that is used."""
    used = [one for one in facts["bounds"] if one["used"]]
    if used:
        return passed(escaped(f"{at(used[0])} {used[0]['what']}"))
    unused = [f"{at(one)} {one['what']} is never used" for one in facts["bounds"]]
    return none_of(unused or ["nothing bounds the work done at one time"], "")
