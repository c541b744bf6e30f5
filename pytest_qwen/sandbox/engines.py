"""Finds a container engine on this machine and says in words why there is none."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_qwen.errors import Misuse, NotInstalled, Unavailable, explain
from pytest_qwen.escaping import escaped

if TYPE_CHECKING:
    from docker import DockerClient

OLDEST_API = (1, 40)
_TIMEOUT_S = 120
_ANSWERS_WITHIN_S = 20  # the first question, which any engine that works answers in a second or two
_CHOICES = ("auto", "docker", "podman", "unix:///path/to.sock", "tcp://host:port")
# Escapes of 2024 and 2025 were fixed in these; distributions also fix older numbers, so it is only told.
_FIXED_RUNC = {(1, 2): (1, 2, 8), (1, 3): (1, 3, 3)}


def connect(asked: str = "auto") -> DockerClient:
    """A client of the engine that was asked for; "auto" takes the first that is there.

    Raises Misuse for a word that is none, NotInstalled without the SDK, and Unavailable when no engine
    answers: which were looked for, and what was wrong with each.
    """
    _check_word(asked)
    try:
        import docker  # noqa: F401 - asked for here, so that its absence has words of its own
    except ImportError as error:
        raise NotInstalled(
            explain(
                "the package that talks to container engines is not installed",
                asked=f"--qwen-sandbox={asked}",
                found=str(error),
                next_step="pip install 'pytest-qwen[sandbox]'",
            )
        ) from error
    problems = []
    for address in _addresses(asked):
        client, problem = _try(address)
        if client is not None:
            return client
        problems.append(f"{address}: {problem}")
    raise Unavailable(
        explain(
            "no container engine can be used, so no generated program is run",
            asked=f"--qwen-sandbox={asked}",
            found="; ".join(problems) or "no socket of Docker or Podman",
            slip=_slip(problems),
            next_step="install Docker or Podman and start its service, or name one with --qwen-sandbox",
            choices=_CHOICES,
        )
    )


def close_sockets_of(error: BaseException | None) -> None:
    """Close the sockets that the SDK leaves open where it could not connect; each would be a warning."""
    while error is not None:
        trace = error.__traceback__
        while trace is not None:
            for value in trace.tb_frame.f_locals.values():
                if isinstance(value, socket.socket):
                    value.close()
            trace = trace.tb_next
        error = error.__context__


def old_runtime(version: str) -> str | None:
    """A word on a runc that is older than the one that fixed known escapes; None when it is not."""
    numbers = tuple(int(part) for part in re.split(r"[+~-]", version)[0].split(".") if part.isdigit())
    if len(numbers) < 3 or numbers[:2] > max(_FIXED_RUNC):
        return None
    fixed = _FIXED_RUNC.get((numbers[0], numbers[1]), (1, 2, 8))
    if numbers >= fixed:
        return None
    wanted = ".".join(map(str, fixed))
    return f"runc {version} is older than {wanted}, which fixed known escapes (distributions may fix it too)"


def _check_word(asked: str) -> None:
    if asked in {"auto", "docker", "podman"} or asked.startswith(("unix://", "tcp://", "ssh://", "npipe://")):
        return
    slip = f"an address begins with unix://: unix://{asked}" if asked.startswith("/") else None
    raise Misuse(
        explain(
            f"--qwen-sandbox: {asked!r} names no container engine",
            asked=f"--qwen-sandbox={asked}",
            slip=slip,
            choices=_CHOICES,
        )
    )


def _addresses(asked: str) -> Iterator[str]:
    """Where the engine may listen, the likelier first; of sockets those that are there, or were named."""
    if asked not in {"auto", "docker", "podman"}:
        yield asked
        return
    runtime = Path(os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}")
    docker = [Path("/var/run/docker.sock"), runtime / "docker.sock", Path.home() / ".docker/run/docker.sock"]
    podman = [runtime / "podman/podman.sock", Path("/run/podman/podman.sock")]
    named = os.environ.get("DOCKER_HOST")
    if named and asked != "podman":
        yield named
    sockets = {"docker": docker, "podman": podman, "auto": [*docker, *podman]}[asked]
    yield from (f"unix://{path}" for path in dict.fromkeys(sockets) if _there(path))


def _there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a folder on the way may not be searched: then trying says so
        return True


def _try(address: str) -> tuple[DockerClient | None, str]:
    """A client of the engine at an address, or why there is none."""
    import requests
    from docker import DockerClient
    from docker.errors import DockerException

    client = None
    try:
        client = DockerClient(
            base_url=address, version="auto", timeout=_ANSWERS_WITHIN_S, tls=_certificates(address)
        )
        numbers = tuple(map(int, str(client.version()["ApiVersion"]).split(".")))
        if numbers >= OLDEST_API:
            client.api.timeout = _TIMEOUT_S
            return client, ""
        problem = (
            f"its API is {'.'.join(map(str, numbers))}, {'.'.join(map(str, OLDEST_API))} or newer is needed"
        )
    except (DockerException, requests.RequestException, OSError, ValueError, KeyError, TypeError) as error:
        problem = _in_words(error)
        close_sockets_of(error)
    if client is not None:
        client.close()
    return None, problem


def _certificates(address: str) -> Any:
    """What DOCKER_TLS_VERIFY and DOCKER_CERT_PATH say of the engine that DOCKER_HOST names."""
    from docker.utils import kwargs_from_env

    named = address == os.environ.get("DOCKER_HOST") and address.startswith("tcp://")
    return kwargs_from_env().get("tls", False) if named else False


def _in_words(error: BaseException) -> str:
    text = str(error)
    for sign, words in (
        ("Permission denied", "no permission to use this socket"),
        ("No such file", "there is no such socket"),
        ("Connection refused", "nothing listens there any more"),
        ("Read timed out", f"it takes connections and did not answer within {_ANSWERS_WITHIN_S} s"),
        ("client version", text.strip("()'\"")),
    ):
        if sign in text:
            return words
    return f"no container engine answers there ({type(error).__name__}: {escaped(text, 160)})"


def _slip(problems: list[str]) -> str | None:
    if any("no permission" in problem for problem in problems):
        return "your user may not use the socket: join its group, use a rootless engine, or run as root"
    if any("nothing listens" in problem for problem in problems):
        return "the service was stopped and left its socket behind"
    if any("did not answer" in problem for problem in problems):
        return "the engine hangs: restart its service"
    return None
