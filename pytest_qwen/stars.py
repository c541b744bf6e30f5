"""The object that tests hold to rate answers: the `rate` fixture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pytest_qwen.ask import RunRequest
from pytest_qwen.errors import Misuse, explain
from pytest_qwen.grading import Ratings, given
from pytest_qwen.scorecards import Scorecard


class Rate:
    """The `rate` fixture: `rate(answer)` runs an answer in the sandbox and gives its scorecard.

    `rate()` rates the recorded answer of the test's `answer` mark. Stars are judged when the test ends, by
    its `min_stars` and `min_pass_at_k`.
    """

    def __init__(self, ratings: Ratings, request: RunRequest, folder: Path) -> None:
        self._ratings = ratings
        self._request = request
        self._folder = folder

    def __call__(
        self, answer: object = None, *, scenario: str | None = None, label: str | None = None
    ) -> Scorecard:
        """Rate one answer: text, bytes, a path, or what `llm.generate` gave."""
        return self.all([answer], scenario=scenario, labels=[label] if label else ())[0]

    def all(
        self, answers: Sequence[object], *, scenario: str | None = None, labels: Sequence[str] = ()
    ) -> list[Scorecard]:
        """Rate several answers, as many at once as the machine has room for."""
        mark = self._request.answer
        taken = []
        for number, one in enumerate(answers, start=len(self._ratings.rated) + 1):
            answer = self._recorded() if one is None else one
            index = number - len(self._ratings.rated) - 1
            default = None if isinstance(answer, Path) else f"answer {number}"
            taken.append(given(answer, self._folder, labels[index] if index < len(labels) else default))
        return self._ratings.add(taken, scenario or mark.scenario)

    def _recorded(self) -> Path:
        if self._request.answer.path is None:
            raise Misuse(
                explain(
                    "rate() without an answer rates the recorded one, and the test has none",
                    asked="rate()",
                    slip="the mark is missing: @answer('answers/one.md')",
                    choices=["rate(answer)", "@answer(path) on the test and rate()"],
                )
            )
        return Path(self._request.answer.path)
