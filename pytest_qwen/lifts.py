"""The cheapest way to more stars: which failed checks, once passed, would lift a scorecard."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import combinations, product
from typing import Literal

from pytest_qwen.rubric import (
    FAILURES,
    MOST_STARS,
    Cap,
    Rubric,
    counted,
    gates_before,
    overall_of,
    stars_of_share,
    tamper_caps,
)
from pytest_qwen.scorecards import (
    CheckOutcome,
    CheckResult,
    Dimension,
    Profile,
    Scorecard,
)

Part = Dimension | Literal["overall"]

# Ways of choosing among the failed checks of one dimension; with more, the heaviest are tried first.
_MOST_CHOICES = 4000
# Failed gates that need not be passed for the stars' sake, of which every combination is tried.
_MOST_GATES = 6
# What a set of checks costs: first their number, then their weight; their rows as bits break ties.
_Cost = tuple[int, float, int]
_FREE: _Cost = (0, 0.0, 0)


def cheapest_lift(
    card: Scorecard,
    rubric: Rubric,
    target: int | None = None,
    *,
    profile: Profile = "run",
    part: Part = "overall",
) -> tuple[str, ...]:
    """The failed checks whose passing would give `target` stars, the next star without one.

    The fewest, and of those the lightest. A check behind a failed gate needs the gate as well. Empty where
    the stars are there already, where nothing measured can give them, and for what is unrated.
    """
    rating = card.rating(profile)
    now = rating.overall if part == "overall" else rating.stars[part]
    if now is None:
        return ()
    wanted = now + 1 if target is None else target
    if not now < wanted <= MOST_STARS:
        return ()
    search = _Search(card, rubric, profile, part)
    costs = [cost for gates in search.gate_sets(wanted) if (cost := search.cost(gates, wanted))]
    _, _, rows = min(costs, default=_FREE)
    return tuple(check for row, check in enumerate(search.failed) if rows >> row & 1)


class _Search:
    """The failed checks of one profile, the gates among them, and the caps that hold."""

    def __init__(self, card: Scorecard, rubric: Rubric, profile: Profile, part: Part) -> None:
        self.part, self.rubric, self.rating = part, rubric, card.rating(profile)
        self.checks = counted(card.checks, profile)
        self.failed = {one.id: one for one in self.checks if one.outcome in FAILURES}
        self.row = {check: 1 << row for row, check in enumerate(self.failed)}
        behind = {spec.id: spec.behind for spec in rubric.checks}
        self.before = {
            check: frozenset(gate for gate in gates_before(check, behind) if gate in self.failed)
            for check in self.failed
        }
        self.caps = [*tamper_caps(card.checks), *(cap for cap in rubric.caps if self._holds(cap, profile))]
        gates = {cap.lifter for cap in self.caps}.union(*self.before.values())
        self.gates = [check for check in self.failed if check in gates]
        self._known: dict[tuple[Dimension, frozenset[str], int], dict[int, _Cost]] = {}

    def _holds(self, cap: Cap, profile: Profile) -> bool:
        if isinstance(cap.when, str):
            return profile in cap.profiles and cap.when in self.failed
        return any(said.startswith(str(cap)) for said in self.rating.caps)

    def gate_sets(self, wanted: int) -> Iterator[frozenset[str]]:
        """Sets of failed gates to pass: those that hold the stars below what is wanted, and others or not."""
        held = [cap for cap in self.caps if self.part == (cap.dimension or "overall") and cap.most < wanted]
        needed = frozenset(cap.lifter for cap in held if cap.lifter in self.failed)
        needed = needed.union(*(self.before[gate] for gate in needed))
        others = [gate for gate in self.gates if gate not in needed][:_MOST_GATES]
        for count in range(len(others) + 1):
            for more in combinations(others, count):
                chosen = needed.union(more)
                if all(self.before[gate] <= chosen for gate in chosen):
                    yield chosen

    def cost(self, gates: frozenset[str], wanted: int) -> _Cost | None:
        """The least cost of the wanted stars when exactly these gates are passed, None when out of reach."""
        if self._most(self.part, gates) < wanted:
            return None
        base = _FREE
        for gate in gates:
            base = _both(base, (1, self.failed[gate].weight, self.row[gate]))
        if self.part != "overall":
            levels = self._levels(self.part, gates)
            return min((_both(base, cost) for stars, cost in levels.items() if stars >= wanted), default=None)
        sums = {0.0: base}
        for dimension, weight in self.rubric.dimension_weights.items():
            levels = self._levels(dimension, gates) if weight else {0: _FREE}
            more: dict[float, _Cost] = {}
            for (reached, so_far), (stars, cost) in product(sums.items(), levels.items()):
                total, both = round(reached + weight * stars, 9), _both(so_far, cost)
                more[total] = min(more.get(total, both), both)
            sums = more
        return min((cost for total, cost in sums.items() if overall_of(total) >= wanted), default=None)

    def _most(self, part: Part, gates: frozenset[str]) -> int:
        """What the caps leave of a part's stars when these gates are passed."""
        held = [cap for cap in self.caps if (cap.dimension or "overall") == part and cap.lifter not in gates]
        return min([cap.most for cap in held], default=MOST_STARS)

    def _levels(self, dimension: Dimension, gates: frozenset[str]) -> dict[int, _Cost]:
        """The least cost of every number of stars that a dimension can have when these gates are passed."""
        of = [one.id for one in self.checks if one.dimension == dimension and one.id in self.failed]
        matter = gates & frozenset(of).union(*(self.before[check] for check in of))
        key = (dimension, matter, self._most(dimension, gates))
        if key not in self._known:
            self._known[key] = self._counted_levels(*key)
        return self._known[key]

    def _counted_levels(self, dimension: Dimension, gates: frozenset[str], most: int) -> dict[int, _Cost]:
        checks = [one for one in self.checks if one.dimension == dimension]
        seen = [one for one in checks if one.outcome in (CheckOutcome.PASS, *FAILURES)]
        whole = sum(one.weight for one in seen)
        if not whole or self.rating.stars[dimension] is None:
            return {}
        earned = sum(one.weight * (1.0 if one.id in gates else one.share) for one in seen)
        alike: dict[tuple[float, float], list[CheckResult]] = {}
        for one in seen:
            blocked = one.id not in self.failed or one.id in self.gates or not self.before[one.id] <= gates
            if one.weight and not blocked:
                alike.setdefault((one.weight * (1 - one.share), one.weight), []).append(one)
        best: dict[int, _Cost] = {}
        for counts in _choices([len(group) for group in alike.values()], list(alike)):
            gain, cost = 0.0, _FREE
            for count, (of, weight), group in zip(counts, alike, alike.values(), strict=True):
                gain += count * of
                cost = _both(cost, (count, count * weight, sum(self.row[one.id] for one in group[:count])))
            stars = min(stars_of_share((earned + gain) / whole), most)
            best[stars] = min(best.get(stars, cost), cost)
        return best


def _both(one: _Cost, other: _Cost) -> _Cost:
    return one[0] + other[0], round(one[1] + other[1], 9), one[2] | other[2]


def _choices(sizes: Sequence[int], kinds: Sequence[tuple[float, float]]) -> Iterator[tuple[int, ...]]:
    """How many checks to take of each kind: every way, or where these are too many, ever more of the best."""
    if math.prod(size + 1 for size in sizes) <= _MOST_CHOICES:
        yield from product(*(range(size + 1) for size in sizes))
        return
    counts = [0] * len(sizes)
    yield tuple(counts)
    for kind in sorted(range(len(sizes)), key=lambda i: kinds[i], reverse=True):
        for _ in range(sizes[kind]):
            counts[kind] += 1
            yield tuple(counts)
