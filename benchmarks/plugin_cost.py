"""What loading the plugin costs a session that does not use it: start-up, and collecting plain tests.

Run `python benchmarks/plugin_cost.py [--starts 25] [--collections 9]`; prints markdown. The two sides run in
turn, A B B A, in fresh processes: pytest with `-p no:qwen`, and pytest as installed. Other plugins of the
environment are off on both sides. Wall times of whole processes.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median, quantiles

OTHERS = ("xdist", "xdist.looponfail", "hypothesispytest", "benchmark", "pytest_cov", "anyio")
SIDES = {"without": ("-p", "no:qwen"), "with": ()}
MOST_START_MS = 50.0
MOST_COLLECT_RATIO = 1.05


def seconds(folder: Path, arguments: Sequence[str]) -> float:
    """One pytest process, start to end."""
    others = [word for name in OTHERS for word in ("-p", f"no:{name}")]
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *others, *arguments],
        cwd=folder,
        capture_output=True,
        check=False,
    )
    elapsed = time.perf_counter() - started
    if done.returncode not in (0, 5):  # 5: no tests
        raise RuntimeError(done.stdout.decode() + done.stderr.decode())
    return elapsed


def in_turn(folder: Path, rounds: int, arguments: Sequence[str]) -> dict[str, list[float]]:
    """Both sides as often as asked, in the order A B B A, after one of each that does not count."""
    found: dict[str, list[float]] = {side: [] for side in SIDES}
    for number in range(-1, rounds):
        for side in list(SIDES)[:: 1 if number % 2 == 0 else -1]:
            took = seconds(folder, [*SIDES[side], *arguments])
            if number >= 0:
                found[side].append(took)
    return found


def row(title: str, found: dict[str, list[float]]) -> str:
    cells = []
    for side in SIDES:
        low, _, high = quantiles(found[side], n=4)
        cells.append(f"{median(found[side]) * 1000:.0f} [{low * 1000:.0f}, {high * 1000:.0f}]")
    pairs = [b - a for a, b in zip(found["without"], found["with"], strict=True)]
    ratio = median(b / a for a, b in zip(found["without"], found["with"], strict=True))
    return f"| {title} | {' | '.join(cells)} | {median(pairs) * 1000:+.1f} | {ratio:.3f} | {len(pairs)} |"


def write_tests(folder: Path, files: int, per_file: int) -> None:
    for number in range(files):
        tests = "\n".join(f"def test_{n}(): pass" for n in range(per_file))
        (folder / f"test_plain_{number}.py").write_text(tests)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--starts", type=int, default=25)
    parser.add_argument("--collections", type=int, default=9)
    given = parser.parse_args()
    cpus, load = os.cpu_count(), os.getloadavg()[0]
    print(f"Python {platform.python_version()}, {platform.platform()}, {cpus} CPUs, load {load:.1f}\n")
    print("| what | without, ms | with, ms | added, ms | ratio | pairs |")
    print("| --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as name:
        print(row("start of an empty session", in_turn(Path(name), given.starts, [])))
    with tempfile.TemporaryDirectory() as name:
        write_tests(Path(name), files=100, per_file=100)
        found = in_turn(Path(name), given.collections, ["--collect-only", "-qq"])
        print(row("collecting 10,000 plain tests", found))
    print(
        f"\nMedians with quartiles; 'added' and 'ratio' are medians over neighbouring pairs. "
        f"Wanted: at most {MOST_START_MS:.0f} ms added to a start, a ratio of at most "
        f"{MOST_COLLECT_RATIO} for collecting."
    )


if __name__ == "__main__":
    main()
