"""Where an engine is looked for, in which order, and what is said of one that is of no use."""

import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fake_docker
import pytest

from pytest_qwen.errors import Misuse, NotInstalled, Unavailable
from pytest_qwen.sandbox import engines


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A user with a home and a runtime folder of their own, on a machine that says nothing of engines."""
    for name in ("DOCKER_HOST", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"):
        monkeypatch.delenv(name, raising=False)
    with tempfile.TemporaryDirectory(prefix="user") as folder:  # a socket's path has to be short
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        monkeypatch.setenv("HOME", folder)
        yield Path(folder)


def made(path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return f"unix://{path}"


def below(folder: Path, asked: str) -> list[str]:
    """The addresses that are tried, less those of the machine itself."""
    return [one for one in engines._addresses(asked) if str(folder) in one or not one.startswith("unix://")]


def test_the_order_is_the_named_one_then_docker_then_podman(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    podman = made(bare / "podman/podman.sock")
    docker = made(bare / "docker.sock")
    desktop = made(bare / ".docker/run/docker.sock")
    assert below(bare, "auto") == [docker, desktop, podman]
    assert below(bare, "docker") == [docker, desktop]
    assert below(bare, "podman") == [podman]
    monkeypatch.setenv("DOCKER_HOST", "tcp://builder:2375")
    assert below(bare, "auto") == ["tcp://builder:2375", docker, desktop, podman]
    assert below(bare, "podman") == [podman]
    assert below(bare, "unix:///mine.sock") == []
    assert list(engines._addresses("unix:///mine.sock")) == ["unix:///mine.sock"]


def test_an_engine_is_found_after_one_of_no_use(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_docker.pretended_engine(fake_docker.WITHOUT_IMAGE) as address:
        monkeypatch.setattr(engines, "_addresses", lambda asked: [f"unix://{bare}/none.sock", address])
        client = engines.connect("auto")
        assert client.version()["ApiVersion"] == "1.41"
        assert client.api.timeout > 60  # builds and imports take their time
        client.close()


def refused(asked: str) -> str:
    with pytest.raises(Unavailable) as caught:
        engines.connect(asked)
    return str(caught.value)


def test_every_place_is_told_with_what_was_wrong_there(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_docker.pretended_engine(fake_docker.TOO_OLD) as old:
        monkeypatch.setattr(engines, "_addresses", lambda asked: [f"unix://{bare}/none.sock", old])
        text = refused("auto")
    assert "none.sock: there is no such socket; " in text
    assert f"{old}: its API is 1.24, 1.40 or newer is needed" in text


def test_no_socket_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "_addresses", lambda asked: [])
    text = refused("auto")
    assert "no socket of Docker or Podman" in text
    assert "install Docker or Podman" in text


@pytest.fixture
def silent(bare: Path) -> Iterator[str]:
    """A socket that takes connections and never says anything."""
    path = bare / "silent.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        yield f"unix://{path}"


def test_an_engine_that_hangs_is_not_waited_for_long(silent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert engines._ANSWERS_WITHIN_S <= 30
    monkeypatch.setattr(engines, "_ANSWERS_WITHIN_S", 0.2)
    text = refused(silent)
    assert "did not answer within 0.2 s" in text
    assert "the engine hangs" in text


def test_a_socket_that_nothing_listens_at(bare: Path) -> None:
    path = bare / "stale.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
    text = refused(f"unix://{path}")
    assert "nothing listens there any more" in text
    assert "left its socket behind" in text


@pytest.mark.skipif(os.geteuid() == 0, reason="root may use every socket; a session's test pretends it")
def test_a_socket_of_somebody_else(silent: str) -> None:
    Path(silent.removeprefix("unix://")).chmod(0)
    text = refused(silent)
    assert "no permission to use this socket" in text
    assert "join its group, use a rootless engine" in text


def test_the_certificates_of_the_named_engine_are_used_and_of_no_other(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ca", "cert", "key"):
        made(bare / f"{name}.pem")
    monkeypatch.setenv("DOCKER_HOST", "tcp://builder:2376")
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(bare))
    found: Any = engines._certificates("tcp://builder:2376")
    assert (found.ca_cert, found.cert) == (f"{bare}/ca.pem", (f"{bare}/cert.pem", f"{bare}/key.pem"))
    assert engines._certificates("tcp://other:2376") is False
    assert engines._certificates("unix:///var/run/docker.sock") is False
    monkeypatch.setenv("DOCKER_CERT_PATH", str(bare / "none"))
    assert "certificate" in refused("tcp://builder:2376")


def test_without_the_sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "docker", None)
    with pytest.raises(NotInstalled, match=r"pip install 'pytest-qwen\[sandbox\]'"):
        engines.connect("auto")


@pytest.mark.parametrize("asked", ["", "moby", "/var/run/docker.sock", "http://x"])
def test_a_word_that_names_no_engine(asked: str) -> None:
    with pytest.raises(Misuse, match="names no container engine"):
        engines.connect(asked)


@pytest.mark.parametrize(
    ("version", "wanted"),
    [
        ("1.1.5+ds1", "1.2.8"),
        ("1.2.7", "1.2.8"),
        ("1.2.8", None),
        ("1.3.2-rc.1", "1.3.3"),
        ("1.3.3", None),
        ("1.4.0", None),
        ("", None),
        ("unknown", None),
    ],
)
def test_a_runtime_with_known_escapes_is_told(version: str, wanted: str | None) -> None:
    said = engines.old_runtime(version)
    assert (said is None) if wanted is None else (f"older than {wanted}" in str(said))
