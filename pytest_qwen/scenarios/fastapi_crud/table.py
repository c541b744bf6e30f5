"""The rubric qwen-fastapi-crud/1: the checks of a to-do API without any model."""

from __future__ import annotations

from pytest_qwen.checks import (
    both,
    configuration,
    contract,
    declared,
    documentation,
    items,
    practices,
    running,
    source,
)
from pytest_qwen.rubric import Cap, CheckSpec, Rubric

STARTS, CREATES = "C2", "C3"

# fmt: off
CHECKS = (
    CheckSpec("C1", "source parses, answer is whole", "correctness", 0, source.parses, gate=True),
    CheckSpec("C2", "server starts and stays", "correctness", 0, running.starts, gate=True, runs=True, behind="C1"),
    CheckSpec("C3", "an item is created", "correctness", 2, items.creates, gate=True, runs=True, behind=STARTS),
    CheckSpec("C4", "read back as it was sent", "correctness", 4, items.reads_back, gate=True, runs=True, behind=CREATES),
    CheckSpec("C5", "defaults", "correctness", 1, items.fills_in_defaults, runs=True, behind=CREATES),
    CheckSpec("C6", "the list", "correctness", 2, items.lists, runs=True, behind=CREATES),
    CheckSpec("C7", "bad input gives no 5xx", "correctness", 3, items.never_breaks, runs=True, behind=STARTS),
    CheckSpec("C8", "bad input is refused", "correctness", 2, items.refuses, runs=True, behind=STARTS),
    CheckSpec("C9", "eight at once get eight ids", "correctness", 2, items.numbers_apart, runs=True, behind=STARTS),
    CheckSpec("C10", "no undefined or repeated names", "correctness", 2, source.names_are_defined),
    CheckSpec("C11", "alive after everything", "correctness", 2, items.stays_alive, runs=True, behind=STARTS),
    CheckSpec("C12", "replaced", "correctness", 2, items.updates, runs=True, behind=CREATES),
    CheckSpec("C13", "changed in part", "correctness", 2, items.patches, runs=True, behind=CREATES),
    CheckSpec("C14", "deleted", "correctness", 2, items.deletes, runs=True, behind=CREATES),
    CheckSpec("C15", "filtered", "correctness", 1, items.filters, runs=True, behind=CREATES),
    CheckSpec("K1", "all six operations", "completeness", 3, items.offers_its_operations, runs=True, behind=STARTS),
    CheckSpec("K4", "a health operation answers", "completeness", 2, running.health_answers, runs=True, behind=STARTS),
    CheckSpec("K5", "an app and how to start it", "completeness", 2, source.can_be_started),
    CheckSpec("K6", "all dependencies are listed", "completeness", 2, source.lists_its_dependencies),
    CheckSpec("K7", "nothing is left out", "completeness", 3, source.is_complete),
    CheckSpec("B4", "no blocking calls in async code", "practices", 2, practices.never_blocks),
    CheckSpec("B5", "errors are handled, not swallowed", "practices", 3, both.handles_errors, read=practices.b5_source, runs=True, behind=STARTS),
    CheckSpec("B6", "no insecure calls", "practices", 2, practices.is_secure),
    CheckSpec("B7", "annotated", "practices", 2, practices.is_annotated),
    CheckSpec("B9", "simple, short, no duplicates", "practices", 1, practices.is_simple),
    CheckSpec("B11", "idiomatic", "practices", 1, practices.is_idiomatic),
    CheckSpec("D1", "module docstring", "documentation", 1, documentation.has_module_docstring),
    CheckSpec("D2", "docstrings", "documentation", 3, documentation.has_docstrings),
    CheckSpec("D3", "operations are described", "documentation", 2, contract.describes_its_operations, read=declared.describes_its_handlers, runs=True, behind=STARTS),
    CheckSpec("D4", "title, description, version", "documentation", 1, contract.names_itself, read=declared.titles_itself, runs=True, behind=STARTS),
    CheckSpec("D7", "install and start commands", "documentation", 2, documentation.tells_how_to_run),
    CheckSpec("P4", "ends gracefully at SIGTERM", "production", 2, running.ends_gracefully, runs=True, behind=STARTS),
    CheckSpec("P5", "errors leak nothing", "production", 2, running.leaks_nothing, runs=True, behind=STARTS),
    CheckSpec("P7", "no debug settings", "production", 1, configuration.is_not_for_development),
    CheckSpec("P8", "dependencies are pinned", "production", 1, configuration.pins_its_dependencies),
    CheckSpec("P9", "requests can be followed", "production", 1, running.shows_its_requests, runs=True, behind=STARTS),
    CheckSpec("P12", "a missing item's error says why", "production", 1, items.errors_say_why, runs=True, behind=STARTS),
    CheckSpec("T1", "leaves the harness alone", "correctness", 0, source.leaves_the_harness_alone),
)
# fmt: on

RUBRIC = Rubric(
    name="qwen-fastapi-crud/1",
    checks=CHECKS,
    caps=(
        Cap("C1", most=0, why="there is no source that parses"),
        Cap("C2", most=1, why="the server does not start"),
        Cap("C3", most=2, why="no item can be created"),
        Cap("C4", most=2, why="what is created is not kept"),
    ),
)
