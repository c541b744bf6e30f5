"""Which environment a program gets and why: requirements and the logs of failed starts, as they come."""

import pytest

from pytest_qwen.environments import (
    ALIASES,
    first_environment,
    missing_import,
    needs_substitution,
    retry_in_tf4,
)


def requirement(specifier: str, name: str = "transformers") -> dict[str, object]:
    return {"name": name, "specifier": specifier, "pinned": False}


@pytest.mark.parametrize(
    "specifier",
    [
        "==4.36.0",
        "==4.*",
        "===4.57.1",
        "~=4.40",
        "<5",
        "<5.0.0",
        "<5.0.0rc1",
        ">=4.30,<5",
        ">=4.30.0, < 4.58",
        "<=4.99",
    ],
)
def test_requirements_that_allow_no_transformers_5_start_in_4(specifier):
    assert first_environment([requirement(">=0.100", "fastapi"), requirement(specifier)]) == "tf4"


@pytest.mark.parametrize(
    "specifier", ["", ">=4.30", "==5.23.0", "~=5.1", "<6", "<5.2", "<=5", ">4", "!=4.3", "@git+https://x"]
)
def test_other_requirements_start_in_5(specifier):
    assert first_environment([requirement(specifier)]) == "tf5"


def test_what_other_packages_are_pinned_to_says_nothing():
    assert first_environment([requirement("==4.1.0", "torch")]) == "tf5"
    assert first_environment([]) == "tf5"


SITE = "/usr/local/lib/python3.11/site-packages"


def traceback(*frames: str, error: str) -> str:
    lines = [f'  File "{frame}", line 7, in <module>\n    some_call(there)' for frame in frames]
    return "\n".join(["Traceback (most recent call last):", *lines, error])


GONE = traceback(
    "/work/main.py",
    error=f"ImportError: cannot import name 'ViTFeatureExtractor' from 'transformers' ({SITE}/transformers/__init__.py)",
)
ATTRIBUTE = traceback(
    "/work/main.py",
    f"{SITE}/transformers/utils/import_utils.py",
    error="AttributeError: module transformers has no attribute ViTFeatureExtractor",
)
SUBMODULE = traceback(
    "/work/main.py",
    error="ModuleNotFoundError: No module named 'transformers.models.vit.feature_extraction_vit'",
)
UNRECOGNIZED = traceback(
    "/work/main.py",
    f"{SITE}/transformers/models/auto/feature_extraction_auto.py",
    error="ValueError: Unrecognized feature extractor in some/model. Should have a `feature_extractor_type` key"
    + " in its preprocessor_config.json" * 40,
)
UNKNOWN_VALUE = traceback(
    "/work/main.py", f"{SITE}/transformers/models/auto/auto_factory.py", error="ValueError: some new wording"
)
CONNECT = traceback(
    "/work/main.py",
    f"{SITE}/transformers/utils/hub.py",
    error="OSError: We couldn't connect to 'https://huggingface.co' to load the files",
)
OWN_VALUE = traceback("/work/main.py", error="ValueError: some/model is not a valid setting")
NO_TASK = traceback(
    "/work/main.py",
    f"{SITE}/transformers/pipelines/__init__.py",
    error="RuntimeError: You cannot infer task automatically within `pipeline` when using offline mode",
)
REDIS = traceback("/work/main.py", error="ModuleNotFoundError: No module named 'redis'")
BECAUSE = "\n\nThe above exception was the direct cause of the following exception:\n\n"
WRAPPED = traceback("/work/main.py", error="RuntimeError: start-up failed")
UVICORN = (
    "INFO:     Started server process [2]\nERROR:    {}\n\nERROR:    Application startup failed. Exiting.\n"
)


@pytest.mark.parametrize(
    ("log", "words"),
    [
        (GONE, "cannot import name 'ViTFeatureExtractor'"),
        (UVICORN.format(GONE), "ImportError: cannot import name 'ViTFeatureExtractor'"),
        (ATTRIBUTE, "module transformers has no attribute ViTFeatureExtractor"),
        (SUBMODULE, "feature_extraction_vit"),
        (UNRECOGNIZED, "ValueError: Unrecognized feature extractor in some/model"),
        (UNKNOWN_VALUE, "ValueError: some new wording"),
        (UNKNOWN_VALUE + BECAUSE + WRAPPED, "ValueError: some new wording"),
        (
            "ERROR:app:no model: cannot import name 'X' from 'transformers.utils' (…)",
            "cannot import name 'X'",
        ),
    ],
)
def test_what_transformers_5_lacks_is_tried_with_4(log, words):
    why = retry_in_tf4(log)
    assert why is not None
    assert words in why
    assert len(why) <= 160


@pytest.mark.parametrize(
    "log", ["", CONNECT, OWN_VALUE, NO_TASK, REDIS, "INFO: ready", "ValueError: no traceback"]
)
def test_other_failures_are_not_tried_again(log):
    assert retry_in_tf4(log) is None


def test_a_caught_error_of_transformers_that_nothing_came_of_does_not_count():
    assert retry_in_tf4(f"{UNKNOWN_VALUE}\nWARNING: goes on without\n{OWN_VALUE}") is None


@pytest.mark.parametrize(
    "log",
    [
        REDIS,
        UVICORN.format(REDIS),
        REDIS + BECAUSE + WRAPPED,
        "could not start: No module named 'redis'",
        "  | Traceback (most recent call last):\n"
        '  |   File "/work/main.py", line 3, in start\n  |     import redis\n'
        "  | ModuleNotFoundError: No module named 'redis'\n  +------------------------------------",
    ],
)
def test_a_missing_package_is_named(log):
    assert missing_import(log) == "redis"


@pytest.mark.parametrize(
    "log",
    [
        SUBMODULE,
        traceback(error="ModuleNotFoundError: No module named 'a.b'; 'a' is not a package"),
        traceback("/work/main.py", error="ModuleNotFoundError: No module named 'config'"),
        f"{REDIS}\nWARNING: goes on without\n{OWN_VALUE}",
        GONE,
        "",
    ],
)
def test_what_is_no_missing_package(log):
    assert missing_import(log) is None


def test_a_module_of_the_program_is_no_package():
    log = traceback("/work/main.py", error="ModuleNotFoundError: No module named 'nsfw_rules'")
    assert missing_import(log) == "nsfw_rules"
    assert missing_import(log, own={"nsfw_rules"}) is None


def test_substitution_is_told_of_known_models_that_were_not_asked_for():
    loaded = ["Falconsai/nsfw_image_detection", ALIASES[0], "some/other", ALIASES[0]]
    assert needs_substitution(loaded, {"Falconsai/nsfw_image_detection"}) == (ALIASES[0],)
    assert needs_substitution(loaded, {ALIASES[0]}) == ()
