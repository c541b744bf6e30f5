"""Checks of what the program's text holds: that it parses, is whole, names its model and its dependencies."""

from __future__ import annotations

import re
from collections.abc import Collection

from pytest_qwen.checks.facts import Facts, at, found, none_of, of_lint, of_text, of_tree
from pytest_qwen.checks.findings import failed, passed, tampered, unmeasured
from pytest_qwen.escaping import escaped
from pytest_qwen.observations import Evidence
from pytest_qwen.programs import Program
from pytest_qwen.scorecards import Finding

UNDEFINED = {"F821", "F822", "F823"}
_WRONG_NAMES = UNDEFINED | {"F811", "F601"}
_NOT_ASGI = {"flask"}
# The distributions of modules that are not named like them; where there are several, any of them will do.
_DISTRIBUTIONS = {
    "PIL": ("pillow", "pillow-simd"),
    "multipart": ("python-multipart",),
    "cv2": ("opencv-python", "opencv-python-headless", "opencv-contrib-python"),
    "sklearn": ("scikit-learn",),
    "skimage": ("scikit-image",),
    "yaml": ("pyyaml",),
    "dotenv": ("python-dotenv",),
    "magic": ("python-magic",),
    "jose": ("python-jose",),
    "jwt": ("pyjwt",),
    "bs4": ("beautifulsoup4",),
    "dateutil": ("python-dateutil",),
    "fitz": ("pymupdf",),
    "opentelemetry": ("opentelemetry-api", "opentelemetry-sdk"),
    "pynvml": ("nvidia-ml-py", "pynvml"),
    "tensorflow": ("tensorflow", "tensorflow-cpu"),
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
}
# What a distribution always brings along, so that a list need not name it.
_BRINGS = {
    "fastapi": {"starlette", "pydantic", "typing-extensions", "anyio"},
    "starlette": {"anyio"},
    "pydantic-settings": {"pydantic", "python-dotenv"},
    "transformers": {"huggingface-hub", "numpy", "tokenizers", "safetensors"},
    "torchvision": {"torch", "numpy", "pillow"},
    "httpx": {"anyio"},
}
_BRINGS_EXTRA = {
    ("fastapi", "standard"): {"uvicorn", "python-multipart", "httpx", "jinja2"},
    ("fastapi", "all"): {"uvicorn", "python-multipart", "httpx", "jinja2", "pydantic-settings", "pyyaml"},
    ("transformers", "torch"): {"torch", "accelerate"},
    ("uvicorn", "standard"): {"python-dotenv", "pyyaml", "websockets", "uvloop", "httptools", "watchfiles"},
}


def parses(evidence: Evidence) -> Finding:
    """C1: every Python file of the program parses, and its last fence was closed."""
    finding = _parses(evidence)
    if isinstance(evidence.program, Program) and evidence.program.truncated and evidence.source:
        return failed("the answer ends inside a code fence: it was cut off")
    return finding


@of_tree
def _parses(facts: Facts) -> Finding:
    return passed(f"{len(facts['docstrings']['modules'])} Python file(s) parse")


@of_lint
def names_are_defined(facts: Facts) -> Finding:
    """C10: no undefined, redefined or repeated name, none of pylint's errors (F821-823, F811, F601, PLE)."""
    codes = {code for code in facts["ruff"]["findings"] if code in _WRONG_NAMES or code.startswith("PLE")}
    return none_of(found(facts, codes), "ruff finds no undefined name and none of pylint's errors")


def undefined_on_predict_path(evidence: Evidence) -> str | None:
    """An undefined name in a function that a prediction runs, as "file:line message", or None."""
    facts = evidence.source
    if not facts or not facts["ruff"]["ok"]:
        return None
    spans = [span for one in predict_handlers(facts) for span in one["reach"]]
    for code in sorted(UNDEFINED):
        for one in facts["ruff"]["findings"].get(code, ()):
            if any(s["path"] == one["path"] and s["line"] <= one["line"] <= s["end"] for s in spans):
                return escaped(f"{at(one)} {one['message']} ({code})")
    return None


def predict_handlers(facts: Facts) -> list[Facts]:
    """The handlers that call the model; where none is seen to, those with an image; else those of POST."""
    handlers = facts["handlers"]
    posts = [one for one in handlers if any(method == "POST" for method, _ in one["routes"])]
    infer = [one for one in handlers if one["inference"]]
    return infer or [one for one in handlers if one["takes_image"]] or posts


@of_tree
def uses_the_model(facts: Facts) -> Finding:
    """K2: the model that was asked for reaches pipeline() or from_pretrained().

    As a constant, through a name, as the default of a setting, of an environment variable or of a parameter.
    """
    asked = facts.get("asked_model_id")
    if not asked:
        return unmeasured("the scenario names no model")
    loads = [load for load in facts["loads"] if asked in load["ids"]]
    if loads:
        return passed(escaped(f"{at(loads[0])} {loads[0]['via']} loads {asked}"))
    if not facts["loads"]:
        return failed("there is no call of pipeline() or from_pretrained()")
    ids = ", ".join(facts["model_ids"]) or "a model whose id is not in the source"
    return failed(
        escaped(f"{at(facts['loads'][0])} {facts['loads'][0]['via']} loads {ids} instead of {asked}")
    )


@of_tree
def can_be_started(facts: Facts) -> Finding:
    """K5: there is an ASGI app, and a command or a main block that starts it.

    The app is `app`, `api`, the only one that a module makes, or what `create_app` or `get_app` gives back. A
    command counts wherever the answer says it: in its prose, a shell block, a Dockerfile, a comment.
    """
    app = facts["app"]
    if app is None:
        return failed("there is no app object, and no create_app or get_app that makes one")
    if app["framework"] in _NOT_ASGI:
        return failed(f"{at(app)} {app['name']} is made by {app['framework']}, which is not ASGI")
    if facts["main_block"]:
        return passed(f"{at(app)} makes {app['name']}, {at(facts['main_block'])} starts it")
    if facts["start_commands"]:
        return passed(escaped(f"{at(app)} makes {app['name']}: {facts['start_commands'][0]['text']}"))
    return failed(f"{at(app)} makes {app['name']}, but nothing says how to start it")


@of_tree
def lists_its_dependencies(facts: Facts) -> Finding:
    """K6: there is a list of dependencies, and it covers every third-party import.

    A requirements file, a pyproject file or an install command is a list. What a listed package always brings
    along counts as listed; imports that the program can do without need not be. Forms and uploads need
    python-multipart, which FastAPI does not bring along by itself.
    """
    listed = {one["name"] for one in facts["requirements"]}
    if not listed:
        return failed("there is no list of dependencies and no install command")
    for one in facts["requirements"]:
        listed |= _BRINGS.get(one["name"], set())
        for extra in one["extras"]:
            listed |= _BRINGS_EXTRA.get((one["name"], extra), set())
    wanted = [
        (one["top"], f"{at(one)} imports {one['top']}")
        for one in facts["imports"]
        if one["kind"] == "third-party" and not one["guarded"] and not _is_test(one["path"])
    ]
    if any(
        re.search(r"UploadFile|\b(?:File|Form)\(", told)
        for _, _, takes in facts["routes"]
        for told in takes.values()
    ):
        wanted.append(("multipart", "its forms need python-multipart"))
    missing = [told for top, told in wanted if not _covers(listed, top)]
    return none_of(
        [f"{told}, which is not listed" for told in dict.fromkeys(missing)], "every import is listed"
    )


@of_tree
def is_complete(facts: Facts) -> Finding:
    """K7: no body of only pass, ... or NotImplementedError, no TODO or "your code here", no text at the end.

    Abstract methods, overloads and protocols may have empty bodies.
    """
    return none_of([f"{at(one)} {one['what']}" for one in facts["stubs"]], "nothing is left out")


@of_text
def leaves_the_harness_alone(facts: Facts) -> Finding:
    """Not a check of quality: a program that names the harness that tests it means to deceive it."""
    named = facts["harness_names"]
    return (
        tampered(escaped(f"{at(named[0])} names the harness"))
        if named
        else passed("it does not name the harness")
    )


def _covers(listed: Collection[str], top: str) -> bool:
    normal = re.sub(r"[-_.]+", "-", top).lower()
    names = _DISTRIBUTIONS.get(top, (normal,))
    if top == "google":  # a namespace that many distributions share
        return any(name.startswith("google") or name == "protobuf" for name in listed)
    return any(name in listed for name in names)


def _is_test(path: str) -> bool:
    return bool(re.search(r"(?:^|/)(?:tests?/|test_[^/]*\.py$|conftest\.py$)", path))
