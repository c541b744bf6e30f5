"""How often the verdict on a percentile under load is wrong at the bound, by simulation with the fake engine.

Run `python benchmarks/load_verdicts.py [--sessions 400]`; prints markdown. A session is a load on the fake
engine for 60 slices of 20 requests; its p95 of TTFT is judged after every slice until the first verdict. The
bound is the true p95 of all requests, so that a verdict is wrong whichever way it goes, and every slice's own
p95 scatters around it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from pytest_qwen.bounds import Bound
from pytest_qwen.deciding import decide
from pytest_qwen.engines.base import Request
from pytest_qwen.evidence import Round
from pytest_qwen.measure import to_round
from pytest_qwen.metrics import RoundContext
from pytest_qwen.statistics import FEWEST_ROUNDS, percentile
from pytest_qwen.streams import Load
from pytest_qwen.testing import FakeEngine, fake_spec

SLICES, REQUESTS, ALPHA, FRACTION = 60, 20, 0.01, 0.95
TRUTH_SESSIONS = 150
TTFT = Bound(marker="max_ttft", metric="ttft_ms", direction="at most", limit=0.0, unit="ms", stat="p95")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One kind of load, and how the fake engine serves it."""

    load: Load
    programme: tuple[tuple[str, Any], ...]


USERS = Load(concurrency=10, slice_requests=REQUESTS)
ARRIVALS = Load(request_rate=20.0, slice_requests=REQUESTS)
CASES = {
    "requests differ, CV 30 %": Case(load=USERS, programme=(("request_jitter", ("iid", 0.3)),)),
    "requests differ, CV 5 %": Case(load=USERS, programme=(("request_jitter", ("iid", 0.05)),)),
    "and slices follow each other, AR(1) 0.6": Case(
        load=USERS,
        programme=(("request_jitter", ("iid", 0.3)), ("jitter", ("ar1", 0.6, 0.03))),
    ),
    "and the server slows down by 5 %": Case(
        load=USERS,
        programme=(("request_jitter", ("iid", 0.3)), ("jitter", ("drift", 0.05, SLICES, 0.01))),
    ),
    "one request in twenty is slow": Case(load=USERS, programme=(("request_jitter", ("outliers", 0.1)),)),
    "arrivals queue for 3 places": Case(
        load=ARRIVALS, programme=(("request_jitter", ("iid", 0.3)), ("most_at_once", 3))
    ),
}


def slices_of(case: Case, seed: int) -> tuple[Round, ...]:
    """The slices of one session."""
    engine = FakeEngine()
    engine.load(fake_spec(seed=seed, itl_ms=20.0, text="a", **dict(case.programme)))
    request = Request(prompt_tokens=8, output_tokens=2, ignore_eos=True, load=case.load, seed=seed)
    return tuple(
        to_round(request, engine.run(request), None, RoundContext(), index, "round")
        for index in range(SLICES)
    )


@cache
def truth_ms(name: str) -> float:
    """The p95 of all requests of many other sessions."""
    sessions = (slices_of(CASES[name], 10**6 + seed) for seed in range(TRUTH_SESSIONS))
    seen = [stream.ttft_ms for rounds in sessions for one in rounds for stream in one.streams]
    return percentile([value for value in seen if value is not None], FRACTION)


def verdict_of(rounds: Sequence[Round], limit: float, *, alpha: float = ALPHA) -> tuple[str, int]:
    """The first verdict of a session, looked for after every slice, and the slices that it took."""
    bound = replace(TTFT, limit=limit)
    for n in range(FEWEST_ROUNDS, len(rounds) + 1):
        side = decide(bound, rounds[:n], alpha=alpha).side
        if side != "unsure":
            return side, n
    return "unsure", len(rounds)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sessions", type=int, default=400)
    sessions = parser.parse_args().sessions
    print(f"alpha {ALPHA}, {sessions} sessions of {SLICES} slices of {REQUESTS} requests, bound at the p95\n")
    print("| load | wrong PASS | wrong FAIL | PASS at 1.2 x | slices | FAIL at / 1.2 | slices |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, case in CASES.items():
        limit, runs = truth_ms(name), [slices_of(case, seed) for seed in range(sessions)]
        cells = []
        for factor, wanted in ((1.0, "meets"), (1.0, "misses"), (1.2, "meets"), (1 / 1.2, "misses")):
            found = [verdict_of(rounds, limit * factor) for rounds in runs]
            hits = sorted(n for side, n in found if side == wanted)
            cells.append(f"{len(hits) / sessions:.2%}")
            cells += [str(hits[len(hits) // 2]) if hits else "-"] if factor != 1.0 else []
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
