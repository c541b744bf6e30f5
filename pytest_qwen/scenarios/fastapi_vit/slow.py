"""What is asked of a server whose model takes its time: first alone, then with company, then the end."""

from __future__ import annotations

import math
import time

from pytest_qwen.exchanges import Call
from pytest_qwen.scenarios.base import Seen
from pytest_qwen.scenarios.fastapi_vit.calls import Caller, health_call
from pytest_qwen.serving import Serving

_TRIES = 3
_EXIT_WITHIN_S = 10.0
_MOST_AT_ONCE = 48
# When, in predictions, the requests beside others are sent.
_MOMENTS = (0.5, 1.0, 1.5)


def ask_slow(seen: Seen, serving: Serving, caller: Caller) -> None:
    """Single predictions, another request beside some, health beside many, eight at once, SIGTERM."""
    one_s = _singles(seen, serving, caller)
    if one_s is None:
        return
    _beside_some(seen, serving, caller, one_s)
    if "health" in seen.facts:
        _beside_many(seen, serving, caller, one_s)
    for attempt in range(_TRIES):
        seen.exchanges |= serving.probe.batch(_predictions(caller, f"load.eight.{attempt}", 8))
    _end(seen, serving, caller, one_s)


def _singles(seen: Seen, serving: Serving, caller: Caller) -> float | None:
    """How long one prediction takes, seconds; None where they are not answered."""
    found = serving.probe.batch(_predictions(caller, "first", _TRIES + 1), at_once=1)
    seen.exchanges |= found
    times = sorted(one.elapsed_ms for one in found.values())
    return times[len(times) // 2] / 1000 if all(one.ok for one in found.values()) else None


def _beside_some(seen: Seen, serving: Serving, caller: Caller, one_s: float) -> None:
    document = [
        Call(
            name=f"slow.block.openapi.{number}",
            method="GET",
            path="/openapi.json",
            delay_s=moment * one_s,
            deadline_s=30.0,
        )
        for number, moment in enumerate(_MOMENTS)
    ]
    busy = _predictions(caller, "block.predict", _enough(4, 1.2, one_s))
    seen.exchanges |= serving.probe.batch([*busy, *document])


def _beside_many(seen: Seen, serving: Serving, caller: Caller, one_s: float) -> None:
    path = seen.facts["health"]
    asked = [
        health_call(f"slow.flood.health.{number}", path, moment * one_s)
        for number, moment in enumerate(_MOMENTS)
    ]
    flood = _predictions(caller, "flood.predict", _enough(16, 2.4, one_s))
    seen.exchanges |= serving.probe.batch([*flood, *asked])


def _end(seen: Seen, serving: Serving, caller: Caller, one_s: float) -> None:
    """SIGTERM in the middle of a prediction."""
    serving.probe.begin([caller.unseen("term.request", "good.0", deadline_s=30.0)])
    time.sleep(one_s / 3)
    exit_s, exit_code = serving.terminate(_EXIT_WITHIN_S)
    seen.exchanges |= serving.probe.finish()
    seen.facts["term"] = {"exit_s": exit_s, "exit_code": exit_code}


def _predictions(caller: Caller, name: str, count: int) -> list[Call]:
    return [
        caller.unseen(f"slow.{name}.{number}", f"good.{number % 2}", deadline_s=60.0)
        for number in range(count)
    ]


def _enough(least: int, together_s: float, one_s: float) -> int:
    """So many predictions that they take long enough together for what waits for them to be late.

    On a fast machine the least number is over before anything beside them could have waited too long.
    """
    return min(max(least, math.ceil(together_s / one_s)), _MOST_AT_ONCE)
