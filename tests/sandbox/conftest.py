"""A real container engine for the tests of the sandbox; without one they skip, in one line."""

from collections.abc import Iterator
from typing import Any

import pytest

from pytest_qwen.errors import Unavailable
from pytest_qwen.sandbox import engines, image
from pytest_qwen.sandbox.container import ContainerSandbox


@pytest.fixture(scope="session")
def engine() -> Iterator[Any]:
    """A client of the engine that is there."""
    try:
        client = engines.connect("auto")
    except Unavailable as error:
        pytest.skip(str(error).splitlines()[0] + " (`make test` starts one where it can)")
    yield client
    client.close()


@pytest.fixture(scope="session")
def slim(engine: Any) -> str:
    """The image without PyTorch."""
    try:
        return image.find(engine, "guest-slim")
    except Unavailable as error:
        pytest.skip(str(error).splitlines()[0])


@pytest.fixture
def sandbox(engine: Any, slim: str, request: pytest.FixtureRequest) -> Iterator[ContainerSandbox]:
    """A sandbox on the slim image, empty again after each test."""
    made = ContainerSandbox(engine, slim, session=f"tests-{abs(hash(request.node.nodeid)):x}")
    yield made
    made.close()
