"""When the requests of an open loop are due, and room for as many connections as they may need."""

from __future__ import annotations

import random
import resource
from collections.abc import Iterator

from pytest_qwen.streams import Load


def arrivals(load: Load, seed: int) -> Iterator[int]:
    """Nanoseconds from one arrival of an open loop to the next, for ever."""
    draw = random.Random(f"{seed} arrivals")  # noqa: S311 - not cryptography
    while True:
        yield round(pause_s(load, draw) * 1e9)


def pause_s(load: Load, draw: random.Random) -> float:
    """Seconds until the next arrival of an open loop."""
    rate = load.request_rate or 1.0
    return draw.expovariate(rate) if load.arrival == "poisson" else 1 / rate


def allow_many_files() -> None:
    """Each stream is a file: use as many as the system lets this process have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
