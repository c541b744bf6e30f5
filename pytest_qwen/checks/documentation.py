"""Checks of what the program's text says about itself: docstrings, and how to install and start it."""

from __future__ import annotations

from pytest_qwen.checks.facts import Facts, at, none_of, of_text, of_tree
from pytest_qwen.checks.findings import failed, passed
from pytest_qwen.escaping import escaped
from pytest_qwen.scorecards import Finding

_DOCUMENTED = 0.8


@of_tree
def has_module_docstring(facts: Facts) -> Finding:
    """D1: every module that holds anything has a docstring (D100); an empty __init__.py needs none."""
    modules = [one for one in facts["docstrings"]["modules"] if not one["path"].endswith("__init__.py")]
    return none_of(
        [f"{one['path']} has no docstring" for one in modules if not one["has"]], "every module has one"
    )


@of_tree
def has_docstrings(facts: Facts) -> Finding:
    """D2: at least 80 % of public functions, classes and methods have a docstring.

    Public is what has no leading underscore and is not defined inside a function.
    """
    told = facts["docstrings"]
    if not told["public"]:
        return failed("there is no public function or class")
    share = f"{told['documented']} of {told['public']} public functions and classes have a docstring"
    if told["documented"] >= _DOCUMENTED * told["public"]:
        return passed(share)
    return failed(escaped(f"{share}, not {at(told['missing'][0])} {told['missing'][0]['name']}"))


@of_text
def tells_how_to_run(facts: Facts) -> Finding:
    """D7: the answer has a command that installs what is needed and one that starts the server.

    In its prose, in a shell block, a Dockerfile or a comment. A main block alone is no command.
    """
    install, start = facts["install_commands"], facts["start_commands"]
    if install and start:
        return passed(escaped(f"{install[0]['text'][:90]}; {start[0]['text'][:90]}"))
    missing = [name for name, there in (("install", install), ("start", start)) if not there]
    return failed(f"no {' and no '.join(missing)} command")
