"""From an answer to its scorecard: extraction, analysis, execution, scoring. Knows no pytest."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from pytest_qwen.analysis import analyse
from pytest_qwen.errors import Misuse, QwenError, closest, explain
from pytest_qwen.extraction import extract
from pytest_qwen.observations import Evidence
from pytest_qwen.programs import Program
from pytest_qwen.rubric import score
from pytest_qwen.sandbox.base import Sandbox, SandboxFault
from pytest_qwen.scenarios import SCENARIOS
from pytest_qwen.scenarios.base import MissingImports, Scenario, Seen, Trial
from pytest_qwen.scorecards import CheckOutcome, Scorecard

_Item = TypeVar("_Item")


class SelfCheckFailed(QwenError):
    """The sandbox gives the known-good answer too few stars, or the known-bad one too many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rated:
    """One rated answer: what was observed, and the stars that follow from it."""

    evidence: Evidence
    scorecard: Scorecard


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """An answer to rate: its text, the name that reports show, and the token limit of ours that cut it."""

    text: str | bytes
    label: str
    cut_at: int | None = None


def scenario_of(name: str | None) -> Scenario:
    """The scenario of that name, the first one for None. Raises Misuse for a name that is none."""
    if name is None:
        return next(iter(SCENARIOS.values()))()
    if name not in SCENARIOS:
        meant = closest(name, SCENARIOS)
        raise Misuse(
            explain(
                f"there is no scenario {name!r}",
                asked=f"scenario={name!r}",
                slip=f"did you mean {meant!r}?" if meant else None,
                next_step="a conftest.py can add its own with the hook pytest_qwen_register_scenarios",
                choices=SCENARIOS,
            )
        )
    return SCENARIOS[name]()


def digest_of(answer: str | bytes) -> str:
    """The SHA-256 of an answer, by which its evidence is found again."""
    raw = answer if isinstance(answer, bytes) else answer.encode("utf-8", "surrogatepass")
    return hashlib.sha256(raw).hexdigest()


def rescore(evidence: Evidence, *, strict: bool = False) -> Rated:
    """Score stored evidence with the present rubric of its scenario; runs nothing."""
    rubric = scenario_of(evidence.scenario).rubric
    return Rated(evidence=evidence, scorecard=score(evidence, rubric, strict=strict))


class Rater:
    """Rates answers of one scenario in one session.

    `sandbox` gives a place to run things, `slot` is entered while an answer is run, so that parallel workers
    do not crowd the machine. `share` computes something once for all workers of a session.
    """

    def __init__(
        self,
        scenario: Scenario,
        sandbox: Sandbox,
        *,
        seed: int,
        missing_imports: MissingImports = "unrated",
        strict: bool = False,
        deep: bool = False,
        environment: Mapping[str, str] | None = None,
        slot: Callable[[], AbstractContextManager[None]] = nullcontext,
        share: Callable[[str, Callable[[], Any]], Any] = lambda _name, make: make(),
    ) -> None:
        self.scenario = scenario
        self._sandbox = sandbox
        self._seed = seed
        self._missing_imports: MissingImports = missing_imports
        self._strict = strict
        self._deep = deep
        self._environment = dict(environment or {})
        self._slot = slot
        self._share = share
        self._material: Any = None
        self._checked = False

    def self_check(self) -> None:
        """Rate the known-good and the known-bad answer once, before the first sample counts.

        Raises SelfCheckFailed when the sandbox cannot tell them apart, SandboxFault when it breaks down.
        """
        if self._checked:
            return
        scenario = self.scenario
        packed = self._share(f"{scenario.name}-material", self._prepare)
        self._material = scenario.unpack(packed)
        problems = self._share(f"{scenario.name}-self-check", self._rate_references)
        if problems:
            raise SelfCheckFailed(
                explain(
                    f"sandbox self-check failed: nothing can be rated ({scenario.name})",
                    asked="the known-good answer correct in every check, and few stars for the known-bad one",
                    found="; ".join(problems),
                    slip="the machine is too slow or too full, or the guest image is not the recipe's",
                    next_step="pytest-qwen sandbox check",
                )
            )
        self._checked = True

    def rate(self, answer: str | bytes, *, label: str = "answer", cut_at: int | None = None) -> Rated:
        """Run one answer and score it. `cut_at` is the token limit of ours that cut it, if one did.

        A breakdown of the sandbox does not raise: it is evidence, and the scorecard is unrated.
        """
        self.self_check()
        evidence = self._observe(answer, label)
        if cut_at is not None:
            note = f"the answer was cut by the limit of {cut_at} tokens that the test set"
            evidence = replace(evidence, facts={**evidence.facts, "cut": note})
        return self._scored(evidence)

    def rate_all(self, answers: Sequence[Given]) -> list[Rated]:
        """Rate several answers, as many at once as the machine has room for."""
        self.self_check()
        return self._at_once(lambda one: self.rate(one.text, label=one.label, cut_at=one.cut_at), answers)

    def _at_once(self, work: Callable[[_Item], Rated], items: Sequence[_Item]) -> list[Rated]:
        with ThreadPoolExecutor(max(1, min(len(items), 16))) as pool:
            try:
                return list(pool.map(work, items))
            except KeyboardInterrupt:  # what the threads wait for ends with its container
                self._sandbox.close()
                raise

    def _prepare(self) -> Any:
        return self.scenario.pack(self.scenario.prepare(self._sandbox, self._seed))

    def _rate_references(self) -> list[str]:
        """What is wrong with this sandbox, found by rating answers of known worth; empty for nothing."""
        known = [("known-good", self.scenario.good), ("known-bad", self.scenario.bad)]
        good, bad = self._at_once(
            lambda pair: self._scored(self._observe(pair[1].read_bytes(), pair[0], brief=True)), known
        )
        for rated in (good, bad):
            if rated.evidence.infra_errors:
                raise SandboxFault(rated.evidence.infra_errors[0])
        problems = [
            f"known-good: {check.id} {check.evidence}"
            for check in good.scorecard.checks
            if check.dimension == "correctness" and check.outcome != CheckOutcome.PASS
        ]
        stars = bad.scorecard.rating().stars["correctness"]
        if stars is None or stars > self.scenario.bad_most_stars:
            most = self.scenario.bad_most_stars
            problems.append(f"known-bad: {stars} stars for correctness, at most {most} were expected")
        return problems

    def _observe(self, answer: str | bytes, label: str, *, brief: bool = False) -> Evidence:
        program = extract(answer, entry=self.scenario.entry)
        seen, source, started = Seen(), {}, time.monotonic()
        if isinstance(program, Program):
            with self._slot():
                started = time.monotonic()
                try:
                    source = analyse(self._sandbox, program, model_ids=self.scenario.model_ids)
                    seen.timings_s["analysis"] = time.monotonic() - started
                    if source["parse"]["ok"]:  # what does not parse cannot start
                        self.scenario.observe(self._trial(program, source, brief=brief), seen)
                except SandboxFault as fault:
                    seen.infra_errors.append(str(fault))
        return Evidence(
            scenario=self.scenario.name,
            answer=label,
            answer_sha256=digest_of(answer),
            program=program,
            source=source,
            servers=seen.servers,
            exchanges=seen.exchanges,
            facts=seen.facts,
            infra_errors=tuple(dict.fromkeys(seen.infra_errors)),
            seed=self._seed,
            environment=self._environment,
            timings_s={**seen.timings_s, "all": time.monotonic() - started},
        )

    def _trial(self, program: Program, source: Mapping[str, Any], *, brief: bool) -> Trial:
        return Trial(
            sandbox=self._sandbox,
            program=program,
            source=source,
            material=self._material,
            seed=self._seed,
            missing_imports=self._missing_imports,
            brief=brief,
            deep=self._deep and not brief,
        )

    def _scored(self, evidence: Evidence) -> Rated:
        return Rated(evidence=evidence, scorecard=score(evidence, self.scenario.rubric, strict=self._strict))


def read_answer(path: Path) -> bytes:
    """A recorded answer. Raises Misuse when the file cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        near = (
            closest(path.name, [other.name for other in path.parent.glob("*")])
            if path.parent.is_dir()
            else None
        )
        raise Misuse(
            explain(
                "the recorded answer cannot be read",
                asked=str(path),
                found=error.strerror or str(error),
                slip=f"did you mean {near!r}?"
                if near
                else "the path counts from the folder of the test's file",
            )
        ) from error
