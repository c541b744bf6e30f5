"""What a mock server does with a request: times, chunks, limits and what it breaks, as one checked value."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from pytest_qwen.errors import Misuse, closest, explain

Usage = Literal["asked", "always", "each", "never"]
Breakage = Literal[
    "",
    "status",
    "end",
    "cut",
    "reset",
    "silence",
    "malformed",
    "error-event",
    "no-finish",
    "html",
    "content-type",
]
# Breakages that happen in mid-stream, after `fault_at` tokens.
MIDWAY = frozenset({"end", "cut", "reset", "silence", "malformed", "error-event"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerScript:
    """How a mock server answers. Times in milliseconds unless a name says seconds.

    An answer's first token comes `ttft_ms` after its request plus `prefill_ms` for each prompt token that is
    not cached, each later one `gap_ms` after the one before; `jitter` spreads both evenly by that share to
    either side. `slowdown` lengthens the gap by that share for every other answer being made; at most
    `max_streams` are made at once and the others wait. A chunk holds `tokens_per_chunk` tokens: the first is
    sent after `ttft_ms`, each later one `gap_ms` for each of its tokens after the one before. With
    `empty_first_ms` a chunk without text is sent that long after the request. Before token `stall_at`,
    counted from 0, nothing comes for `stall_s` seconds.

    A model ends by itself after `answer_tokens` unless the request says `ignore_eos`; None means never.
    `text` is the answer in place of made-up words. `usage` says when tokens are counted: as the request asks,
    always, with each chunk, or never. With `prefix_cache` prompts are remembered in blocks of 16 tokens.
    `strict` refuses body fields that OpenAI's API does not have. `plain` takes away the routes that vLLM
    adds to that API. `sleep_s` and `wake_s` are how long those routes take.

    `fault` is what goes wrong: "status" (the request is refused with `status` and `retry_after_s`), "end"
    (the body ends cleanly half way), "cut" (the connection is closed), "reset", "silence", "malformed" (an
    event that is no JSON), "error-event", "no-finish" (all tokens, but neither a finish reason nor [DONE]),
    "html" (a page with status 200) or "content-type" (JSON's on a stream). It strikes after `fault_at` of
    the tokens, half of them when None. `fault_share` and `stall_share` of a model's requests are struck,
    evenly spread: with 0.1 each tenth. The first `spared` of them are never struck nor stalled.
    """

    ttft_ms: float = 200.0
    gap_ms: float = 20.0
    prefill_ms: float = 0.0
    jitter: float = 0.0
    seed: int = 0
    slowdown: float = 0.0
    max_streams: int | None = None
    tokens_per_chunk: int = 1
    empty_first_ms: float | None = None
    stall_at: int | None = None
    stall_s: float = 2.0
    stall_share: float = 1.0
    answer_tokens: int | None = None
    text: str = ""
    usage: Usage = "asked"
    prefix_cache: bool = False
    max_model_len: int = 32768
    api_key: str = ""
    strict: bool = False
    plain: bool = False
    sleep_s: float = 0.0
    wake_s: float = 0.0
    fault: Breakage = ""
    fault_share: float = 1.0
    fault_at: int | None = None
    status: int = 500
    retry_after_s: float | None = None
    spared: int = 0

    def __post_init__(self) -> None:
        """Raise Misuse for what cannot be played."""
        for name, kind in get_type_hints(ServerScript).items():
            _check_type(name, getattr(self, name), kind)
        for name in _SHARES:
            if not 0 <= getattr(self, name) <= 1:
                raise Misuse(_wrong(name, getattr(self, name), "a share from 0 to 1"))
        for name in _AT_LEAST_ONE:
            if (value := getattr(self, name)) is not None and value < 1:
                raise Misuse(_wrong(name, value, "a whole number from 1"))
        for name in _NEVER_NEGATIVE:
            if (value := getattr(self, name)) is not None and not 0 <= value < float("inf"):
                raise Misuse(_wrong(name, value, "a number from 0"))
        if not 400 <= self.status <= 599:
            raise Misuse(_wrong("status", self.status, "an HTTP error, 400 to 599"))

    def but(self, changes: Mapping[str, Any]) -> ServerScript:
        """This script with some fields changed. Raises Misuse for a field that there is not."""
        if not changes:
            return self
        known = [field.name for field in fields(self)]
        for name in changes:
            if name not in known:
                near = closest(name, known)
                raise Misuse(
                    explain(
                        f"a server's script has no field {name!r}",
                        slip=f"did you mean {near!r}?" if near else None,
                        choices=known,
                    )
                )
        return replace(self, **changes)

    def as_dict(self) -> dict[str, Any]:
        """Plain data that `but` reads again."""
        return asdict(self)


_SHARES = ("jitter", "stall_share", "fault_share")
_AT_LEAST_ONE = ("max_streams", "tokens_per_chunk", "answer_tokens", "max_model_len")
_NEVER_NEGATIVE = (
    *("ttft_ms", "gap_ms", "prefill_ms", "slowdown", "empty_first_ms", "stall_at", "stall_s"),
    *("sleep_s", "wake_s", "fault_at", "retry_after_s", "spared"),
)


def choices_of(kind: Any) -> tuple[Any, ...]:
    """The valid words of a field, () for one that takes any value of its type."""
    return get_args(kind) if get_origin(kind) is Literal else ()


def plain_types(kind: Any) -> tuple[type, ...]:
    """The types that a field takes: `float | None` gives float, int and NoneType."""
    if get_origin(kind) in (Union, types.UnionType):
        return tuple(plain for part in get_args(kind) for plain in plain_types(part))
    if get_origin(kind) is Literal:
        return (str,)
    return (float, int) if kind is float else (kind,)


def _check_type(name: str, value: Any, kind: Any) -> None:
    if choices := choices_of(kind):
        if value not in choices:
            raise Misuse(explain(f"{name}={value!r} is nothing a server does", choices=map(repr, choices)))
        return
    allowed = plain_types(kind)
    # a bool is an int in Python, but nobody means `ttft_ms=True`
    if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
        words = " or ".join("nothing" if one is type(None) else one.__name__ for one in allowed)
        raise Misuse(_wrong(name, value, words))


def _wrong(name: str, value: Any, wanted: str) -> str:
    return explain(f"a server's script cannot have {name}={value!r}", next_step=f"give {wanted}")


def struck(number: int, share: float, spared: int) -> bool:
    """Whether the `number`th request (from 0) is among that share of those after the first `spared`.

    Evenly spread and without chance: among any n in a row are share × n of them, give or take one.
    """
    at = number - spared
    return at >= 0 and int((at + 1) * share + 1e-9) > int(at * share + 1e-9)
