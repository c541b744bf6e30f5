"""Hooks by which other plugins extend this one."""

from __future__ import annotations

from collections.abc import Mapping


def pytest_qwen_register_engines() -> Mapping[str, str]:  # type: ignore[empty-body]
    """Engines of your own: name → "module:Class", imported in the engine's child process only.

    The class implements `pytest_qwen.engines.base.Engine`; `pytest_qwen.testing.EngineConformance` tests it.
    """


def pytest_qwen_register_scenarios() -> Mapping[str, str]:  # type: ignore[empty-body]
    """Kinds of generated program of your own: name → "module:function", called when an answer is rated.

    The function gives a `pytest_qwen.scenarios.base.Scenario`: prompt, image, how it is tried, its rubric.
    """
