"""How often a verdict is wrong at the bound, and what a verdict costs, by simulation with the fake engine.

Run `python benchmarks/verdicts.py [--sessions 10000]`; prints markdown. A session is a fake engine whose TPOT
carries one noise model for 200 rounds. It is judged by `sequential_test` after every round until the first
verdict, as a measurement would be.

The first table sets the bound at the true value: the median (or 95th percentile) over all rounds of the noise
model. A verdict is wrong there whichever way it goes. Verdicts are monotone in the limit, so a bound on the
wrong side of the true value cannot do worse. The second table moves the bound away.
"""

from __future__ import annotations

import argparse
import math
import platform
import time
from bisect import bisect_right, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import islice
from multiprocessing import Pool

import numpy as np

from pytest_qwen.engines.base import Request
from pytest_qwen.evalues import log_evidence
from pytest_qwen.guards import allowance_of
from pytest_qwen.noise import factors
from pytest_qwen.statistics import FEWEST_ROUNDS, interval, sequential_test
from pytest_qwen.testing import FakeEngine, fake_spec

ROUNDS = 200
ALPHA = 0.01
ITL_MS = 20.0
TRUTH_SESSIONS = 2000
DISTANCES = (-0.5, -0.2, -0.1, -0.05, -0.02, -0.01, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
STATISTICS = {"median": 0.5, "p95": 0.95}

PROMISED = {
    "iid": ("iid", 0.03),
    "AR(1) 0.3": ("ar1", 0.3, 0.03),
    "AR(1) 0.6": ("ar1", 0.6, 0.03),
    "AR(1) 0.9": ("ar1", 0.9, 0.03),
    "drift +5 %": ("drift", 0.05, ROUNDS, 0.03),
    "drift −5 %": ("drift", -0.05, ROUNDS, 0.03),
    "step +5 % half-way": ("step", 0.05, ROUNDS // 2, 0.03),
    "step −5 % half-way": ("step", -0.05, ROUNDS // 2, 0.03),
    "outliers": ("outliers", 0.05, 0.03),
    "bursts of 5": ("bursts", 0.05, 5, 0.03),
}
HARDER = {
    "AR(1) 0.9, CV 10 %": ("ar1", 0.9, 0.1),
    "drift +10 %": ("drift", 0.1, ROUNDS, 0.03),
    "drift +5 %, CV 0.3 %": ("drift", 0.05, ROUNDS, 0.003),
    "step +5 % at a quarter": ("step", 0.05, ROUNDS // 4, 0.03),
    "step +5 % at a quarter, CV 0.3 %": ("step", 0.05, ROUNDS // 4, 0.003),
}
Jitter = tuple[str | float, ...]


def tpot_ms(jitter: Jitter, seed: int) -> Iterator[float]:
    """TPOT of one round after the other, as the fake engine reports it."""
    engine = FakeEngine()
    engine.load(fake_spec(itl_ms=ITL_MS, jitter=jitter, seed=seed, text="a"))
    request = Request(prompt_tokens=8, output_tokens=2, ignore_eos=True)
    while True:
        first, second = engine.run(request).token_ns
        yield (second - first) / 1e6


@cache
def truths_ms(jitter: Jitter) -> dict[str, float]:
    """Each statistic's true value: the quantile of TPOT over all rounds of many sessions."""
    name, *numbers = jitter
    drawn = [
        factor
        for seed in range(TRUTH_SESSIONS)
        for factor in islice(factors(str(name), *map(float, numbers), seed=10**9 + seed), ROUNDS)
    ]
    return {name: float(np.quantile(drawn, fraction)) * ITL_MS for name, fraction in STATISTICS.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class First:
    """The first verdict of a session and the round it came with; `ROUNDS` without one."""

    side: str
    rounds: int


def at_the_bound(jitter: Jitter, limits: Sequence[float], seed: int) -> list[First]:
    """The first verdict on each statistic's limit."""
    values = list(islice(tpot_ms(jitter, seed), ROUNDS))
    return [
        first_verdict(values, limit, fraction)
        for limit, fraction in zip(limits, STATISTICS.values(), strict=True)
    ]


def first_verdict(values: Sequence[float], limit: float, fraction: float) -> First:
    """By `sequential_test` after every round at which a verdict is possible at all.

    No verdict comes unless the plain evidence reaches 1/alpha even with the limit moved by the allowance for
    unseen drift. Leaving out the looks at which it does not saves most of the time and changes nothing.
    """
    ordered: list[float] = []
    for n, value in enumerate(values, start=1):
        insort(ordered, value)
        moved = math.exp(allowance_of(n))
        met, missed = bisect_right(ordered, limit / moved), n - bisect_right(ordered, limit * moved)
        plain = max(log_evidence(met, n, fraction), log_evidence(missed, n, 1 - fraction))
        if n < FEWEST_ROUNDS or plain < -math.log(ALPHA):
            continue
        side = sequential_test(values[:n], limit, "at most", fraction=fraction, alpha=ALPHA).side
        if side != "unsure":
            return First(side=side, rounds=n)
    return First(side="unsure", rounds=ROUNDS)


def away_from_it(jitter: Jitter, limits: Sequence[float], fraction: float, seed: int) -> list[First]:
    """The first verdict on each limit; `interval` is what `sequential_test` is unsure about."""
    values = list(islice(tpot_ms(jitter, seed), ROUNDS))
    found: dict[float, First] = {}
    for n in range(FEWEST_ROUNDS, ROUNDS + 1):
        low, high = interval(values[:n], fraction=fraction, direction="at most", alpha=ALPHA)
        for limit in limits:
            if limit not in found and (limit >= high or limit < low):
                found[limit] = First(side="meets" if limit >= high else "misses", rounds=n)
        if len(found) == len(limits):
            break
    return [found.get(limit, First(side="unsure", rounds=ROUNDS)) for limit in limits]


def print_error_rates(pool: Pool, models: dict[str, Jitter], sessions: int) -> None:  # type: ignore[valid-type]
    print("| noise | median: false pass | false fail | p95: false pass | false fail | seconds |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, jitter in models.items():
        started = time.monotonic()
        limits = list(truths_ms(jitter).values())
        seen = pool.map(partial(at_the_bound, jitter, limits), range(sessions), chunksize=25)
        rates = [
            f"{sum(firsts[which].side == side for firsts in seen) / sessions:.2%}"
            for which in range(len(STATISTICS))
            for side in ("meets", "misses")
        ]
        print(f"| {name} | {' | '.join(rates)} | {time.monotonic() - started:.0f} |", flush=True)


def print_costs(pool: Pool, models: dict[str, Jitter], sessions: int, statistic: str) -> None:  # type: ignore[valid-type]
    print(f"| noise ({statistic}) | {' | '.join(f'{distance:+.0%}' for distance in DISTANCES)} | wrong |")
    print("| --- " * (len(DISTANCES) + 2) + "|")
    fraction = STATISTICS[statistic]
    for name, jitter in models.items():
        limits = [truths_ms(jitter)[statistic] * (1 + distance) for distance in DISTANCES]
        seen = pool.map(partial(away_from_it, jitter, limits, fraction), range(sessions), chunksize=5)
        cells, worst = [], 0.0
        for which, distance in enumerate(DISTANCES):
            firsts = [session[which] for session in seen]
            right, wrong = ("meets", "misses") if distance > 0 else ("misses", "meets")
            worst = max(worst, sum(first.side == wrong for first in firsts) / sessions)
            decided = sum(first.side == right for first in firsts)
            cost = np.median([first.rounds if first.side == right else math.inf for first in firsts])
            cells.append(f"{cost:.0f}" if cost <= ROUNDS else f"({decided / sessions:.0%})")
        print(f"| {name} | {' | '.join(cells)} | {worst:.1%} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sessions", type=int, default=10_000, help="per noise model, at the bound")
    parser.add_argument("--cost-sessions", type=int, default=100, help="per noise model, away from it")
    parser.add_argument("--processes", type=int, default=2)
    asked = parser.parse_args()
    started = time.monotonic()
    print(f"{platform.python_implementation()} {platform.python_version()}, {asked.processes} processes")
    with Pool(asked.processes) as pool:
        print(f"\n## At the bound: {asked.sessions} sessions a row, {ROUNDS} rounds, alpha {ALPHA}\n")
        print_error_rates(pool, PROMISED, asked.sessions)
        harder = asked.sessions // 5
        print(f"\n## At the bound, harder noise than promised: {harder} sessions a row\n")
        print_error_rates(pool, HARDER, harder)
        for statistic in STATISTICS:
            print(f"\n## Median rounds to the verdict, {statistic}: {asked.cost_sessions} sessions a row\n")
            print("In brackets, where fewer than half of the sessions got there: the share that did.\n")
            print_costs(pool, PROMISED, asked.cost_sessions, statistic)
    print(f"\n{time.monotonic() - started:.0f} s in all")


if __name__ == "__main__":
    main()
