"""What a fake engine will do, read from the options of its load: times, noise, faults, a server's manners."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from pytest_qwen.errors import Misuse, closest, explain

_FAULTS = ("die", "segv", "hang", "cuda", "oom", "raise", "short", "missing", "corrupt")


@dataclass(frozen=True, slots=True, kw_only=True)
class Programme:
    """What the fake engine will do; each field is one pair of `LoadSpec.options`.

    `jitter` is ("iid", 0.03) and the like: a noise model of `noise.factors` and its numbers; one factor a
    round scales every time of that round. `warmup` holds factors for the first rounds, slower than the rest.
    `fault` is "what@when": what is one of die, segv, hang, cuda, oom, raise, short, missing, corrupt; when is
    "load" or the number of the run that it strikes, the first being 1. `load_log` is a file that gets one
    line a load. `prefill_ms_per_token` is added to the TTFT for each prompt token. `favours` is the text
    that it holds certain to follow anything; every other one is the less likely the longer it is.

    `served` has it answer as a server does, in streams; a load it always answers so. Then `request_jitter` is
    noise of single requests, gaps grow in proportion once more than `capacity` requests are served at once
    (0: never), and more than `most_at_once` wait in a queue (0: none do). `tokens_a_chunk` come together,
    `stall_ms` is a standstill in every 50th request, `error_share` of the requests fail, `no_usage` leaves
    out the token counts, `cached_share` of each prompt comes from a cache. `held_ratio` and `lag_ms` are what
    the client says of itself.
    """

    ttft_ms: float = 100.0
    itl_ms: float = 20.0
    prefill_ms_per_token: float = 0.0
    jitter: tuple[Any, ...] = ()
    warmup: tuple[float, ...] = ()
    seed: int = 0
    fault: str = ""
    load_s: float = 1.0
    memory_gb: float = 1.0
    text: str = "def add(a, b):\n    return a + b\n"
    load_log: str = ""
    favours: str = ""
    served: bool = False
    request_jitter: tuple[Any, ...] = ()
    capacity: float = 0.0
    most_at_once: int = 0
    tokens_a_chunk: int = 1
    stall_ms: float = 0.0
    error_share: float = 0.0
    no_usage: bool = False
    cached_share: float = 0.0
    held_ratio: float = 1.0
    lag_ms: float = 0.1

    @property
    def strikes(self) -> tuple[str, str]:
        """What goes wrong and when; ("", "") for never."""
        what, _, when = self.fault.partition("@")
        return what, when or ("load" if what else "")

    def options(self) -> tuple[tuple[str, Any], ...]:
        """As `LoadSpec.options`: only what differs from the defaults, sorted."""
        default = Programme()
        changed = (f.name for f in fields(self) if getattr(self, f.name) != getattr(default, f.name))
        return tuple((name, getattr(self, name)) for name in sorted(changed))


def programme_of(options: Mapping[str, Any]) -> Programme:
    """Read the programme; raises Misuse for an unknown option or fault."""
    known = [f.name for f in fields(Programme)]
    for name in options:
        if name not in known:
            near = closest(name, known)
            slip = f"did you mean {near!r}?" if near else None
            raise Misuse(explain("the fake engine has no such option", asked=name, slip=slip, choices=known))
    programme = replace(Programme(), **options)
    what, when = programme.strikes
    if what and (what not in _FAULTS or not (when == "load" or when.isdecimal())):
        raise Misuse(
            explain(
                "the fake engine has no such fault",
                asked=repr(programme.fault),
                slip='want "what@load" or "what@3" (the third run)',
                choices=_FAULTS,
            )
        )
    return programme
