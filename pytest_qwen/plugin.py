"""What pytest loads: options, markers and fixtures; the work starts only when a test asks for it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import TYPE_CHECKING

import pytest

from pytest_qwen import MARK_NAMES
from pytest_qwen.errors import Misuse, Unavailable
from pytest_qwen.session import QwenSession, session_of
from pytest_qwen.settings import add_gpu_alias, add_options, read_settings

if TYPE_CHECKING:
    from pytest_qwen.accuracy import Accuracy
    from pytest_qwen.beside import Laws, Published
    from pytest_qwen.comparing import Comparison
    from pytest_qwen.finetuning import FineTune
    from pytest_qwen.fixture_makers import Makers
    from pytest_qwen.llm import Llm
    from pytest_qwen.planning import Plan
    from pytest_qwen.sandbox.base import Sandbox
    from pytest_qwen.stars import Rate
    from pytest_qwen.target import Target


def pytest_addoption(parser: pytest.Parser) -> None:
    """Register the options and their ini twins."""
    add_options(parser)


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(parser: pytest.Parser) -> Generator[None, None, None]:
    """Take `--gpu` once every plugin and conftest had its chance to own it."""
    yield
    add_gpu_alias(parser)


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Declare the hooks that other plugins may implement."""
    from pytest_qwen import hookspecs

    pluginmanager.add_hookspecs(hookspecs)


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers and the session's state; a wrong option ends the run here, in one message."""
    for line in _marker_lines(described=config.option.markers):
        config.addinivalue_line("markers", line)
    try:
        _register_brought(config)
        session = QwenSession(config, read_settings(config))
        session.prepare()
    except (Misuse, Unavailable) as error:
        raise pytest.UsageError(str(error)) from None
    config.pluginmanager.register(session, "qwen-session")


def _marker_lines(*, described: bool) -> Iterable[str]:
    """What registers the markers: names suffice, unless somebody reads their descriptions (`--markers`)."""
    if not described:
        return sorted(MARK_NAMES)
    from pytest_qwen.markers import help_lines

    return help_lines()


def _register_brought(config: pytest.Config) -> None:
    """Take the engines and scenarios that others bring. Raises Misuse for a malformed name."""
    for brought in config.hook.pytest_qwen_register_engines():
        from pytest_qwen import engines

        for name, target in brought.items():
            engines.register(name, target)
    for brought in config.hook.pytest_qwen_register_scenarios():
        from pytest_qwen import scenarios

        for name, target in brought.items():
            scenarios.register(name, target)


def _makers(request: pytest.FixtureRequest) -> Makers:
    """What makes the fixtures of the test that asks."""
    from pytest_qwen.fixture_makers import Makers

    return Makers(session_of(request.config).shop, request.node)


@pytest.fixture
def llm(request: pytest.FixtureRequest) -> Llm:
    """The loaded model that the test's marks ask for: generate, chat, stream, measure."""
    return _makers(request).llm()


@pytest.fixture
def load(request: pytest.FixtureRequest) -> Callable[..., Llm]:
    """Load by call: `load("Qwen/Qwen3-32B", optimize="max")`; engine errors are raised to the test."""
    return _makers(request).load()


@pytest.fixture
def compare(request: pytest.FixtureRequest) -> Callable[..., Comparison]:
    """Interleave the test's model with a variant: `compare(vs={"optimize": "eager"})`."""
    return _makers(request).compare()


@pytest.fixture
def finetune(request: pytest.FixtureRequest) -> FineTune:
    """Measure an optimiser step: `finetune("qlora", tokens=1024)` gives seconds, peak memory, prediction."""
    return _makers(request).finetune()


@pytest.fixture
def gpu(request: pytest.FixtureRequest) -> Target:
    """What this run is on: `.label`, `.spec` (catalogue row or None), `.devices`, `.is_cpu`."""
    return session_of(request.config).shop.bench.target


@pytest.fixture
def plan(request: pytest.FixtureRequest) -> Plan:
    """Physics of the test's model on this run's GPU: `.fits`, `.fit.lines`, `.ceiling`. Loads nothing."""
    return _makers(request).plan()


@pytest.fixture
def published(request: pytest.FixtureRequest) -> Published:
    """Set ours beside a published figure: `published(document, table, row, memory_used_gb=8.3)`."""
    return _makers(request).published()


@pytest.fixture
def law(request: pytest.FixtureRequest) -> Laws:
    """Fit a law to measured points: `law("memory", points, ("1", "batch*tokens"), unit="GB")`."""
    return _makers(request).law()


@pytest.fixture
def rate(request: pytest.FixtureRequest) -> Rate:
    """Rate generated programs: `rate(llm.generate(PROMPT))`, `rate()` with `@answer(path)`, `rate.all`."""
    return _makers(request).rate()


@pytest.fixture
def accuracy(request: pytest.FixtureRequest) -> Accuracy:
    """Count right answers to a task's questions: `accuracy("mmlu", limit=200).value`."""
    return _makers(request).accuracy()


@pytest.fixture
def sandbox(request: pytest.FixtureRequest) -> Sandbox:
    """The sandbox of this run, to run things in by yourself: `sandbox.run(Job(argv=("python3", "-V")))`."""
    return _makers(request).sandbox()
