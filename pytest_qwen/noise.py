"""Seeded noise of repeated rounds: endless multiplicative factors around 1, one a round."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator

from pytest_qwen.errors import Misuse, closest, explain


def factors(model: str, *numbers: float, seed: int = 0) -> Iterator[float]:
    """The factors of one session of the noise model `model`, deterministic by `seed`.

    `numbers` are the model's own parameters in order; each has a default. "iid" (cv), "ar1" (phi, cv),
    "drift" (total, rounds, cv), "step" (size, at_round, cv), "outliers" (share, cv) and "bursts" (share,
    length, cv). Raises Misuse for an unknown model.
    """
    if model not in MODELS:
        near = closest(model, MODELS)
        slip = f"did you mean {near!r}?" if near else None
        raise Misuse(explain("there is no such noise model", asked=repr(model), slip=slip, choices=MODELS))
    return MODELS[model](random.Random(seed), *numbers)  # noqa: S311 - simulation, not secrets


def log_sigma(cv: float) -> float:
    """The standard deviation of log x for a log-normal x with coefficient of variation `cv`."""
    return math.sqrt(math.log1p(cv * cv))


def iid(rng: random.Random, cv: float = 0.03) -> Iterator[float]:
    """Independent log-normal factors with median 1."""
    sigma = log_sigma(cv)
    while True:
        yield math.exp(rng.gauss(0, sigma))


def ar1(rng: random.Random, phi: float = 0.6, cv: float = 0.03) -> Iterator[float]:
    """Stationary log-normal factors whose logarithms have autocorrelation phi^lag; `cv` is marginal."""
    sigma = log_sigma(cv)
    now = rng.gauss(0, sigma)
    step = sigma * math.sqrt(1 - phi * phi)
    while True:
        yield math.exp(now)
        now = phi * now + rng.gauss(0, step)


def drift(rng: random.Random, total: float = 0.05, rounds: float = 200, cv: float = 0.03) -> Iterator[float]:
    """The level moves evenly from 1 to 1 + `total` over `rounds` rounds and then stays there."""
    for index, noise in enumerate(iid(rng, cv)):
        yield (1 + total * min(1.0, index / (rounds - 1))) * noise


def step(rng: random.Random, size: float = 0.05, at_round: float = 100, cv: float = 0.03) -> Iterator[float]:
    """The level jumps from 1 to 1 + `size` before round `at_round` (the first round is 0)."""
    for index, noise in enumerate(iid(rng, cv)):
        yield (1 + size * (index >= at_round)) * noise


def outliers(rng: random.Random, share: float = 0.05, cv: float = 0.03) -> Iterator[float]:
    """A `share` of the rounds, each on its own, is 1.3 to 3 times as slow (uniform)."""
    for noise in iid(rng, cv):
        yield noise * (rng.uniform(1.3, 3.0) if rng.random() < share else 1.0)


def bursts(rng: random.Random, share: float = 0.05, length: float = 5, cv: float = 0.03) -> Iterator[float]:
    """As `outliers`, but slow rounds come in runs of `length` with one slowness a run."""
    start = share / (length * (1 - share) + share)  # chance that a quiet round is followed by a run
    left, slow = 0, 1.0
    for noise in iid(rng, cv):
        if left == 0 and rng.random() < start:
            left, slow = round(length), rng.uniform(1.3, 3.0)
        yield noise * (slow if left else 1.0)
        left = max(0, left - 1)


MODELS: dict[str, Callable[..., Iterator[float]]] = {
    "iid": iid,
    "ar1": ar1,
    "drift": drift,
    "step": step,
    "outliers": outliers,
    "bursts": bursts,
}
