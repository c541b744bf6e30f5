"""The plan of a test before anything is loaded: does it fit, how fast can it be, can its bounds be met."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Protocol, get_args

from pytest_qwen.bounds import Bound
from pytest_qwen.physics import (
    Ceiling,
    Fit,
    Setup,
    best_possible,
    ceiling,
    fit,
    price_of,
    refusal,
    system_tokens_per_sec,
    usd_per_mtok,
)

if TYPE_CHECKING:
    from pytest_qwen.ask import RunRequest
    from pytest_qwen.markers import Workload

Outlook = Literal["feasible", "tight", "impossible", "unknown"]

# Well-tuned engines were measured to reach 68-82 % of the bandwidth ceiling at batch 1 on an H200; a bound
# beyond four fifths of the best possible value is possible, but no engine at hand was seen to meet it.
REACHED = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What can be said of one test without loading anything.

    `fit`, `ceiling` and `usd_per_mtok` (at the ceiling's rate) are None where unknown. `reasons` say what
    makes it impossible, tight or unknown.
    """

    test: str
    subject: str
    outlook: Outlook
    reasons: tuple[str, ...] = ()
    fit: Fit | None = None
    ceiling: Ceiling | None = None
    usd_per_mtok: float | None = None

    @property
    def fits(self) -> bool | None:
        """Whether the estimate fits the card's memory; None where it is unknown."""
        return None if self.fit is None else self.fit.fits

    @property
    def line(self) -> str:
        """The plan in one line: outlook, test, subject, ceiling, memory, cost, first reason."""
        parts = [self.subject]
        if self.ceiling is not None:
            parts.append(f"at most {self.ceiling.tokens_per_sec:.1f} tok/s")
        if self.fit is not None:
            parts.append(f"{self.fit.total_bytes / 1e9:.1f} of {self.fit.available_bytes / 1e9:.1f} GB")
        if self.usd_per_mtok is not None:
            parts.append(f"at least {self.usd_per_mtok:.2f} USD/Mtok")
        parts += [reason.splitlines()[0] for reason in self.reasons[:1]]
        return f"{self.outlook:<10}  {self.test}: {'; '.join(parts)}"

    def explain(self) -> str:
        """The plan in full: the line, the memory item by item, the ceiling's arithmetic, every reason."""
        text = [self.line]
        if self.fit is not None:
            text.append(self.fit.explain("memory of one card"))
        if self.ceiling is not None:
            text.append(f"ceiling: {self.ceiling.arithmetic}")
        return "\n".join([*text, *self.reasons])


class Planner(Protocol):
    """What knows how a test's request looks on this run's card."""

    def setup_for(self, request: RunRequest) -> Setup | None:
        """The request's set-up; None on a CPU, an unknown card or a model whose shape is not known."""


def plan(
    setup: Setup | None,
    bounds: Sequence[Bound] = (),
    *,
    test: str = "",
    price_per_hour_usd: float | None = None,
    certain: Setup | None = None,
) -> Plan:
    """The plan of one test. `price_per_hour_usd` is for all cards; the catalogue's price when None.

    `certain` is the set-up that bounds are refused on (see `promised`); `setup` itself when None.

    impossible: the weights exceed the card's memory, or physics forbids a bound. tight: the estimate needs
    more than 90 % of the memory, or a bound is beyond 80 % of the best possible value. unknown: the card, the
    model's shape or the size of a number format is.
    """
    if setup is None:
        return Plan(test=test, subject="model or card unknown", outlook="unknown")
    memory, top = fit(setup), ceiling(setup)
    price = price_of(setup, price_per_hour_usd)
    outlook, reasons = _outlook(certain or setup, memory, bounds, price)
    return Plan(
        test=test,
        subject=setup.label,
        outlook=outlook,
        reasons=reasons,
        fit=memory,
        ceiling=top,
        usd_per_mtok=usd_per_mtok(price, system_tokens_per_sec(setup, top))
        if top and price is not None
        else None,
    )


def _outlook(
    setup: Setup, memory: Fit | None, bounds: Sequence[Bound], price: float | None
) -> tuple[Outlook, tuple[str, ...]]:
    refusals = [refusal(bound, setup, price_per_hour_usd=price) for bound in bounds]
    against = [text for text in refusals if text]
    if memory is not None and memory.hopeless:
        against.insert(0, "the weights alone exceed the memory of the card")
    if against:
        return "impossible", tuple(against)
    if memory is None:
        return "unknown", ("the card's memory or the size of a number format is not known",)
    hard = [f"{b} is beyond {REACHED:.0%} of what is possible" for b in bounds if _hard(b, setup, price)]
    if memory.tight or not memory.fits:
        share = memory.total_bytes / memory.available_bytes
        hard.insert(0, f"{share:.0%} of the memory by the estimate")
    return ("tight", tuple(hard)) if hard else ("feasible", ())


def _hard(bound: Bound, setup: Setup, price: float | None) -> bool:
    """Whether a bound asks for more than engines were seen to reach; memory is not a matter of speed."""
    best = best_possible(bound, setup, price)
    if best is None or bound.metric == "vram_gb":
        return False
    return not bound.met_by(best * REACHED if bound.direction == "at least" else best / REACHED)


def promised(setup: Setup, workload: Workload) -> Setup:
    """The set-up with no more work than the marks promise, for refusals.

    A body may ask for a shorter prompt or answer than the default workload: where the mark leaves a length
    open, one token is all that is certain. Of a load it is the shortest request, and of its prompt what no
    prefix cache can hold.
    """
    prompt = (workload.prompt_tokens or 1) - (workload.shared_prefix_tokens or 0)
    if (workload.turns or 1) > 1:
        prompt = 1
    return replace(
        setup,
        prompt_tokens=_shortest(prompt, workload.prompt_spread, workload.spread),
        output_tokens=_shortest(workload.output_tokens or 1, workload.output_spread, workload.spread),
    )


def _shortest(mean: int, spread: float | None, kind: str | None) -> int:
    """The shortest length that a load may ask for; a log-normal one has no least."""
    if not spread:
        return max(mean, 1)
    return 1 if kind == "lognormal" else max(1, math.floor(mean * (1 - spread)))


def plan_for(request: RunRequest, planner: Planner, *, test: str = "") -> Plan:
    """The plan of a test's marks on the card that this run is for."""
    setup = planner.setup_for(request)
    return plan(
        setup,
        request.bounds,
        test=test,
        price_per_hour_usd=request.price_per_hour_usd,
        certain=None if setup is None else promised(setup, request.workload),
    )


def render(plans: Iterable[Plan]) -> str:
    """One line a test, and a count of each outlook."""
    listed = list(plans)
    counts = Counter(p.outlook for p in listed)
    total = ", ".join(f"{counts[name]} {name}" for name in get_args(Outlook) if counts[name])
    return "\n".join([*(p.line for p in listed), f"{len(listed)} planned: {total or 'nothing'}"])
