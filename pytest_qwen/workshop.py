"""What a session's tests work with, each made when first needed, and the runs that a test has opened."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pytest

from pytest_qwen.ask import RunRequest
from pytest_qwen.items import REQUEST
from pytest_qwen.settings import Settings

if TYPE_CHECKING:
    from pytest_qwen.bench import Bench
    from pytest_qwen.evidence import Measurement
    from pytest_qwen.grading import Grader
    from pytest_qwen.ledger import Ledger
    from pytest_qwen.live import Live
    from pytest_qwen.measure import Progress
    from pytest_qwen.run import Run

RUNS: pytest.StashKey[list[Run]] = pytest.StashKey()


def request_of(item: pytest.Item) -> RunRequest:
    """What a test asks for; of a test without marks of ours, nothing."""
    found = item.stash.get(REQUEST, None)
    return found if isinstance(found, RunRequest) else RunRequest()


class Workshop:
    """Bench, ledger, grader and live line of a session, or of an xdist worker's part of it."""

    def __init__(self, config: pytest.Config, settings: Settings) -> None:
        self.config = config
        self.settings = settings

    @cached_property
    def bench(self) -> Bench:
        """What measures."""
        from pytest_qwen.bench import Bench

        return Bench(self.settings, on_wait=self._say, on_progress=self._show)

    @cached_property
    def ledger(self) -> Ledger:
        """Where the session's records gather; only the controller has them all."""
        from pytest_qwen.ledger import Ledger

        return Ledger(self.settings, self.config.invocation_params.args)

    @cached_property
    def grader(self) -> Grader:
        """What rates answers."""
        from pytest_qwen.grading import Grader

        worker: Mapping[str, Any] = getattr(self.config, "workerinput", {})
        name = str(worker.get("workerid", "main"))
        return Grader(self.settings, uid=worker.get("testrunuid"), worker=name, say=self._say)

    @cached_property
    def live(self) -> Live:
        """The live line of long work."""
        from pytest_qwen.live import Live

        return Live(self.config, alpha=self.settings.alpha)

    def _say(self, text: str) -> None:
        """A line about what is waited for; a worker has no terminal of its own."""
        self.live.say(text)

    def _show(self, progress: Progress) -> None:
        self.live.show(progress)

    @property
    def has_ledger(self) -> bool:
        """Whether anything was recorded."""
        return "ledger" in self.__dict__

    def close(self) -> None:
        """Give back the devices and the containers."""
        if "bench" in self.__dict__:
            self.bench.close()
        if "grader" in self.__dict__:
            self.grader.close()

    # ---- one test

    def proving(self, item: pytest.Item) -> bool:
        """Whether the test has bounds and the run names what they are to be proven on."""
        request, settings = request_of(item), self.settings
        named = [*(request.bounds if settings.gpu != "auto" or settings.endpoint else ())]
        named += request.counted if settings.gpu not in {"auto", "cpu"} else ()
        # a CPU is named to go without a GPU, which says nothing about a container engine
        named += request.rated if settings.sandbox != "auto" or settings.gpu not in {"auto", "cpu"} else ()
        return bool(named) and not settings.replay

    def open(
        self, item: pytest.Item, overrides: Mapping[str, Any] | None = None, *, check_fit: bool = True
    ) -> Run:
        """One more run of the test: its model, leased, or what was recorded of it. Raises our errors."""
        request = request_of(item)
        self.live.begin(item.nodeid, request.bounds)
        runs = item.stash.setdefault(RUNS, [])
        if self.settings.replay:
            runs.append(self.ledger.replay(item.nodeid, request, len(runs)))
        else:
            runs.append(self.bench.open(request, overrides, check_fit=check_fit))
            runs[-1].baseline = self.baseline_for(item)
        return runs[-1]

    def opened(self, item: pytest.Item) -> Run:
        """The run of the test's own model, opened once; its engine may have been put away meanwhile."""
        runs = item.stash.get(RUNS, [])
        if self.settings.replay:
            return runs[0] if runs else self.open(item)
        wanted = self.bench.spec_for(request_of(item))
        mine = next((place for place, run in enumerate(runs) if run.spec == wanted), None)
        if mine is None:
            return self.open(item)
        runs[mine].engine = self.bench.open(request_of(item)).engine
        return runs[mine]

    def baseline_for(self, item: pytest.Item) -> Measurement | None:
        """The stored run that a bound of the test compares with, None without such a bound."""
        if any(bound.vs == "baseline" for bound in request_of(item).bounds):
            return self.ledger.baseline_of(item.nodeid, self.bench.target)
        return None
