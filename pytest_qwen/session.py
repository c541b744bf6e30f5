"""The plugin's hooks: marks to requests, order, checks before, verdicts after, reports at the end."""

from __future__ import annotations

import shutil
from collections.abc import Generator
from functools import cached_property
from typing import TYPE_CHECKING

import pytest

from pytest_qwen.errors import Misuse, QwenError
from pytest_qwen.items import MEASURING, REQUEST, grouped, may_be_ours, ours, read
from pytest_qwen.settings import Settings
from pytest_qwen.showing import as_outcome, first_line, gate_text, skipped

if TYPE_CHECKING:
    from pytest_qwen.ask import RunRequest
    from pytest_qwen.workshop import Workshop

_PLUGIN_NAME = "qwen-session"


def session_of(config: pytest.Config) -> QwenSession:
    """The session's state, as registered at configuration."""
    found: QwenSession = config.pluginmanager.getplugin(_PLUGIN_NAME)
    return found


class QwenSession:
    """One pytest session, or one xdist worker's part of it."""

    def __init__(self, config: pytest.Config, settings: Settings) -> None:
        self.config = config
        self.settings = settings
        self.is_worker = hasattr(config, "workerinput")

    @cached_property
    def shop(self) -> Workshop:
        """What the tests work with; imported and made when the first test of ours needs it."""
        from pytest_qwen.workshop import Workshop

        return Workshop(self.config, self.settings)

    @property
    def _recorded(self) -> bool:
        """Whether anything of ours was recorded, where the whole session's records gather."""
        return not self.is_worker and "shop" in self.__dict__ and self.shop.has_ledger

    def prepare(self) -> None:
        """Find out now what would otherwise fail after minutes of measuring. Raises Misuse."""
        named = self.settings.gpu not in ("auto", "cpu") or self.settings.prices
        if named and not self.settings.replay:
            _ = self.shop.bench.target
        if self.settings.plan and self.config.pluginmanager.hasplugin("xdist"):
            # a plan takes no time to share, and only a session that collects by itself knows every test
            self.config.option.dist, self.config.option.tx = "no", []
        if not self.is_worker and (self.settings.report or self.settings.replay or self.settings.baseline):
            self.shop.ledger.prepare()

    # ---- collection

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Read every test's marks once, and put tests that share a load next to each other."""
        marked: dict[object, bool] = {}
        asking = [item for item in items if may_be_ours(item, marked) and read(item)]
        if asking:
            items[:] = grouped(items, {item: self._load_key(item) for item in asking})

    def _load_key(self, item: pytest.Item) -> str | None:
        request = item.stash[REQUEST]
        if isinstance(request, Misuse) or not {"llm", "accuracy"} & ours(item):
            return None
        try:
            return self.shop.bench.spec_for(request).key
        except QwenError:
            return None

    # ---- plan

    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        """With --qwen-plan: one line a test instead of running it."""
        if not self.settings.plan or self.config.option.collectonly:
            return None
        if session.testsfailed:
            raise session.Interrupted(f"{session.testsfailed} errors during collection")
        from pytest_qwen.plan_run import plan_all

        requests = {
            item.nodeid: item.stash[REQUEST]
            for item in session.items
            if REQUEST in item.stash and "finetune" not in ours(item)
        }
        text, impossible = plan_all(requests, self.shop.bench)
        reporter = self.config.pluginmanager.getplugin("terminalreporter")
        reporter.ensure_newline()
        reporter.write_line(text)
        session.testsfailed += impossible
        return True

    # ---- one test

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Before anything is loaded: misuse fails, another GPU skips, what physics forbids fails."""
        request = item.stash.get(REQUEST, None)
        if request is None:
            return
        if isinstance(request, Misuse):
            pytest.fail(str(request), pytrace=False)
        if self.settings.replay:
            return
        from pytest_qwen.target import mismatch

        with as_outcome():
            why = mismatch(request.gpu, self.shop.bench.target)
            if why:
                raise skipped(why)
            if request.bounds and MEASURING & ours(item):
                # a fine-tuning step is of another engine: what it needs is known when the body asks for it
                generates = MEASURING & ours(item) - {"finetune"}
                refusal = self.shop.bench.refusal(request) if generates else None
                if refusal:
                    pytest.fail(refusal, pytrace=False)
                _ = self.shop.baseline_for(item)  # a missing one is said before anything is loaded

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, None, None]:
        """After a body that passed: measure until sure, then judge; our errors show without a traceback."""
        if item.stash.get(REQUEST, None) is None:
            yield
            return
        from pytest_qwen.settling import settle

        try:
            with as_outcome(proving=self.shop.proving(item)):
                yield
                settle(self.shop, item)
        finally:
            self.shop.live.clear()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Hang what was measured on the report, as plain data that crosses to an xdist controller."""
        report = yield
        if report.when == "call" or (report.when == "setup" and not report.passed):
            request = item.stash.get(REQUEST, None)
            if request is not None:
                self._attach(item, report, request)
        return report

    def _attach(self, item: pytest.Item, report: pytest.TestReport, request: RunRequest | Misuse) -> None:
        from pytest_qwen.recording import properties_of, records_of
        from pytest_qwen.records import to_json

        outcome = report.outcome if report.when == "call" or report.skipped else "error"
        asked = None if isinstance(request, Misuse) else request
        records = records_of(self.shop, item, asked, outcome=outcome, reason=first_line(report))
        report.qwen_records = [to_json(record) for record in records]  # type: ignore[attr-defined]
        item.user_properties.extend(properties_of(item, records))
        report.user_properties = list(item.user_properties)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Gather records where the whole session's reports arrive."""
        found = getattr(report, "qwen_records", None)
        if found and not self.is_worker:
            self.shop.ledger.add(found)

    # ---- the end

    def pytest_report_header(self) -> str | None:
        """Shown only when an option of ours was used."""
        if not self.settings.given:
            return None
        used = ", ".join(f"{name.replace('_', '-')}={text}" for name, text in self.settings.given.items())
        where = "" if self.settings.replay or self.is_worker else f"; on {self.shop.bench.target.label}"
        return f"qwen: {used}{where}"

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Give the devices back, write the files, and never call an empty gate green."""
        if "shop" in self.__dict__:
            self.shop.close()
        if not self._recorded:
            return
        self.shop.ledger.finish("replay" if self.settings.replay else self.shop.bench.target.label)
        if session.exitstatus == pytest.ExitCode.OK and self._gated_nothing():
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def _gated_nothing(self) -> bool:
        """Whether a named target's run had bounds to prove and proved none; an endpoint is such a target."""
        named = self.settings.gpu != "auto" or self.settings.endpoint is not None
        if not named or self.settings.calibrate:
            return False
        return self._bounds_to_prove > 0 and self.shop.ledger.verdicts_given == 0

    @property
    def _bounds_to_prove(self) -> int:
        """A named GPU answers for skipped tests too; on a CPU those that need a GPU skip by design."""
        no_card = self.settings.gpu.lower() in ("auto", "cpu")
        skipped = self.shop.ledger.bounds_skipped if no_card else 0
        return self.shop.ledger.bounds_asked - skipped

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """The table of verdicts, and where the files are."""
        if not self._recorded:
            return
        for title, text in self.shop.ledger.sections(width=shutil.get_terminal_size().columns):
            terminalreporter.section(title)
            terminalreporter.write_line(text)
        if self._gated_nothing():
            endpoint = self.settings.endpoint
            proven = f"--qwen-endpoint={endpoint}" if endpoint else f"--gpu={self.settings.gpu}"
            terminalreporter.write_line(gate_text(proven, self._bounds_to_prove), red=True)
