"""The rubric qwen-fastapi-vit/1: every check with its dimension and weight, and what holds the stars down.

Changing a row, a weight, a limit in a check, ruff's selection, the input files or the guest image's pins makes it
another rubric: then its number goes up.
"""

from __future__ import annotations

from pytest_qwen.checks import (
    both,
    configuration,
    contract,
    declared,
    documentation,
    practices,
    running,
    source,
)
from pytest_qwen.rubric import Cap, CheckSpec, Rubric

STARTS, ANSWERS = "C2", "C3"


# fmt: off
CORRECTNESS = (
    CheckSpec("C1", "source parses, answer is whole", "correctness", 0, source.parses, gate=True),
    CheckSpec("C2", "server starts and stays", "correctness", 0, running.starts, gate=True, runs=True, behind="C1"),
    CheckSpec("C3", "a valid PNG is answered", "correctness", 0, running.answers_an_image, gate=True, runs=True, behind=STARTS),
    CheckSpec("C4", "label and score are the model's", "correctness", 4, running.agrees_with_the_oracle, gate=True, runs=True, behind=ANSWERS),
    CheckSpec("C5", "every kind of image is taken", "correctness", 2, running.takes_every_kind, runs=True, behind=ANSWERS),
    CheckSpec("C6", "the same image gives the same answer", "correctness", 1, running.answers_the_same_again, runs=True, behind=ANSWERS),
    CheckSpec("C7", "bad input gives no 5xx", "correctness", 3, running.never_breaks_on_bad_input, runs=True, behind=STARTS),
    CheckSpec("C8", "bad input gives a 4xx", "correctness", 2, running.refuses_bad_input, runs=True, behind=STARTS),
    CheckSpec("C9", "eight at once are all right", "correctness", 2, running.answers_in_parallel, runs=True, behind=ANSWERS),
    CheckSpec("C10", "no undefined or repeated names", "correctness", 2, source.names_are_defined),
    CheckSpec("C11", "alive after everything", "correctness", 2, running.survives_the_battery, runs=True, behind=ANSWERS),
)
COMPLETENESS = (
    CheckSpec("K1", "an operation takes an image", "completeness", 3, contract.takes_an_image, read=declared.declares_an_image, runs=True, behind=STARTS),
    CheckSpec("K2", "the model that was asked for", "completeness", 3, source.uses_the_model),
    CheckSpec("K3", "label and score are told", "completeness", 2, running.tells_label_and_score, runs=True, behind=ANSWERS),
    CheckSpec("K4", "a health operation answers", "completeness", 2, running.health_answers, runs=True, behind=STARTS),
    CheckSpec("K5", "an app and how to start it", "completeness", 2, source.can_be_started),
    CheckSpec("K6", "all dependencies are listed", "completeness", 2, source.lists_its_dependencies),
    CheckSpec("K7", "nothing is left out", "completeness", 3, source.is_complete),
    CheckSpec("K8", "a missing model is handled", "completeness", 1, running.handles_a_missing_model, runs=True),
)
PRACTICES = (
    CheckSpec("B1", "inference does not block the loop", "practices", 3, both.never_blocks_the_loop, read=practices.b1_source, runs=True, behind=ANSWERS),
    CheckSpec("B2", "the model is loaded once", "practices", 2, both.loads_the_model_once, read=practices.b2_source, runs=True, behind=ANSWERS),
    CheckSpec("B3", "lifespan, no on_event", "practices", 1, practices.has_a_lifespan),
    CheckSpec("B4", "no blocking calls in async code", "practices", 2, practices.never_blocks),
    CheckSpec("B5", "errors are handled, not swallowed", "practices", 3, both.handles_errors, read=practices.b5_source, runs=True, behind=STARTS),
    CheckSpec("B6", "no insecure calls", "practices", 2, practices.is_secure),
    CheckSpec("B7", "annotated", "practices", 2, practices.is_annotated),
    CheckSpec("B8", "the answer has a schema", "practices", 2, contract.describes_its_answer, read=declared.declares_its_answer, runs=True, behind=STARTS),
    CheckSpec("B9", "simple, short, no duplicates", "practices", 1, practices.is_simple),
    CheckSpec("B10", "logging, no print, no gradients", "practices", 1, practices.logs_and_infers_well),
    CheckSpec("B11", "idiomatic", "practices", 1, practices.is_idiomatic),
)
DOCUMENTATION = (
    CheckSpec("D1", "module docstring", "documentation", 1, documentation.has_module_docstring),
    CheckSpec("D2", "docstrings", "documentation", 3, documentation.has_docstrings),
    CheckSpec("D3", "operations are described", "documentation", 2, contract.describes_its_operations, read=declared.describes_its_handlers, runs=True, behind=STARTS),
    CheckSpec("D4", "title, description, version", "documentation", 1, contract.names_itself, read=declared.titles_itself, runs=True, behind=STARTS),
    CheckSpec("D5", "fields of the answer are described", "documentation", 2, contract.describes_its_fields, runs=True, behind=STARTS),
    CheckSpec("D6", "statuses are documented", "documentation", 2, contract.documents_its_statuses, runs=True, behind=STARTS),
    CheckSpec("D7", "install and start commands", "documentation", 2, documentation.tells_how_to_run),
    CheckSpec("D8", "the example request works", "documentation", 2, contract.example_works, runs=True, behind=STARTS),
)
PRODUCTION = (
    CheckSpec("P1", "25 MiB upload is bounded", "production", 3, running.bounds_an_upload, runs=True, behind=ANSWERS),
    CheckSpec("P2", "decompression bomb is refused", "production", 2, running.refuses_a_bomb, runs=True, behind=ANSWERS),
    CheckSpec("P3", "healthy under load", "production", 2, running.healthy_under_load, runs=True, behind=ANSWERS),
    CheckSpec("P4", "ends gracefully at SIGTERM", "production", 2, running.ends_gracefully, runs=True, behind=ANSWERS),
    CheckSpec("P5", "errors leak nothing", "production", 2, running.leaks_nothing, runs=True, behind=STARTS),
    CheckSpec("P6", "configurable", "production", 2, configuration.is_configurable),
    CheckSpec("P7", "no debug settings", "production", 1, configuration.is_not_for_development),
    CheckSpec("P8", "dependencies are pinned", "production", 1, configuration.pins_its_dependencies),
    CheckSpec("P9", "requests can be followed", "production", 1, running.shows_its_requests, runs=True, behind=STARTS),
    CheckSpec("P10", "eight at once scale", "production", 2, running.scales_to_eight, runs=True, behind=ANSWERS),
    CheckSpec("P11", "work is bounded", "production", 1, configuration.bounds_its_work),
)
# Not a check of quality: its failure takes every star.
GUARD = (CheckSpec("T1", "leaves the harness alone", "correctness", 0, source.leaves_the_harness_alone),)
# fmt: on

RUBRIC = Rubric(
    name="qwen-fastapi-vit/1",
    checks=(*CORRECTNESS, *COMPLETENESS, *PRACTICES, *DOCUMENTATION, *PRODUCTION, *GUARD),
    caps=(
        Cap("C1", most=0, why="there is no source that parses"),
        Cap("C2", most=1, why="the server does not start"),
        Cap("C3", most=2, why="no image is answered"),
        Cap("C4", most=2, why="its answers are not the model's"),
        Cap(
            source.undefined_on_predict_path,
            most=2,
            why="a prediction runs into an undefined name",
            dimension="correctness",
            by="C10",
        ),
    ),
)
