"""The `accuracy` fixture: questions put to a model and graded; answers that are programs run in a sandbox."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from pytest_qwen.accuracy_verdicts import judge_drop, judge_share
from pytest_qwen.bounds import Bound
from pytest_qwen.correctness import Graded, Item
from pytest_qwen.engines.base import LoadSpec
from pytest_qwen.errors import Misuse, Unavailable, explain
from pytest_qwen.harness import Asked, Sample, Tasks
from pytest_qwen.run import Run
from pytest_qwen.sandbox.base import Job, Limits, Sandbox, SandboxFault
from pytest_qwen.verdicts import Verdict

DROP = "max_accuracy_drop"
# HumanEval's own harness gives a program 3 s; containers share cores.
_PROGRAM_S = 20.0
_STARTING_S = 60.0
_AT_ONCE = 4
_LEAST_CODE, _CODES = 64, 60


class Grading(Protocol):
    """Where grades come from: a loaded model, or a record."""

    def own(self, asked: Asked) -> Graded:
        """The test's own model on a task."""

    def other(self, asked: Asked, vs: str) -> Graded:
        """The other side of a `max_accuracy_drop` on the same questions."""


class Accuracy:
    """The `accuracy` fixture. `own` and `others` keep what was graded, in order."""

    def __init__(self, grading: Grading, folder: Path, *, alpha: float) -> None:
        self._grading = grading
        self._folder = folder
        self._alpha = alpha
        self._asked: list[Asked] = []
        self.own: list[Graded] = []
        self.others: list[Graded] = []

    def __call__(
        self,
        task: str,
        *,
        limit: int | None = None,
        shots: int | None = None,
        metric: str | None = None,
        seed: int = 0,
    ) -> Graded:
        """Put a task's questions to the test's model and grade the answers.

        `task` is mmlu, gsm8k, ceval, humaneval, mbpp, one of the small ones that come along, any other task
        of lm-evaluation-harness, or the path of a task's YAML file, counted from the test's folder. `limit`
        questions are drawn from all of them with `seed`. `shots` examples stand before each, the task's own
        number for None. `metric` is the figure that says what is right, "exact_match,flexible-extract" with
        its filter. Decoding is greedy. Raises Misuse, Unavailable and the engine's errors.
        """
        for name, value, least in (("limit", limit, 1), ("shots", shots, 0), ("seed", seed, 0)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
                raise Misuse(
                    explain(
                        f"accuracy(): {name} is not a whole number from {least} up", asked=f"{name}={value!r}"
                    )
                )
        asked = Asked(task=str(task), limit=limit, shots=shots, metric=metric, seed=seed, folder=self._folder)
        graded = replace(self._grading.own(asked), alpha=self._alpha)
        self._asked.append(asked)
        self.own.append(graded)
        return graded

    @property
    def graded(self) -> Sequence[Graded]:
        """Everything that was graded, for the record."""
        return (*self.own, *self.others)

    def settle(self, bounds: Sequence[Bound]) -> list[Verdict]:
        """Judge the bounds, each on every task that it speaks of. Raises Misuse when there is none."""
        found = []
        for bound in bounds:
            chosen = [place for place, one in enumerate(self.own) if bound.metric in ("", one.task)]
            if not chosen:
                raise Misuse(_not_evaluated(bound, self.own))
            found += [self._judge(bound, place) for place in chosen]
        return found

    def _judge(self, bound: Bound, place: int) -> Verdict:
        mine = self.own[place]
        if bound.marker != DROP:
            return judge_share(bound, mine, alpha=self._alpha)
        other = replace(self._grading.other(self._asked[place], bound.vs or ""), alpha=self._alpha)
        self.others.append(other)
        return judge_drop(bound, other, mine, alpha=self._alpha)


class LiveGrading:
    """Grades of models that are loaded now.

    `open_own` gives the test's run; `open_other` loads the other side of a bound in its place and gives its
    run; `sandbox` gives what programs run in. Tasks are read before a model is loaded, once for both sides.
    """

    def __init__(
        self,
        open_own: Callable[[], Run],
        open_other: Callable[[str], Run],
        sandbox: Callable[[], Sandbox],
    ) -> None:
        self._open_own, self._open_other, self._sandbox = open_own, open_other, sandbox
        self._tasks: dict[Asked, Tasks] = {}

    def own(self, asked: Asked) -> Graded:
        """The test's own model on a task."""
        if asked not in self._tasks:
            self._tasks[asked] = Tasks(asked)
        if self._tasks[asked].runs_code:
            self._sandbox()  # without one the answers need not be generated
        return self._graded(asked, self._open_own(), "")

    def other(self, asked: Asked, vs: str) -> Graded:
        """The same questions on the other side."""
        return self._graded(asked, self._open_other(vs), vs)

    def _graded(self, asked: Asked, run: Run, side: str) -> Graded:
        tasks = self._tasks[asked]
        samples = tasks.ask(run.engine, run.loaded.config)
        rights = _rights(samples, self._sandbox)
        names = ("task", "number", "digest", "answer")
        items = (
            Item(right=right, **{name: getattr(sample, name) for name in names})
            for sample, right in zip(samples, rights, strict=True)
        )
        return Graded(
            task=asked.task,
            metric=samples[0].metric,
            of=tasks.of,
            items=tuple(items),
            asked=asked.facts(),
            side=side,
        )


class RecordedGrading:
    """Grades as a record has them, to be judged again."""

    def __init__(self, test: str, recorded: Sequence[Graded], open_own: Callable[[], Run]) -> None:
        self._test = test
        self._open_own = open_own
        self._left = list(recorded)

    def own(self, asked: Asked) -> Graded:
        """As recorded of the test's own model."""
        self._open_own()
        return self._take(asked, "")

    def other(self, asked: Asked, vs: str) -> Graded:
        """As recorded of the other side."""
        return self._take(asked, vs)

    def _take(self, asked: Asked, side: str) -> Graded:
        for number, one in enumerate(self._left):
            if one.side == side and dict(one.asked) == asked.facts():
                return self._left.pop(number)
        raise Misuse(
            explain(
                "these answers are not in the records that are judged again",
                asked=f"{self._test}: accuracy({asked.task!r}){f' with {side}' if side else ''}",
                found=", ".join(f"{one.task} {one.side}".strip() for one in self._left) or "none",
                slip="the test was changed, renamed or not selected when the records were made",
                next_step="run it again with --qwen-report=DIR",
            )
        )


def check_sides(bounds: Sequence[Bound], spec_of: Callable[[str | None], LoadSpec]) -> None:
    """Raises Misuse for a drop against what the test's own model is already; `spec_of(vs)` is a side."""
    own = spec_of(None)
    for bound in bounds:
        if bound.vs is not None and spec_of(bound.vs) == own:
            raise Misuse(
                explain(
                    f"marker {DROP!r}: both sides are the same",
                    asked=f"vs={bound.vs!r}",
                    found=f"{own.model} in {own.quantization or own.dtype} on both",
                    next_step="give the test's model another precision, or name another one with vs=",
                )
            )


def run_program(sandbox: Sandbox, program: str) -> bool:
    """Whether a program with its tests runs to its end, in a container of its own.

    Its last line ends it with an exit status drawn for it alone: a program that ends earlier, whatever it
    says, has not passed. Raises SandboxFault when the sandbox breaks down, never for what is inside.
    """
    status = _LEAST_CODE + secrets.randbelow(_CODES)
    text = f"{program}\n\nimport os as _os\n_os._exit({status})\n"
    job = Job(
        argv=("python3", "-I", "program.py"),
        files={"program.py": text.encode("utf-8", "backslashreplace")},
        limits=Limits(lifetime_s=_PROGRAM_S),
        role="guest",
    )
    return sandbox.run(job, timeout_s=_PROGRAM_S + _STARTING_S, most_bytes=1 << 20).exit_code == status


def _rights(samples: Sequence[Sample], sandbox: Callable[[], Sandbox]) -> list[bool]:
    """Whether each sample is right; programs among them are run, a few at once."""
    programs = [sample.program for sample in samples if sample.program is not None]
    if not programs:
        return [bool(sample.right) for sample in samples]
    place = sandbox()
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        try:
            ended = iter(list(pool.map(lambda program: run_program(place, program), programs)))
        except SandboxFault as fault:
            raise Unavailable(
                explain(
                    "the sandbox broke down while answers were run: nothing is known of them",
                    found=str(fault),
                    next_step="pytest-qwen sandbox check",
                )
            ) from fault
    return [bool(sample.right) if sample.program is None else next(ended) for sample in samples]


def _not_evaluated(bound: Bound, own: Sequence[Graded]) -> str:
    return explain(
        "a bound on accuracy was set, but its task was not evaluated",
        asked=str(bound),
        found=", ".join(one.task for one in own) or "the test evaluated nothing",
        slip="the test body lacks a call",
        choices=[f"accuracy({bound.metric or 'mmlu'!r}, limit=200)"],
    )
