"""What rating an answer costs: in containers against plain processes, in parallel, and again from evidence.

Run `python benchmarks/rating_cost.py --packages FOLDER [--pairs 7] [--at-once 1 2 4]` as root, with a
container engine and the guest image; prints markdown. FOLDER holds what the image holds, so that both sides
import the same: `pip install --target FOLDER -r fixtures/sandbox/requirements.txt`. The two sides rate the
same answer in turn, A B B A, after one self-check each, which also warms the disk's cache; seconds from
answer to scorecard, by the wall clock.

With `--repeats K` every answer is rated K times in containers and nothing is timed: the scorecards without
their timings have to be the same bytes. Ends with 1 where they are not.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from bare import BareSandbox

from pytest_qwen.grading import Grader
from pytest_qwen.observations import Evidence
from pytest_qwen.quality_records import evidence_from_json, evidence_to_json, fingerprint
from pytest_qwen.rating import Given, Rated, Rater, rescore, scenario_of
from pytest_qwen.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
MOST_RATIO = 1.25
MOST_RESCORE_MS = 50.0
RESCORES = 50
Timed = tuple[float, Evidence]


def timed(rater: Rater, answer: Path) -> Timed:
    """Seconds from answer to scorecard, and what was seen on the way."""
    text = answer.read_bytes()
    started = time.perf_counter()
    rated = rater.rate(text, label=answer.stem)
    took = time.perf_counter() - started
    checked(rated)
    return took, rated.evidence


def checked(rated: Rated) -> None:
    """A breakdown is quick, and no price of anything."""
    if rated.scorecard.stars is None:
        raise SystemExit(f"{rated.scorecard.answer} is unrated: {rated.scorecard.rating().unrated}")


def in_turn(bare: Rater, contained: Rater, answer: Path, pairs: int) -> list[tuple[Timed, Timed]]:
    """(bare, contained) of each pair, in the order A B B A."""
    found = []
    for number in range(pairs):
        if number % 2 == 0:
            a, b = timed(bare, answer), timed(contained, answer)
        else:
            b, a = timed(contained, answer), timed(bare, answer)
        found.append((a, b))
    return found


def cost(found: Sequence[tuple[Timed, Timed]]) -> None:
    bare, contained = ([pair[side][0] for pair in found] for side in (0, 1))
    ratios = [b / a for a, b in zip(bare, contained, strict=True)]
    print("| | median, s | least to most, s |\n| --- | --- | --- |")
    for title, times in (("plain processes", bare), ("containers", contained)):
        print(f"| {title} | {median(times):.2f} | {min(times):.2f} to {max(times):.2f} |")
    print(
        f"\nRatio of medians {median(contained) / median(bare):.3f} (of pairs {min(ratios):.3f} to "
        f"{max(ratios):.3f}), {len(found)} pairs. Wanted: at most {MOST_RATIO}.\n"
    )


def shares(found: Sequence[tuple[Timed, Timed]]) -> None:
    """Where the time goes, part after part."""
    print("| of that | plain processes, s | share | containers, s | share |\n| --- | --- | --- | --- | --- |")
    parts = [[parts_of(*pair[side]) for pair in found] for side in (0, 1)]
    wholes = [median(pair[side][0] for pair in found) for side in (0, 1)]
    for title in parts[0][0]:
        seconds = [median(one[title] for one in side) for side in parts]
        cells = (f"{s:.2f} | {s / whole:.0%}" for s, whole in zip(seconds, wholes, strict=True))
        print(f"| {title} | {' | '.join(cells)} |")
    print()


def parts_of(took: float, evidence: Evidence) -> dict[str, float]:
    """Seconds of each part; the other starts of the program run beside the first one, and some longer."""
    reading = evidence.timings_s["analysis"]
    imports = evidence.servers["main"].ready_s or 0.0
    asking = max(0.0, evidence.timings_s["main"] - imports)
    return {
        "reading the program's text": reading,
        "starting it: its imports and its model, to the first answer": imports,
        "asking the first start, its end": asking,
        "the other starts when the first is over, extraction, scoring": took - reading - imports - asking,
    }


def together(rater: Rater, answer: Path, numbers: Sequence[int]) -> None:
    """Throughput of answers rated at once; the session's own limit of places for them holds here too."""
    print("| answers at once | s for all | answers a minute | against the first row |")
    print("| --- | --- | --- | --- |")
    first = 0.0
    for number in numbers:
        given = [Given(text=answer.read_bytes(), label=f"{answer.stem} {i}") for i in range(number)]
        started = time.perf_counter()
        for rated in rater.rate_all(given):
            checked(rated)
        took = time.perf_counter() - started
        rate = 60 * number / took
        first = first or rate
        print(f"| {number} | {took:.2f} | {rate:.2f} | {rate / first:.2f}x |")
    print()


def again(evidence: Evidence) -> None:
    """Scoring what was seen once more, from the object and from its stored form."""
    stored = evidence_to_json(evidence)
    takes: dict[str, Callable[[], Evidence]] = {
        "evidence": lambda: evidence,
        "evidence read from its JSON data": lambda: evidence_from_json(stored),
    }
    print("| scoring again | median, ms | most, ms |\n| --- | --- | --- |")
    for title, take in takes.items():
        times = []
        for _ in range(RESCORES):
            started = time.perf_counter()
            rescore(take())
            times.append((time.perf_counter() - started) * 1000)
        print(f"| {title} | {median(times):.2f} | {max(times):.2f} |")
    print(f"\n{RESCORES} times each. Wanted: at most {MOST_RESCORE_MS:g} ms.")


def repeat(rater: Rater, answers: Sequence[Path], repeats: int) -> bool:
    """Whether every answer got the same scorecard each time."""
    print("| answer | ratings | different scorecards | stars | checks that differ |")
    print("| --- | --- | --- | --- | --- |")
    same = True
    for answer in answers:
        cards = [rater.rate(answer.read_bytes(), label=answer.stem).scorecard for _ in range(repeats)]
        prints = {fingerprint(card) for card in cards}
        same = same and len(prints) == 1
        stars = ", ".join(sorted({str(card.stars) for card in cards}))
        seen = [{(check.id, str(check.outcome), check.evidence) for check in card.checks} for card in cards]
        differ = sorted({name for one in seen for name, _, _ in one ^ seen[0]})
        print(
            f"| {answer.stem} | {repeats} | {len(prints)} | {stars} | {', '.join(differ) or '-'} |",
            flush=True,
        )
    return same


def compare(given: argparse.Namespace, grader: Grader, contained: Rater) -> None:
    sandbox = BareSandbox(str(given.packages.resolve()))
    try:
        bare = Rater(scenario_of(given.scenario), sandbox, seed=grader.seed)
        bare.self_check()
        answer = given.answers[0]
        found = in_turn(bare, contained, answer, given.pairs)
        print(f"Answer: {answer.name}, scenario {given.scenario}\n")
        cost(found)
        shares(found)
        together(contained, answer, given.at_once)
        again(found[0][1][1])
    finally:
        sandbox.close()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--packages", type=Path, metavar="FOLDER")
    parser.add_argument("--scenario", default="fastapi-vit")
    parser.add_argument(
        "--answers", type=Path, nargs="+", default=[ROOT / "fixtures/answers/reference/good.md"]
    )
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--at-once", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--repeats", type=int)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--engine", default="auto", help="as --qwen-sandbox")
    given = parser.parse_args()
    if not given.repeats and (given.packages is None or os.getuid()):
        parser.error(
            "comparing needs --packages FOLDER and root, who can give each process a network of its own"
        )
    grader = Grader(Settings(sandbox=given.engine, seed=given.seed), uid=None, worker="benchmark")
    try:
        facts = grader.sandbox(scenario_of(given.scenario).image).facts()
        where = ", ".join(f"{name} {text}" for name, text in facts.items())
        print(f"{os.cpu_count()} CPUs, Python {platform.python_version()}; {where}\n")
        contained = grader.rater(given.scenario)
        if given.repeats:
            return 0 if repeat(contained, given.answers, given.repeats) else 1
        compare(given, grader, contained)
        return 0
    finally:
        grader.close()


if __name__ == "__main__":
    sys.exit(main())
