"""Verdicts on shares of right answers: of one model, and of the drop against another on equal questions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from pytest_qwen.bounds import Bound
from pytest_qwen.correctness import Graded, discordant
from pytest_qwen.outcomes import NoVerdict, Outcome
from pytest_qwen.paired import drop_interval, items_to_decide, share_interval
from pytest_qwen.verdicts import Verdict


def judge_share(bound: Bound, graded: Graded, *, alpha: float) -> Verdict:
    """PASS when the lower end of the exact interval meets the limit, FAIL when the upper one misses it.

    `alpha` is the error rate of either side.
    """
    share = graded.value

    def interval(n: int) -> tuple[float, float]:
        return share_interval(round(share * n), n, alpha=alpha)

    low, high = interval(graded.n)
    outcome = Outcome.PASS if bound.limit <= low else Outcome.FAIL if high < bound.limit else None
    said = f"{graded.right} of {graded.n} right"
    return _verdict(bound, graded, outcome, share, interval, said, alpha)


def judge_drop(bound: Bound, reference: Graded, changed: Graded, *, alpha: float) -> Verdict:
    """PASS when the upper end of the drop's interval is within the limit, FAIL when the lower one is above.

    Both sides answered the same questions; only those that one of them got right tell of a drop. Raises
    ValueError when they did not.
    """
    lost, gained, n = discordant(reference, changed)

    def interval(count: int) -> tuple[float, float]:
        first = round(lost / n * count)
        return drop_interval(first, min(round(gained / n * count), count - first), count, alpha=alpha)

    low, high = interval(n)
    outcome = Outcome.PASS if high <= bound.limit else Outcome.FAIL if bound.limit < low else None
    said = (
        f"{reference.right} of {n} right with {bound.vs}, here {changed.right}: {lost} lost, {gained} gained"
    )
    return _verdict(bound, changed, outcome, (lost - gained) / n, interval, said, alpha)


def _verdict(
    bound: Bound,
    graded: Graded,
    decided: Outcome | None,
    estimate: float,
    interval: Callable[[int], tuple[float, float]],
    said: str,
    alpha: float,
) -> Verdict:
    """The verdict on one task: a bound on every task of a test becomes one on this one."""
    mine = replace(bound, metric=graded.task)
    outcome = decided or Outcome.NO_VERDICT
    low, high = interval(graded.n)
    text = f"{outcome} {mine}: {said}; {estimate:.3f} [{low:.3f}, {high:.3f}] at {1 - alpha:.0%} confidence"
    if decided is None:
        needed = items_to_decide(graded.n, interval, bound.limit)
        more = f"about {needed} would be enough" if needed else "no number would be: it is at the limit"
        text = f"{text}; {NoVerdict.TOO_FEW_QUESTIONS}: {more}{_all(graded)}"
    return Verdict(
        bound=mine,
        outcome=outcome,
        reason="" if decided else NoVerdict.TOO_FEW_QUESTIONS,
        estimate=estimate,
        low=low,
        high=high,
        n=graded.n,
        ceiling=None,
        explanation=text,
    )


def _all(graded: Graded) -> str:
    """That no more can be asked, where the whole data set was."""
    return f"; {graded.task} has no more than these {graded.of}" if graded.n == graded.of else ""
