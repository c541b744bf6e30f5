"""The live line: what it says, when it writes, and that it leaves nothing behind."""

from __future__ import annotations

import io

import pytest
from record_samples import a_round, bound

from pytest_qwen.measure import Progress
from pytest_qwen.progress import LiveLine, State, format_line, state_of
from pytest_qwen.testing import ManualClock

FULL = State(
    test="suites/performance/test_speed.py::test_decode[7b]",
    phase="round",
    count=5,
    elapsed_s=12.3,
    unit="tok/s",
    estimate=205.25,
    low=201.0,
    high=float("inf"),
    n=4,
    least_s=3.2,
    left_s=107.7,
)


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True

    @property
    def screen(self) -> str:
        """What is to be seen of the line."""
        shown: list[str] = []
        column = 0
        for char in self.getvalue():
            if char == "\r":
                column = 0
                continue
            shown[column : column + 1] = [char]
            column += 1
        return "".join(shown).rstrip()


def test_the_line_says_it_all() -> None:
    name, _, rest = format_line(FULL, width=200).partition(": ")
    assert name == FULL.test
    assert rest == "round 5, 205.2 tok/s [201, ∞] n=4, 12 s, 3 to 108 s left"
    assert format_line(State(test="t", phase="loading", elapsed_s=8.0), width=80) == "t: loading, 8 s"
    warming = State(test="t", phase="warmup", count=2, elapsed_s=1.0, left_s=119.0)
    assert format_line(warming, width=80) == "t: warm-up 2, 1 s, at most 119 s left"


@pytest.mark.parametrize("width", [10, 40, 79, 100])
@pytest.mark.parametrize("unicode", [True, False])
def test_the_line_fits_and_the_name_gives_way(width: int, unicode: bool) -> None:
    line = format_line(FULL, width=width, unicode=unicode)
    assert len(line) <= width
    assert line.isascii() or unicode
    if width >= 79:
        assert "205.2" in line
        assert "left" in line


def line(stream: io.StringIO, clock: ManualClock, *, quiet: bool = False) -> LiveLine:
    return LiveLine(stream, clock=clock, width=lambda: 80, quiet=quiet)


def test_it_rewrites_one_line_and_clears_it() -> None:
    stream, clock = Terminal(), ManualClock()
    live = line(stream, clock)
    live.show(FULL)
    clock.sleep(1)
    live.show(State(test="short", phase="loading"))
    assert stream.screen == "short: loading, 0 s"
    live.clear()
    assert stream.screen == ""
    assert stream.getvalue().endswith("\r")
    assert "\n" not in stream.getvalue()
    length = len(stream.getvalue())
    live.clear()
    assert len(stream.getvalue()) == length


def test_it_writes_at_most_five_times_a_second() -> None:
    stream, clock = Terminal(), ManualClock()
    live, asked = line(stream, clock), []

    def state() -> State:
        asked.append(clock.now_s)
        return FULL

    for _ in range(100):
        live.show(state)
        clock.sleep(0.02)
    assert 8 <= len(asked) <= 10
    live.clear()
    live.show(state)  # the first line after clearing is not held back
    assert asked[-1] == clock.now_s


def test_it_is_silent_where_nobody_looks() -> None:
    for stream, quiet in ((io.StringIO(), False), (Terminal(), True)):
        live = line(stream, ManualClock(), quiet=quiet)
        live.show(lambda: pytest.fail("nothing should be computed"))
        live.clear()
        assert stream.getvalue() == ""


def test_the_state_follows_the_first_undecided_bound() -> None:
    rounds = [a_round(0, kind="warmup"), *(a_round(i, 5.0 + i / 1000) for i in range(1, 4))]
    progress = Progress(phase="round", rounds=rounds, elapsed_s=20.0, budget_s=120.0)
    near = bound("max_tpot", 5.003, "p95")
    found = state_of(progress, test="t", bounds=(bound("max_load_time", 1.0), near), alpha=0.01)
    assert (found.phase, found.count, found.n, found.unit, found.left_s) == ("round", 4, 3, "ms", 100.0)
    assert found.estimate is not None
    assert 5.0 < found.estimate < 5.01
    assert found.least_s is not None
    assert found.least_s > 0
    assert state_of(progress, test="t").estimate is None
    over = Progress(phase="warmup", rounds=[], elapsed_s=130.0, budget_s=120.0)
    assert state_of(over, test="t", bounds=(near,)).left_s == 0.0
