"""What lm-evaluation-harness may do in our process: no warnings, no downloads, and no model's code run."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from pytest_qwen.errors import Misuse, explain

_OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")
_RUN_CODE = "HF_ALLOW_CODE_EVAL"


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """The harness's warnings and progress bars are not the test's."""
    loggers = [logging.getLogger(name) for name in ("lm_eval", "datasets", "huggingface_hub")]
    before = [one.level for one in loggers]
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        for one in loggers:
            one.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for one, level in zip(loggers, before, strict=True):
                one.setLevel(level)


@contextlib.contextmanager
def local_data() -> Iterator[None]:
    """Data sets come from this machine, unless the user's environment says otherwise.

    Without network the hub would be asked again and again for half a minute. An engine's process, started
    later, gets the environment as it was: weights are another matter.
    """
    if any(name in os.environ for name in _OFFLINE):
        yield
        return
    with _environment(**dict.fromkeys(_OFFLINE, "1")):
        import datasets
        import huggingface_hub.constants as hub

        # read from the environment once, at an import that may have been before
        places = [(module, name) for module in (datasets.config, hub) for name in _OFFLINE]
        known = [(module, name) for module, name in places if hasattr(module, name)]
        before = [getattr(module, name) for module, name in known]
        for module, name in known:
            setattr(module, name, True)
        try:
            yield
        finally:
            for (module, name), value in zip(known, before, strict=True):
                setattr(module, name, value)


@contextlib.contextmanager
def no_code(*, reading: bool) -> Iterator[None]:
    """Read or grade tasks whose figure would execute answers, without what would execute them.

    Such tasks ask the `evaluate` package for "code_eval" as they are read, and try it at once. They get a
    stand-in that computes nothing; that it is asked to grade an answer is an error.
    """
    before = sys.modules.get("evaluate")
    executor = _Executor(reading)
    sys.modules["evaluate"] = _StandIn(executor, before)
    try:
        with _environment(**{_RUN_CODE: None}):
            yield
    finally:
        executor.reading = False
        if isinstance(sys.modules.get("evaluate"), _StandIn):
            del sys.modules["evaluate"]
        if before is not None:
            sys.modules["evaluate"] = before


class _StandIn(ModuleType):
    """The `evaluate` package while tasks are read: every metric but the one that executes is its own."""

    def __init__(self, executor: _Executor, real: ModuleType | None) -> None:
        super().__init__("evaluate")
        self._executor = executor
        self._real = real

    def load(self, path: str, *arguments: Any, **options: Any) -> Any:
        """A metric by its name."""
        if path == "code_eval":
            return self._executor
        if self._real is None:
            del sys.modules["evaluate"]
            import evaluate

            self._real = evaluate
            sys.modules["evaluate"] = self
        return self._real.load(path, *arguments, **options)


class _Executor:
    """In the place of "code_eval": says nothing of the example that a task tries as it is read."""

    def __init__(self, reading: bool) -> None:
        self.reading = reading

    def compute(self, **_: Any) -> tuple[dict[str, float], dict[str, Any]]:
        """Nothing is executed. Raises Misuse once answers are there."""
        if not self.reading:
            raise Misuse(
                explain(
                    "this task would execute answers in the tests' own process",
                    next_step="mark it with unsafe_code: true, and its answers are run in the sandbox",
                )
            )
        return {"pass@1": 0.0}, {}


@contextlib.contextmanager
def _environment(**changes: str | None) -> Iterator[None]:
    """Variables of the environment, set or (None) taken away for a while."""
    before = {name: os.environ.get(name) for name in changes}
    try:
        for name, value in changes.items():
            _set(name, value)
        yield
    finally:
        for name, value in before.items():
            _set(name, value)


def _set(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value
