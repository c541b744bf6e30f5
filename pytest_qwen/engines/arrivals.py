"""When the requests of an open loop are due, and room for as many connections as they may need."""

from __future__ import annotations

import random
import resource
from collections.abc import Iterator

from pytest_qwen.streams import Load


def arrivals(load: Load, seed: int) -> Iterator[int]:
    """Nanoseconds from one arrival of an open loop to the next, for ever."""
    draw = random.Random(f"{seed} arrivals")  # noqa: S311 - not cryptography
    rate = load.request_rate or 1.0
    while True:
        yield round((draw.expovariate(rate) if load.arrival == "poisson" else 1 / rate) * 1e9)


def allow_many_files() -> None:
    """Each stream is a file: use as many as the system lets this process have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
