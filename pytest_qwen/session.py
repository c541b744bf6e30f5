"""The plugin's hooks: marks to requests, order, checks before, verdicts after, reports at the end."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Generator, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pytest

from pytest_qwen.errors import Misuse, QwenError, explain
from pytest_qwen.items import MEASURING, REQUEST, grouped, may_be_ours, ours, read
from pytest_qwen.settings import Settings
from pytest_qwen.showing import as_outcome, first_line, gate_text, skipped

if TYPE_CHECKING:
    from pytest_qwen.accuracy import Accuracy
    from pytest_qwen.ask import RunRequest
    from pytest_qwen.bench import Bench
    from pytest_qwen.beside import Beside, Laws, Published
    from pytest_qwen.evidence import Measurement
    from pytest_qwen.finetuning import FineTune
    from pytest_qwen.grading import Grader, Ratings
    from pytest_qwen.ledger import Ledger
    from pytest_qwen.live import Live
    from pytest_qwen.llm import Llm
    from pytest_qwen.measure import Progress
    from pytest_qwen.planning import Plan
    from pytest_qwen.run import Comparison, Run
    from pytest_qwen.sandbox.base import Sandbox
    from pytest_qwen.stars import Rate
    from pytest_qwen.verdicts import Verdict

_PLUGIN_NAME = "qwen-session"
_RUNS: pytest.StashKey[list[Run]] = pytest.StashKey()
_RATINGS: pytest.StashKey[Ratings] = pytest.StashKey()
_STAR_VERDICTS: pytest.StashKey[list[Verdict]] = pytest.StashKey()
_BESIDE: pytest.StashKey[Beside] = pytest.StashKey()
_ACCURACY: pytest.StashKey[Accuracy] = pytest.StashKey()
_COUNTED: pytest.StashKey[list[Verdict]] = pytest.StashKey()
_CALIBRATION_ROUNDS = 20


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
    def bench(self) -> Bench:
        """What measures; imported and made when the first test needs it."""
        from pytest_qwen.bench import Bench

        return Bench(self.settings, on_wait=self._say, on_progress=self._show)

    @cached_property
    def ledger(self) -> Ledger:
        """Where the session's records gather; only the controller has them all."""
        from pytest_qwen.ledger import Ledger

        return Ledger(self.settings, self.config.invocation_params.args)

    @cached_property
    def grader(self) -> Grader:
        """What rates answers; made when the first test needs it."""
        from pytest_qwen.grading import Grader

        worker: Mapping[str, Any] = getattr(self.config, "workerinput", {})
        name = str(worker.get("workerid", "main"))
        return Grader(self.settings, uid=worker.get("testrunuid"), worker=name, say=self._say)

    def prepare(self) -> None:
        """Find out now what would otherwise fail after minutes of measuring. Raises Misuse."""
        named = self.settings.gpu not in ("auto", "cpu") or self.settings.prices
        if named and not self.settings.replay:
            _ = self.bench.target
        if self.settings.plan and self.config.pluginmanager.hasplugin("xdist"):
            # a plan takes no time to share, and only a session that collects by itself knows every test
            self.config.option.dist, self.config.option.tx = "no", []
        if not self.is_worker and (self.settings.report or self.settings.replay or self.settings.baseline):
            self.ledger.prepare()

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
            return self.bench.spec_for(request).key
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
        text, impossible = plan_all(requests, self.bench)
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
            why = mismatch(request.gpu, self.bench.target)
            if why:
                raise skipped(why)
            if request.bounds and MEASURING & ours(item):
                # a fine-tuning step is of another engine: what it needs is known when the body asks for it
                generates = MEASURING & ours(item) - {"finetune"}
                refusal = self.bench.refusal(request) if generates else None
                if refusal:
                    pytest.fail(refusal, pytrace=False)
                _ = self._baseline_for(item)  # a missing one is said before anything is loaded

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, None, None]:
        """After a body that passed: measure until sure, then judge; our errors show without a traceback."""
        if item.stash.get(REQUEST, None) is None:
            yield
            return
        try:
            with as_outcome(proving=self._proving(item)):
                yield
                self._settle(item)
        finally:
            self._live.clear()

    def _proving(self, item: pytest.Item) -> bool:
        """Whether the test has bounds and the run names what they are to be proven on."""
        request, settings = self._request(item), self.settings
        named = [*(request.bounds if settings.gpu != "auto" else ())]
        named += request.counted if settings.gpu not in {"auto", "cpu"} else ()
        # a CPU is named to go without a GPU, which says nothing about a container engine
        named += request.rated if settings.sandbox != "auto" or settings.gpu not in {"auto", "cpu"} else ()
        return bool(named) and not settings.replay

    def _settle(self, item: pytest.Item) -> None:
        """Judge the test's bounds; a failed or missing verdict fails the test in its own words."""
        from pytest_qwen.run import failure_text, nothing_measured

        request = self._request(item)
        runs = item.stash.get(_RUNS, [])
        if self.settings.calibrate and request.bounds and runs and not self._trained(runs[0]):
            self._calibrate(item, runs[0])
        verdicts = [verdict for run in runs for verdict in run.settle()]
        if runs and not self.settings.replay:
            verdicts += self._slowdowns(item, runs[0])
        verdicts += self._star_verdicts(item)
        if _ACCURACY in item.stash:
            item.stash[_COUNTED] = counted = item.stash[_ACCURACY].settle(request.counted)
            verdicts += counted
        if request.bounds and not verdicts:
            raise Misuse(nothing_measured(request.bounds))
        text = failure_text(verdicts, no_verdict_fails=self.settings.no_verdict == "fail")
        if text:
            pytest.fail(text, pytrace=False)
        unsure = failure_text(verdicts, no_verdict_fails=True)
        if unsure:
            raise skipped(unsure)

    def _star_verdicts(self, item: pytest.Item) -> list[Verdict]:
        """Judge the test's bounds on stars. Raises Misuse when it rated nothing."""
        request = self._request(item)
        if _RATINGS not in item.stash:
            return []
        found = item.stash[_RATINGS].settle(request.rated, sample_stars=request.sample_stars)
        item.stash[_STAR_VERDICTS] = found
        return found

    def _slowdowns(self, item: pytest.Item, run: Run) -> list[Verdict]:
        """Judge each `max_slowdown` against another configuration, loaded beside the test's own."""
        request = self._request(item)
        found = []
        for bound in request.bounds:
            if bound.marker == "max_slowdown" and bound.vs != "baseline":
                if self._trained(run):
                    raise Misuse(_NOT_COMPARED)
                other = self.bench.open(request, request.versus[bound.vs or ""], keep=run.spec)
                run.compare(other.engine, (bound,))
                found.append(run.verdicts[-1])
        return found

    def _trained(self, run: Run) -> bool:
        """Whether the run is of optimiser steps, which no generated workload can stand in for."""
        from pytest_qwen.engines import TRAINING

        return run.spec.engine == TRAINING

    def _baseline_for(self, item: pytest.Item) -> Measurement | None:
        """The stored run that a bound of the test compares with, None without such a bound."""
        if any(bound.vs == "baseline" for bound in self._request(item).bounds):
            return self.ledger.baseline_of(item.nodeid, self.bench.target)
        return None

    def _calibrate(self, item: pytest.Item, run: Run) -> None:
        """Repeat the test's rounds in fresh processes; judging waits for the table at the end."""
        measured = [run.fixed_rounds(_CALIBRATION_ROUNDS)]
        for _ in range(1, self.settings.calibrate):
            self.bench.evict()
            again = self.bench.open(self._request(item))
            again.answers, again.baseline = run.answers, run.baseline
            measured.append(again.fixed_rounds(_CALIBRATION_ROUNDS))
        self.ledger.calibrated(item.nodeid, self._request(item).bounds, measured)
        raise skipped("calibrated: no verdict, see the table at the end")

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
        from pytest_qwen.ledger import describe
        from pytest_qwen.records import to_json
        from pytest_qwen.reports.junit import user_properties

        runs: list[Run] = item.stash.get(_RUNS, [])
        found = [*item.stash.get(_STAR_VERDICTS, []), *item.stash.get(_COUNTED, [])]
        records = describe(
            nodeid=item.nodeid,
            outcome=report.outcome if report.when == "call" or report.skipped else "error",
            reason=first_line(report),
            request=None if isinstance(request, Misuse) else request,
            runs=runs,
            bench=self.bench,
            rated=self._rated_facts(item),
            star_verdicts=found,
            graded=item.stash[_ACCURACY].graded if _ACCURACY in item.stash else (),
            beside=item.stash.get(_BESIDE, None),
        )
        report.qwen_records = [to_json(record) for record in records]  # type: ignore[attr-defined]
        for record in records:
            item.user_properties.extend(user_properties(record))
        if _BESIDE in item.stash:
            item.user_properties.extend(_beside_properties(item.stash[_BESIDE]))
        if _RATINGS in item.stash:
            from pytest_qwen.reports.star_rows import star_properties

            item.user_properties.extend(
                star_properties([one.scorecard for one in item.stash[_RATINGS].rated])
            )
        report.user_properties = list(item.user_properties)

    def _rated_facts(self, item: pytest.Item) -> list[Mapping[str, Any]]:
        if _RATINGS not in item.stash:
            return []
        from pytest_qwen.grading import facts_of

        return facts_of(item.stash[_RATINGS].rated)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Gather records where the whole session's reports arrive."""
        found = getattr(report, "qwen_records", None)
        if found and not self.is_worker:
            self.ledger.add(found)

    # ---- fixtures

    @contextlib.contextmanager
    def running(self, item: pytest.Item) -> Iterator[Llm]:
        """The `llm` fixture: the test's model, leased."""
        with as_outcome(proving=self._proving(item)):
            run = self._open(item)
        yield _llm(run)

    @contextlib.contextmanager
    def loader(self, item: pytest.Item) -> Iterator[Callable[..., Llm]]:
        """The `load` fixture."""

        def load(model: str | None = None, *, check_fit: bool = True, **arguments: Any) -> Llm:
            overrides = {**_checked_model_arguments(arguments), **({"id": model} if model else {})}
            return _llm(self._open(item, overrides, check_fit=check_fit))

        yield load

    @contextlib.contextmanager
    def comparer(self, item: pytest.Item) -> Iterator[Callable[..., Comparison]]:
        """The `compare` fixture."""

        def compare(vs: Mapping[str, Any], **arguments: Any) -> Comparison:
            request = self._request(item)
            mine = self._open(item, _checked_model_arguments(arguments))
            if self.settings.replay:
                return mine.compare(mine.engine)  # as recorded: there is no other side to load
            if mine.baseline is not None:
                raise Misuse(_COMPARED_TWICE)
            other = self.bench.open(request, {**arguments, **_checked_model_arguments(vs)}, keep=mine.spec)
            return mine.compare(other.engine)

        yield compare

    def finetuner(self, item: pytest.Item) -> FineTune:
        """The `finetune` fixture."""
        from pytest_qwen.finetuning import FineTune

        request = self._request(item)
        with as_outcome(proving=self._proving(item)):
            return FineTune(
                lambda overrides: self._open(item, overrides),
                lambda overrides: None if self.settings.replay else self.bench.spec_for(request, overrides),
                available_bytes=None if self.settings.replay else self.bench.memory_bytes,
                alpha=self.settings.alpha,
            )

    def rate_of(self, item: pytest.Item) -> Rate:
        """The `rate` fixture. The sandbox is looked for at once: without one the body need not run."""
        from pytest_qwen.grading import live, replayed
        from pytest_qwen.stars import Rate

        request = self._request(item)
        with as_outcome(proving=self._proving(item)):
            if self.settings.replay:
                recorded = self.ledger.rated(item.nodeid)
                item.stash[_RATINGS] = replayed(recorded, item.nodeid, strict=self.settings.strict)
            else:
                self.grader.rater(request.answer.scenario)
                item.stash[_RATINGS] = live(self.grader)
        return Rate(item.stash[_RATINGS], request, item.path.parent)

    def accuracy_of(self, item: pytest.Item) -> Accuracy:
        """The `accuracy` fixture."""
        from pytest_qwen.accuracy import Accuracy, LiveGrading, RecordedGrading, check_sides

        grading: LiveGrading | RecordedGrading
        if self.settings.replay:
            # the run with what was loaded is in the record too, and is reported again
            recorded = self.ledger.graded(item.nodeid)
            grading = RecordedGrading(item.nodeid, recorded, lambda: self._opened(item))
        else:
            request = self._request(item)
            with as_outcome():
                check_sides(
                    request.counted,
                    lambda vs: self.bench.spec_for(request, request.versus[vs] if vs else None),
                )
            grading = LiveGrading(
                lambda: self._opened(item),
                lambda vs: self.bench.open(request, request.versus[vs]),
                lambda: self.grader.sandbox("guest-slim"),
            )
        made = Accuracy(grading, item.path.parent, alpha=self.settings.alpha)
        return item.stash.setdefault(_ACCURACY, made)

    def sandbox_of(self, item: pytest.Item) -> Sandbox:
        """The `sandbox` fixture."""
        with as_outcome(proving=self._proving(item)):
            return self.grader.sandbox()

    def published_of(self, item: pytest.Item) -> Published:
        """The `published` fixture."""
        from pytest_qwen.beside import Published

        with as_outcome():
            recorded = self.ledger.card_of(item.nodeid) if self.settings.replay else None
            target = self.bench.target
        card = recorded or (target.spec.alias if target.spec else target.label)
        return Published(card, self._beside(item).standings)

    def laws_of(self, item: pytest.Item) -> Laws:
        """The `law` fixture."""
        from pytest_qwen.beside import Laws

        return Laws(self._beside(item).laws)

    def _beside(self, item: pytest.Item) -> Beside:
        from pytest_qwen.beside import Beside

        return item.stash.setdefault(_BESIDE, Beside())

    def plan_of(self, item: pytest.Item) -> Plan:
        """The `plan` fixture."""
        from pytest_qwen.planning import plan_for

        with as_outcome():
            return plan_for(self._request(item), self.bench)

    def _opened(self, item: pytest.Item) -> Run:
        """The run of the test's own model, opened once; its engine may have been put away meanwhile."""
        runs = item.stash.get(_RUNS, [])
        if self.settings.replay:
            return runs[0] if runs else self._open(item)
        wanted = self.bench.spec_for(self._request(item))
        mine = next((place for place, run in enumerate(runs) if run.spec == wanted), None)
        if mine is None:
            return self._open(item)
        runs[mine].engine = self.bench.open(self._request(item)).engine
        return runs[mine]

    def _open(
        self, item: pytest.Item, overrides: Mapping[str, Any] | None = None, *, check_fit: bool = True
    ) -> Run:
        request = self._request(item)
        self._live.begin(item.nodeid, request.bounds)
        runs = item.stash.setdefault(_RUNS, [])
        if self.settings.replay:
            runs.append(self.ledger.replay(item.nodeid, request, len(runs)))
        else:
            runs.append(self.bench.open(request, overrides, check_fit=check_fit))
            runs[-1].baseline = self._baseline_for(item)
        return runs[-1]

    def _request(self, item: pytest.Item) -> RunRequest:
        from pytest_qwen.ask import RunRequest

        found = item.stash.get(REQUEST, None)
        return found if isinstance(found, RunRequest) else RunRequest()

    # ---- the end

    def pytest_report_header(self) -> str | None:
        """Shown only when an option of ours was used."""
        if not self.settings.given:
            return None
        used = ", ".join(f"{name.replace('_', '-')}={text}" for name, text in self.settings.given.items())
        where = "" if self.settings.replay or self.is_worker else f"; on {self.bench.target.label}"
        return f"qwen: {used}{where}"

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Give the devices back, write the files, and never call an empty gate green."""
        if "bench" in self.__dict__:
            self.bench.close()
        if "grader" in self.__dict__:
            self.grader.close()
        if self.is_worker or "ledger" not in self.__dict__:
            return
        self.ledger.finish("replay" if self.settings.replay else self.bench.target.label)
        if session.exitstatus == pytest.ExitCode.OK and self._gated_nothing():
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def _gated_nothing(self) -> bool:
        """Whether a named target's run had bounds to prove and proved none."""
        if self.settings.gpu == "auto" or self.settings.calibrate:
            return False
        return self._bounds_to_prove > 0 and self.ledger.verdicts_given == 0

    @property
    def _bounds_to_prove(self) -> int:
        """A named GPU answers for skipped tests too; on a CPU those that need a GPU skip by design."""
        skipped = self.ledger.bounds_skipped if self.settings.gpu.lower() == "cpu" else 0
        return self.ledger.bounds_asked - skipped

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """The table of verdicts, and where the files are."""
        if self.is_worker or "ledger" not in self.__dict__:
            return
        for title, text in self.ledger.sections(width=shutil.get_terminal_size().columns):
            terminalreporter.section(title)
            terminalreporter.write_line(text)
        if self._gated_nothing():
            terminalreporter.write_line(gate_text(self.settings.gpu, self._bounds_to_prove), red=True)

    # ---- talking

    def _say(self, text: str) -> None:
        """A line about what is waited for; a worker has no terminal of its own."""
        self._live.say(text)

    def _show(self, progress: Progress) -> None:
        self._live.show(progress)

    @cached_property
    def _live(self) -> Live:
        """The live line of long work."""
        from pytest_qwen.live import Live

        return Live(self.config, alpha=self.settings.alpha)


_COMPARED_TWICE = explain(
    "one test can be compared with one other side",
    asked="compare(...) in a test with max_slowdown(vs='baseline')",
    next_step="make two tests of it",
)

_NOT_COMPARED = explain(
    "a fine-tuning step is compared with another by two calls, not by max_slowdown(vs={...})",
    asked="max_slowdown(vs={...}) on a test that fine-tunes",
    next_step='a = finetune("lora"); b = finetune("qlora"); assert b.step_time_s < 2 * a.step_time_s',
)


def _beside_properties(beside: Beside) -> list[tuple[str, str | int | float]]:
    from pytest_qwen.reports.laws_ import law_properties
    from pytest_qwen.reports.published_ import standing_properties

    return [*standing_properties(beside.standings), *law_properties(beside.laws)]


def _llm(run: Run) -> Llm:
    from pytest_qwen.llm import Llm

    return Llm(run)


def _checked_model_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Model arguments given by call, checked as the mark's are. Raises Misuse."""
    from pytest_qwen.parsing import parse

    parse(pytest.mark.model(**arguments).mark)
    return dict(arguments)
