"""The live line of a session: hands what a measurement says to the terminal, when there is one to see it."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator

import pytest

from pytest_qwen.bounds import Bound
from pytest_qwen.measure import Progress
from pytest_qwen.progress import LiveLine, state_of


class Live:
    """Writes to the real terminal around pytest's capture; silent in a worker, in a pipe and with -q."""

    def __init__(self, config: pytest.Config, *, alpha: float) -> None:
        self._capture = config.pluginmanager.getplugin("capturemanager")
        self._reporter = (
            None if hasattr(config, "workerinput") else config.pluginmanager.getplugin("terminalreporter")
        )
        self._alpha = alpha
        self._test = ""
        self._bounds: tuple[Bound, ...] = ()
        self._started = False
        self._line: LiveLine | None = None
        stream = sys.__stdout__
        if self._reporter is None or config.get_verbosity() < 0 or stream is None:
            return
        with self._uncaptured():  # while pytest captures, the stream's descriptor is a file
            if stream.isatty():
                self._line = LiveLine(stream, clock=time.monotonic)

    def begin(self, test: str, bounds: tuple[Bound, ...]) -> None:
        """The test that the next lines are about."""
        self._test, self._bounds, self._started = test, bounds, False

    def say(self, text: str) -> None:
        """A lasting line about what is waited for."""
        if self._reporter is not None:
            with self._uncaptured():
                self._reporter.ensure_newline()
                self._reporter.write_line(f"qwen: {text}")

    def show(self, progress: Progress) -> None:
        """Rewrite the live line; the first one of a test starts below what pytest has written."""
        if self._line is None or self._reporter is None:
            return
        with self._uncaptured():
            if not self._started:
                self._reporter.ensure_newline()
                self._started = True
            self._line.show(
                lambda: state_of(progress, test=self._test, bounds=self._bounds, alpha=self._alpha)
            )

    def clear(self) -> None:
        """Remove the live line, so that pytest's own output goes on where it was."""
        if self._line is not None and self._started:
            with self._uncaptured():
                self._line.clear()

    @contextlib.contextmanager
    def _uncaptured(self) -> Iterator[None]:
        if self._capture is None:
            yield
        else:
            with self._capture.global_and_fixture_disabled():
                yield
