"""What a model got right: one entry a question, and the share of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pytest_qwen.paired import share_interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One question of a task, and whether it was answered right.

    `number` is its place in the task's data set, `digest` the beginning of the SHA-256 of its content: equal
    digests are equal questions. `answer` is the beginning of what was generated, "" where choices were
    compared.
    """

    task: str
    number: int
    digest: str
    right: bool
    answer: str = ""

    @property
    def key(self) -> tuple[str, int, str]:
        """What makes two items the same question."""
        return self.task, self.number, self.digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Graded:
    """One model's answers to the questions of a task, graded.

    `task` is the name that was asked for, `asked` everything that chose questions and grading, `metric` what
    says that an answer is right, `of` how many questions the data set has. `side` is "" for the test's own
    model, and the `vs` of a `max_accuracy_drop` for the other one. `alpha` is the error rate of each end of
    `interval`.
    """

    task: str
    metric: str
    of: int
    items: tuple[Item, ...]
    asked: Mapping[str, Any] = field(default_factory=dict)
    side: str = ""
    alpha: float = 0.01

    @property
    def n(self) -> int:
        """How many questions were answered."""
        return len(self.items)

    @property
    def right(self) -> int:
        """How many answers were right."""
        return sum(item.right for item in self.items)

    @property
    def value(self) -> float:
        """The share of right answers, 0-1."""
        return self.right / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """What the share may be for questions of this kind; each end errs at most at rate `alpha`."""
        return share_interval(self.right, self.n, alpha=self.alpha)

    def __str__(self) -> str:
        low, high = self.interval
        share = f"{self.value:.1%} [{low:.1%}, {high:.1%}] at {1 - self.alpha:.0%} confidence"
        return f"{self.task}: {self.right} of {self.n} right, {share}"


def discordant(reference: Graded, changed: Graded) -> tuple[int, int, int]:
    """Questions that only the reference got right, that only the other did, and that both were asked.

    Pairs by content. Raises ValueError when the two were not asked the same questions.
    """
    before = {item.key: item.right for item in reference.items}
    after = {item.key: item.right for item in changed.items}
    if before.keys() != after.keys():
        raise ValueError(f"{len(before.keys() ^ after.keys())} questions were asked of one side only")
    lost = sum(right and not after[key] for key, right in before.items())
    gained = sum(after[key] and not right for key, right in before.items())
    return lost, gained, len(before)
