"""What an answer tells its reader to do: what to install, how to start it, what to ask it."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

Facts = dict[str, Any]
_MOST = 100
_LINE_CHARACTERS = 2000

# "$ ", "> ", "- ", "1. ", "# ", "RUN " before a command
_LEAD = re.compile(r"^\s*(?:(?:[$>%#*-]|\d+[.)]|RUN|CMD|ENTRYPOINT)\s+)*")
_INSTALL = re.compile(
    r"^(?:sudo\s+)?(?:python3?\s+-m\s+|uv\s+)?pip3?\s+install\s+\S|^uv\s+(?:add|sync)\b|^poetry\s+(?:install|add)\b"
    r"|^(?:conda|mamba)\s+install\s+\S|^docker\s+build\b|^docker(?:-|\s+)compose\s+(?:up|build)\b"
)
_START = re.compile(
    r"^(?:(?:uv|poetry)\s+run\s+|exec\s+)?(?:(?:python3?\s+(?:-\w+\s+)*-m\s+)?(?:uvicorn|gunicorn|hypercorn|granian)\b.*\s[\w./-]+:[A-Za-z_]"
    r"|fastapi\s+(?:run|dev)\b|python3?\s+(?:-\w\s+)*[\w./-]+\.py\b)"
    r"|^docker\s+run\s+\S|^docker(?:-|\s+)compose\s+up\b"
)
_PIP = re.compile(r"\bpip3?\s+install\s+(.*)")
_ADD = re.compile(r"^(?:uv|poetry)\s+add\s+(.*)")
_REQUIREMENT = re.compile(
    r"^(?P<name>[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?)\s*(?:\[(?P<extras>[\w\s,.-]*)\])?\s*"
    r"(?P<specifier>(?:(?:===?|~=|!=|<=?|>=?)\s*[\w.*+!-]+\s*,?\s*)*)(?P<url>@\s*\S+)?\s*(?:;.*)?$"
)
_LIST_NAME = re.compile(
    r"(?:^|/)(?:requirements|constraints)[^/]*\.(?:txt|in)$|(?:^|/)requirements$", re.IGNORECASE
)
# Options of pip that are followed by a value of their own.
_WITH_VALUE = {
    "-r",
    "-c",
    "-i",
    "-f",
    "-t",
    "--index-url",
    "--extra-index-url",
    "--find-links",
    "--requirement",
}
# Options of curl that are followed by a value of their own that is not sent.
_CURL_WITH_VALUE = {"-o", "--output", "-w", "--write-out", "-m", "--max-time", "-u", "--user", "-A"}
_CURL_BODY = {
    "-d",
    "--data",
    "--data-raw",
    "--data-binary",
    "--data-urlencode",
    "--json",
    "-T",
    "--upload-file",
}


def instruction_facts(prose: str, attachments: dict[str, str], sources: dict[str, str]) -> Facts:
    """Requirements, commands and example requests; sources may hold commands in comments and texts."""
    origins = {"prose": prose, **attachments, **sources}
    commands = [(origin, line) for origin, text in origins.items() for line in _commands(text)]
    requirements = [one for path, text in attachments.items() for one in _listed(path, text)]
    requirements += [one for origin, line in commands for one in _installed(line)]
    requirements += [one for line in prose.splitlines() for one in _told(line)]
    return {
        "requirements": _distinct(requirements),
        "install_commands": _found(commands, _INSTALL),
        "start_commands": _found(commands, _START),
        "examples": [one for origin, line in commands if (one := _curl(line, origin))][:_MOST],
    }


def _commands(text: str) -> Iterator[str]:
    """Lines that may be commands, without what stands before them, and code spans within lines."""
    for line in text.replace("\\\r\n", " ").replace("\\\n", " ").splitlines():
        short = line[:_LINE_CHARACTERS]
        yield from (span.strip() for span in re.findall(r"`([^`\n]+)`", short))
        for part in re.split(r"\s&&\s", _LEAD.sub("", short, count=1)):
            yield _exec_form(part.strip())


def _exec_form(text: str) -> str:
    """A Dockerfile's command given as a list: ["uvicorn", "main:app"]."""
    if text.startswith("["):
        try:
            parts = json.loads(text)
        except (ValueError, RecursionError):
            return text
        return " ".join(map(str, parts))
    return text


def _found(commands: list[tuple[str, str]], wanted: re.Pattern[str]) -> list[Facts]:
    return [{"text": line[:200], "origin": origin} for origin, line in commands if wanted.search(line)][
        :_MOST
    ]


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line, comments=True)
    except ValueError:
        return []


# ---- requirements


def _listed(path: str, text: str) -> Iterator[Facts]:
    """The entries of a requirements file, or of the lists of a pyproject file."""
    if path.endswith(".toml"):
        yield from _of_project(path, text)
    elif _LIST_NAME.search(path) or _looks_listed(path, text):
        for line in text.splitlines():
            yield from _requirement(re.sub(r"(?:^|\s)#.*|\s+--.*|\s*\\$", "", line), path)


def _of_project(path: str, text: str) -> Iterator[Facts]:
    """The dependencies in a pyproject file, as its standard and as Poetry write them."""
    try:
        data = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError):
        return
    project = _table(data, "project")
    groups = [project.get("dependencies"), *_table(project, "optional-dependencies").values()]
    groups += _table(data, "dependency-groups").values()
    for one in (one for group in groups if isinstance(group, list) for one in group if isinstance(one, str)):
        yield from _requirement(one, path)
    for name, told in _table(data, "tool", "poetry", "dependencies").items():
        version = told.get("version", "") if isinstance(told, dict) else told
        if name != "python" and isinstance(version, str):
            yield _entry(name, "", f"=={version}" if version[:1].isdigit() else version, version, path)


def _table(data: Any, *names: str) -> Facts:
    """A table below others; an empty one where it is missing or is something else."""
    for name in names:
        data = data.get(name) if isinstance(data, dict) else None
    return data if isinstance(data, dict) else {}


def _looks_listed(path: str, text: str) -> bool:
    """Whether a text file without a telling name holds requirements and nothing else."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]
    return (
        path.endswith(".txt")
        and bool(lines)
        and all(_REQUIREMENT.match(line[:200]) for line in lines[:_MOST])
    )


def _installed(line: str) -> Iterator[Facts]:
    """The packages that an install command names."""
    found = _ADD.search(line) or (_PIP.search(line) if _INSTALL.search(line) else None)
    skip = False
    for word in _words(found[1]) if found else []:
        if word in {"|", ";", "&&", "||", "&", ">"}:
            return
        if not skip and not word.startswith(("-", ".", "/", "http", "git+")):
            yield from _requirement(word, "command")
        skip = word in _WITH_VALUE


def _told(line: str) -> Iterator[Facts]:
    """A line of prose that is a requirement with a version and nothing else."""
    bare = re.sub(r"^\s*(?:[-*]|\d+[.)])\s+", "", line).strip(" `")
    if re.search(r"[=<>~]=", bare):
        yield from _requirement(bare, "prose")


def _requirement(text: str, origin: str) -> Iterator[Facts]:
    found = _REQUIREMENT.match(text.strip()[:200])
    if found:
        specifier = re.sub(r"\s", "", found["specifier"]) or (found["url"] or "").strip()
        yield _entry(found["name"], found["extras"] or "", specifier, text.strip(), origin)


def _entry(name: str, extras: str, specifier: str, text: str, origin: str) -> Facts:
    """A requirement; pinned when it allows one version alone."""
    return {
        "name": re.sub(r"[-_.]+", "-", name).lower(),
        "extras": sorted(one.strip().lower() for one in extras.split(",") if one.strip()),
        "specifier": specifier,
        "pinned": bool(re.fullmatch(r"===?[^,*]+|@.*(?:@|sha256=|/archive/|\.whl).*", specifier)),
        "text": text[:100],
        "origin": origin,
    }


def _distinct(requirements: list[Facts]) -> list[Facts]:
    return list({(one["name"], one["specifier"], one["origin"]): one for one in requirements}.values())[
        :_MOST
    ]


# ---- example requests


def _curl(line: str, origin: str) -> Facts | None:
    """What a curl command sends; None when the line is none."""
    given = _words(line) if re.match(r"curl(?:\.exe)?\s", line) else []
    method, url, body, headers, fields = "", "", "", [], []
    for option, value in _options(given[1:]):
        if option in {"-X", "--request"}:
            method = value
        elif option in {"-H", "--header"}:
            name, _, content = value.partition(":")
            headers.append([name.strip(), content.strip()])
        elif option in {"-F", "--form", "--form-string"}:
            fields.append(_form_field(value))
        elif option in _CURL_BODY:
            body = value
        elif option in {"--url", ""}:
            url = url or value
    if not url:
        return None
    path = _target(url)
    method = method.upper() or ("POST" if fields or body else "GET")
    told = {"headers": headers, "fields": fields, "body": body or None}
    return {"origin": origin, "method": method, "path": path, **told}


def _options(given: list[str]) -> Iterator[tuple[str, str]]:
    """Curl's options with their values; the option of a value without one is ""."""
    valued = (
        _CURL_BODY
        | _CURL_WITH_VALUE
        | {"-X", "--request", "-H", "--header", "-F", "--form", "--form-string", "--url"}
    )
    rest = iter(given)
    for word in rest:
        if word in {"|", ">", "&&", ";"}:
            return
        if word in valued:
            yield word, next(rest, "")
        elif word[:2] in valued:
            yield word[:2], word[2:]
        elif word.startswith("--") and "=" in word:
            yield word.partition("=")[0], word.partition("=")[2]
        elif not word.startswith("-"):
            yield "", word


def _target(url: str) -> str:
    """Path and query of a URL."""
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
    except ValueError:
        return "/"
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _form_field(text: str) -> Facts:
    """One -F: name=value, name=@file;type=image/png."""
    name, _, value = text.partition("=")
    value, *options = value.split(";")
    kind = next((one.partition("=")[2] for one in options if one.strip().startswith("type=")), None)
    is_file = value.startswith(("@", "<"))
    return {
        "name": name,
        "kind": "file" if is_file else "text",
        "value": value.lstrip("@<"),
        "content_type": kind,
    }
