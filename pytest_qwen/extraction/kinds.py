"""Tells what kind of text a code block holds, from its fence, its name and its words; parses nothing."""

from __future__ import annotations

import re
from typing import Literal

from pytest_qwen.extraction.fences import MARKDOWN
from pytest_qwen.extraction.naming import PYTHON, SHELL

Kind = Literal[
    "python", "session", "shell", "requirements", "dockerfile", "compose", "project", "document", "data"
]

_OF_LANGUAGE: dict[str, Kind] = {
    **dict.fromkeys(SHELL, "shell"),
    **dict.fromkeys(MARKDOWN, "document"),
    **dict.fromkeys(("pycon", "python-repl", "python-console", "ipython"), "session"),
    **dict.fromkeys(("requirements", "pip", "pip-requirements"), "requirements"),
    **dict.fromkeys(("dockerfile", "docker", "containerfile"), "dockerfile"),
    **dict.fromkeys(("docker-compose", "compose"), "compose"),
    **dict.fromkeys(("makefile", "make"), "shell"),
}
_OF_NAME: tuple[tuple[re.Pattern[str], Kind], ...] = (
    (re.compile(r".*\.pyi?"), "python"),
    (re.compile(r"requirements[\w.-]*\.(?:txt|in)"), "requirements"),
    (re.compile(r"Dockerfile.*|.*\.dockerfile", re.IGNORECASE), "dockerfile"),
    (re.compile(r"(?:docker-)?compose[\w.-]*\.ya?ml"), "compose"),
    (re.compile(r".*\.(?:sh|bash|bat|ps1)|Makefile|Procfile"), "shell"),
    (re.compile(r"pyproject\.toml|setup\.cfg|Pipfile|environment\.ya?ml|\.env\.example"), "project"),
    (re.compile(r".*\.md"), "document"),
)

_SIGN_OF_PYTHON = re.compile(
    r"^(?:import[ \t]+[A-Za-z_][\w.]*|from[ \t]+[.\w]+[ \t]+import\b|(?:async[ \t]+)?def[ \t]+\w+[ \t]*\("
    r"|class[ \t]+\w+|@\w+|if[ \t]+__name__)",
    re.MULTILINE,
)
_LINE_OF_PYTHON = re.compile(
    r"[ \t]|[#@\])}\"']|(?:import|from|def|class|async|return|if|elif|else|for|while|try|except|finally|with"
    r"|raise|pass|assert|global|del)\b|[\w.]+(?:\[[^\]]*\])?[ \t]*(?:[-+*/|]?=|\(|:[ \t]*\w)"
)
_COMMAND = re.compile(
    r"(?:[$%>] ?|!)?(?:sudo[ \t]+)?(?:pip3?|python3?|uvicorn|gunicorn|hypercorn|fastapi|curl|wget|http|docker"
    r"|docker-compose|podman|cd|mkdir|export|source|conda|uv|poetry|apt|apt-get|brew|git|npm|echo|touch|cp|mv"
    r"|ls|virtualenv|locust|ab|pytest)[ \t]+[\w./~@:'\"\\-]"
)
_REQUIREMENT = re.compile(
    r"[A-Za-z][\w.-]*(?:\[[\w, -]*\])?[ \t]*(?:(?:[=<>~!]=|[<>])[^\s]+.*|[;#@ ].*)?|-[re][ \t].*|#.*"
)
_PINNED_OR_USUAL = re.compile(
    r"^(?:[\w.\[\],-]+[ \t]*[=<>~!]=|(?:fastapi|uvicorn|transformers|torch)\b)", re.MULTILINE
)
_SERVICES = re.compile(r"^services:[ \t]*$", re.MULTILINE)
_FROM = re.compile(r"^FROM[ \t]+\S", re.MULTILINE)
_BUILD_STEP = re.compile(r"^(?:RUN|CMD|COPY|WORKDIR|ENTRYPOINT|EXPOSE)[ \t]", re.MULTILINE)

_TALKS_TO_A_SERVER = re.compile(
    r"^[ \t]*(?:import|from)[ \t]+"
    r"(?:requests|httpx|aiohttp|urllib\.request|urllib3|http\.client|websockets?|locust)\b"
    r"|\bTestClient\(|\bAsyncClient\(",
    re.MULTILINE,
)
_IMPORTS_AN_APP = re.compile(
    r"^[ \t]*from[ \t]+[\w.]+[ \t]+import[ \t(]+(?:app|api|application|create_app)\b", re.MULTILINE
)
_TALKS_TO_OWN_SERVER = re.compile(r"https?://(?:localhost|127\.0\.0\.1|0\.0\.0\.0)\b|\bTestClient\(")


def kind_of(language: str, path: str | None, text: str) -> Kind:
    """The kind of a block's text. A name says more than a language, and both more than the text."""
    by_name = _kind_of_name(path.rpartition("/")[2]) if path else None
    if by_name is None and language in PYTHON:
        by_name = "python"
    if by_name == "python":
        return "session" if _is_session(text) else "shell" if _is_commands(text) else "python"
    if by_name is not None:
        return by_name
    if language in _OF_LANGUAGE:
        return _OF_LANGUAGE[language]
    if language in ("yaml", "yml"):
        return "compose" if path is None and _SERVICES.search(text) else "data"
    if path is None and language in ("", "text", "txt", "plaintext", "plain", "code", "ini"):
        return _guess(text)
    return "project" if path is None and language == "toml" else "data"


def looks_like_python(text: str) -> bool:
    """Whether most lines of a text read as Python, one of them plainly."""
    lines = [line for line in text.split("\n") if line.strip()]
    code = sum(_LINE_OF_PYTHON.match(line) is not None for line in lines)
    return _SIGN_OF_PYTHON.search(text) is not None and code * 5 >= len(lines) * 3


def is_client(text: str) -> bool:
    """Whether Python that makes no app only imports one or talks to one."""
    return (_TALKS_TO_A_SERVER.search(text) or _IMPORTS_AN_APP.search(text)) is not None


def is_client_of_own_server(text: str) -> bool:
    """Whether Python that makes no app talks to a server on this very machine."""
    return _TALKS_TO_A_SERVER.search(text) is not None and _TALKS_TO_OWN_SERVER.search(text) is not None


def _kind_of_name(name: str) -> Kind | None:
    return next((kind for pattern, kind in _OF_NAME if pattern.fullmatch(name)), None)


def _guess(text: str) -> Kind:
    if _is_session(text):
        return "session"
    if _is_commands(text):
        return "shell"
    if _FROM.search(text) and _BUILD_STEP.search(text):
        return "dockerfile"
    if _SERVICES.search(text):
        return "compose"
    lines = [line for line in text.split("\n") if line.strip()]
    if _PINNED_OR_USUAL.search(text) and all(_REQUIREMENT.fullmatch(line) for line in lines):
        return "requirements"
    return "python" if looks_like_python(text) else "data"


def _is_session(text: str) -> bool:
    return text.lstrip().startswith(">>> ")


def _is_commands(text: str) -> bool:
    lines = (line for line in text.split("\n") if line.strip() and not line.startswith("#"))
    return _COMMAND.match(next(lines, "")) is not None and not _SIGN_OF_PYTHON.search(text)
