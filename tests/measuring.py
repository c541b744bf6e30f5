"""What the tests of measuring, judging and runs share: a fake engine in this process, a world around it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from pytest_qwen.engines.base import Request, Trace
from pytest_qwen.evidence import Measurement, Round, Window
from pytest_qwen.measure import Observer, Progress, to_round
from pytest_qwen.metrics import RoundContext
from pytest_qwen.testing import FakeEngine, ManualClock, fake_spec

ROUND = Request(prompt_tokens=64, output_tokens=11, ignore_eos=True)


def fake_run(**programme: Any) -> Callable[..., Trace]:
    """The `run` of a loaded fake engine."""
    engine = FakeEngine()
    engine.load(fake_spec(**programme))
    return engine.run


def windows(*violations: Sequence[str]) -> Callable[[], Any]:
    """A watch whose windows have these violations one after the other, and none from then on."""
    left = list(violations)

    @contextmanager
    def watch() -> Iterator[SimpleNamespace]:
        handle = SimpleNamespace(window=None)
        yield handle
        handle.window = Window(seconds=0.1, violations=tuple(left.pop(0)) if left else ())

    return watch


def observer(
    watch: Callable[[], Any] | None = None,
    *,
    clock: Callable[[], float] | None = None,
    context: RoundContext | None = None,
    seen: list[Progress] | None = None,
) -> Observer:
    """An observer of nothing in particular."""
    return Observer(
        watch=watch or windows(),
        clock_s=clock or ManualClock(),
        context=lambda _request, _trace: context or RoundContext(),
        on_progress=lambda progress: seen.append(progress) if seen is not None else None,
    )


def rounds_of(
    run: Callable[..., Trace], count: int, *, request: Request = ROUND, violations: Sequence[str] = ()
) -> tuple[Round, ...]:
    """`count` timed rounds without any warm-up."""
    window = Window(seconds=0.1, violations=tuple(violations))
    return tuple(
        to_round(request, run(request), window, RoundContext(), index, "round") for index in range(count)
    )


def measurement(
    count: int = 20, *, violations: Sequence[str] = (), stopped: str = "decided", **programme: Any
) -> Measurement:
    """A measurement of so many rounds of a fake engine."""
    return Measurement(rounds=rounds_of(fake_run(**programme), count, violations=violations), stopped=stopped)
