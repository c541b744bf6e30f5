"""A session's means to rate answers: engine, image, stand-in and self-check, shared by its workers."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_qwen.bounds import Bound
from pytest_qwen.errors import Misuse, Unavailable, explain
from pytest_qwen.locks import DeviceLock, runtime_directory
from pytest_qwen.observations import Evidence
from pytest_qwen.quality_records import evidence_from_json, evidence_to_json, scorecard_to_json
from pytest_qwen.rating import Given, Rated, Rater, digest_of, read_answer, rescore, scenario_of
from pytest_qwen.sandbox.base import Sandbox
from pytest_qwen.scorecards import Scorecard
from pytest_qwen.settings import Settings
from pytest_qwen.star_verdicts import judge_stars
from pytest_qwen.verdicts import Verdict

if TYPE_CHECKING:
    from pytest_qwen.sandbox.container import ContainerSandbox

# What one answer takes at its widest: three servers that import torch at once, about 0.6 GB each.
_BYTES_A_SLOT = 2 << 30
# What a rubric's version stands for among the packages of the guest image.
_FROZEN = frozenset(
    {
        *("python", "fastapi", "starlette", "uvicorn", "pydantic", "python-multipart", "pillow"),
        *("torch", "transformers", "tf4/transformers", "ruff"),
    }
)
_SHARE_TIMEOUT_S = 900.0
_STALE_S = 24 * 3600.0


class Grader:
    """What rating needs, made when an answer is rated. `uid` is the same for all workers of a session."""

    def __init__(
        self,
        settings: Settings,
        *,
        uid: str | None,
        worker: str,
        say: Callable[[str], None] = lambda _text: None,
    ) -> None:
        self.settings = settings
        self._alone = uid is None
        self._uid = uid or secrets.token_hex(8)
        self._worker = worker
        self._say = say
        self._sandboxes: dict[str, ContainerSandbox] = {}
        self._versions: dict[str, Mapping[str, str]] = {}
        self._raters: dict[str, Rater] = {}

    @property
    def seed(self) -> int:
        """The session's seed: the one asked for, else one of its own that every worker finds alike."""
        return self.settings.seed or int.from_bytes(hashlib.sha256(self._uid.encode()).digest()[:4])

    def sandbox(self, kind: str = "guest") -> Sandbox:
        """The sandbox on that guest image. Raises Unavailable where there is no engine or no image."""
        if kind not in self._sandboxes:
            from pytest_qwen.sandbox import engines, image
            from pytest_qwen.sandbox.container import ContainerSandbox

            client = engines.connect(self.settings.sandbox)
            found = image.find(client, kind)
            made = ContainerSandbox(client, found, session=self._uid, worker=self._worker)
            made.sweep()
            self._sandboxes[kind] = made
            self._versions[kind] = image.versions(client, found)
        return self._sandboxes[kind]

    def rater(self, scenario: str | None) -> Rater:
        """The rater of a scenario, its self-check done. Raises Misuse, Unavailable, SelfCheckFailed."""
        asked = scenario_of(scenario)
        if asked.name not in self._raters:
            sandbox = self.sandbox(asked.image)
            versions = self._versions[asked.image]
            facts = sandbox.facts()
            names = ("docker", "podman", "runc", "crun")
            about = [f"{name} {facts[name]}" for name in names if name in facts]
            known = ", ".join([asked.name, *about])
            self._say(f"checking the sandbox with answers of known worth ({known})")
            if "warning" in facts:
                self._say(facts["warning"])
            rater = Rater(
                asked,
                sandbox,
                seed=self.seed,
                missing_imports=self.settings.missing_imports,
                strict=self.settings.strict,
                deep=self.settings.deep_probe,
                environment={name: text for name, text in versions.items() if name in _FROZEN},
                slot=_slot,
                share=self._share,
            )
            rater.self_check()
            self._raters[asked.name] = rater
        return self._raters[asked.name]

    def close(self) -> None:
        """Remove every container of this session; the last one out removes what its workers shared."""
        for sandbox in self._sandboxes.values():
            sandbox.close()
        if self._alone and self._raters:
            shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def _folder(self) -> Path:
        return runtime_directory() / f"session-{self._uid}"

    def _share(self, name: str, make: Callable[[], Any]) -> Any:
        """Computed by the first worker, read by the others. What raises is not kept: the next one tries."""
        _forget_stale(runtime_directory())
        self._make_folder()
        file = self._folder / f"{name}.json"
        lock = DeviceLock(name, directory=self._folder)
        lock.acquire(_SHARE_TIMEOUT_S)
        try:
            if file.exists():
                return json.loads(file.read_text(encoding="utf-8"))
            value = make()
            fresh = file.with_suffix(".tmp")
            with contextlib.suppress(OSError):  # a full disk: then every worker makes its own
                fresh.write_text(json.dumps(value), encoding="utf-8")
                fresh.replace(file)
            return value
        finally:
            lock.release()

    def _make_folder(self) -> None:
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise Unavailable(
                explain(
                    "the folder that the workers of a session share cannot be made",
                    asked=str(self._folder),
                    found=error.strerror or str(error),
                    next_step="make room there, or set XDG_RUNTIME_DIR to a directory that you may write to",
                )
            ) from error


class Ratings:
    """The answers that one test rated; `take` gives what came of each, run now or recorded."""

    def __init__(self, take: Callable[[Sequence[Given], str | None], Sequence[Rated]]) -> None:
        self._take = take
        self.rated: list[Rated] = []

    def add(self, answers: Sequence[Given], scenario: str | None) -> list[Scorecard]:
        """Rate them and keep what came of it."""
        found = self._take(answers, scenario)
        self.rated += found
        return [one.scorecard for one in found]

    def settle(self, bounds: Sequence[Bound], *, sample_stars: int) -> list[Verdict]:
        """Judge the bounds on stars. Raises Misuse when the body rated nothing, or too little."""
        if not bounds:
            return []
        for bound in bounds:
            least = int(bound.metric.partition("@")[2]) if bound.marker == "min_pass_at_k" else 1
            if len(self.rated) < least:
                raise Misuse(_too_few(bound, len(self.rated), least))
        cards = [one.scorecard for one in self.rated]
        rubrics = [scenario_of(card.scenario).rubric for card in cards]
        return [judge_stars(bound, cards, rubrics, sample_stars=sample_stars) for bound in bounds]


def live(grader: Grader) -> Ratings:
    """Ratings of answers that are run now."""

    def take(answers: Sequence[Given], scenario: str | None) -> Sequence[Rated]:
        rater = grader.rater(scenario)
        return rater.rate_all(answers)

    return Ratings(take)


def replayed(evidence: Sequence[Mapping[str, Any]], test: str, *, strict: bool) -> Ratings:
    """Ratings of a recorded test's evidence, scored again with the present rubric."""
    left = [evidence_from_json(one) for one in evidence]

    def recorded(answer: bytes | str, scenario: str) -> Evidence:
        digest = digest_of(answer)
        for number, one in enumerate(left):
            if (one.answer_sha256, one.scenario) == (digest, scenario):
                return left.pop(number)
        raise Misuse(
            explain(
                "this answer is not in the records that are judged again",
                asked=f"{test}: an answer with SHA-256 {digest[:12]}, scenario {scenario}",
                found=f"{len(evidence)} rated answer(s) of this test, {len(left)} not yet judged again",
                slip="the answer or the test was changed, renamed or not selected when the records were made",
                next_step="run it again with --qwen-report=DIR",
            )
        )

    def take(answers: Sequence[Given], scenario: str | None) -> Sequence[Rated]:
        name = scenario_of(scenario).name
        return [rescore(recorded(answer.text, name), strict=strict) for answer in answers]

    return Ratings(take)


def given(answer: object, folder: Path, label: str | None) -> Given:
    """What `rate` was given: text, bytes, a path or `llm.generate`'s answer. Raises Misuse for others."""
    if isinstance(answer, Path):
        return Given(text=read_answer(folder / answer), label=answer.stem if label is None else label)
    text = getattr(answer, "text", answer)
    if isinstance(text, str | bytes):
        cut = (
            getattr(answer, "output_tokens", None)
            if getattr(answer, "finish_reason", "") == "length"
            else None
        )
        return Given(text=text, label="answer" if label is None else label, cut_at=cut)
    raise Misuse(
        explain(
            "rate() takes an answer",
            asked=f"rate({type(answer).__name__})",
            slip="the answer of llm.generate() is rated as it is: rate(llm.generate(PROMPT))",
            choices=[
                "text",
                "bytes",
                "pathlib.Path",
                "an answer of llm.generate()",
                "nothing, with @answer(path)",
            ],
        )
    )


def _too_few(bound: Bound, found: int, least: int) -> str:
    return explain(
        "a bound on stars was set, but too few answers were rated",
        asked=str(bound),
        found=f"{found} rated answer(s), at least {least} needed",
        slip="the test body lacks a call",
        choices=["rate(llm.generate(PROMPT))", "rate()  with @answer(path)", "rate.all(answers)"],
    )


@contextlib.contextmanager
def _slot() -> Iterator[None]:
    """One of the machine's places for a trial; waits for one."""
    locks = [DeviceLock(f"sandbox-slot-{number}") for number in range(_slots())]
    while True:
        for lock in locks:
            with contextlib.suppress(Unavailable):
                lock.acquire(0.0)
            if lock.held:
                try:
                    yield
                finally:
                    lock.release()
                return
        time.sleep(0.1)


def _slots() -> int:
    """As many trials at once as there are cores, and memory for."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(os.cpu_count() or 1, memory // _BYTES_A_SLOT))


def _forget_stale(folder: Path) -> None:
    """Remove what sessions left that were killed long ago."""
    for old in folder.glob("session-*"):
        with contextlib.suppress(OSError):
            if time.time() - old.stat().st_mtime > _STALE_S:
                shutil.rmtree(old, ignore_errors=True)


def facts_of(rated: Sequence[Rated]) -> list[Mapping[str, Any]]:
    """Evidence and scorecard of each answer as plain data, for the test's record."""
    return [
        {"evidence": evidence_to_json(one.evidence), "scorecard": scorecard_to_json(one.scorecard)}
        for one in rated
    ]
