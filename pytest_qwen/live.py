"""The live line of a session: hands what a measurement says to the terminal, when there is one to see it."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator

import pytest

from pytest_qwen.measure import Progress
from pytest_qwen.progress import LiveLine, State


class Live:
    """Writes to the real terminal around pytest's capture; silent in an xdist worker, a pipe or with -q."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        reporter = config.pluginmanager.getplugin("terminalreporter")
        quiet = config.get_verbosity() < 0 or hasattr(config, "workerinput") or reporter is None
        self._reporter = reporter
        self._line = None if quiet or not sys.__stdout__ or not sys.__stdout__.isatty() else LiveLine(sys.__stdout__, clock=time.monotonic)

    def say(self, text: str) -> None:
        """A lasting line about what is waited for."""
        if self._reporter is not None:
            with self._uncaptured():
                self._reporter.ensure_newline()
                self._reporter.write_line(f"qwen: {text}")

    def show(self, progress: Progress) -> None:
        """Rewrite the live line."""
        if self._line is None:
            return
        with self._uncaptured():
            self._line.show(_state(progress))

    def clear(self) -> None:
        """Remove the live line, so that pytest's own output goes on where it was."""
        if self._line is not None:
            with self._uncaptured():
                self._line.clear()

    @contextlib.contextmanager
    def _uncaptured(self) -> Iterator[None]:
        capture = self._config.pluginmanager.getplugin("capturemanager")
        if capture is None:
            yield
        else:
            with capture.global_and_fixture_disabled():
                yield
