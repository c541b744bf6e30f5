"""Whether a workload's arguments make sense together: a batch or a load, and what may be said of each."""

from __future__ import annotations

from pytest_qwen.errors import Misuse, explain
from pytest_qwen.markers import Workload

_KINDS = ("concurrency", "request_rate")
# Arguments that say of which kind a load is.
_OF_A_LOAD = (
    "arrival",
    "requests_per_round",
    "prompt_spread",
    "output_spread",
    "spread",
    "shared_prefix_tokens",
    "turns",
    "silence_s",
)
_OF_RANDOM_PROMPTS = ("prompt_spread", "shared_prefix_tokens")


def check_workload(workload: Workload) -> Workload:
    """The workload as it is. Raises Misuse for arguments that exclude each other or say nothing."""
    _excluded(
        workload,
        "prompt",
        "prompt_tokens",
        choices=["prompt= for a fixed text", "prompt_tokens= for random tokens of that length"],
    )
    _excluded(
        workload,
        *_KINDS,
        choices=["concurrency= for users who ask again when they are answered", "request_rate= for arrivals"],
    )
    given = [name for name in _OF_A_LOAD if getattr(workload, name) is not None]
    if workload.concurrency is None and workload.request_rate is None:
        if given:
            raise _misuse(
                f"{given[0]} belongs to a load, and none is asked for",
                _shown(workload, given[0]),
                next_step="add concurrency=16 or request_rate=2.0",
            )
        return workload
    _excluded(
        workload,
        "batch_size",
        "concurrency" if workload.concurrency is not None else "request_rate",
        choices=["batch_size= for one batch after the other", "concurrency= for so many requests at once"],
    )
    _check_load(workload)
    return workload


def _check_load(workload: Workload) -> None:
    """What may be said of a load: arrivals of an open loop, spreads of random prompts."""
    if workload.arrival is not None and workload.request_rate is None:
        raise _misuse(
            "arrival is of an open loop: users of a closed one ask when they have been answered",
            _shown(workload, "concurrency", "arrival"),
            next_step="say request_rate= in place of concurrency=, or leave arrival out",
        )
    for name in _OF_RANDOM_PROMPTS:
        if workload.prompt is not None and getattr(workload, name) is not None:
            raise _misuse(
                f"{name} is of random prompts, and the prompt is a fixed text",
                _shown(workload, "prompt", name),
                next_step="say prompt_tokens= in place of prompt=",
            )
    shared, whole = workload.shared_prefix_tokens, workload.prompt_tokens
    if shared is not None and whole is not None and shared > whole:
        raise _misuse(
            "the shared prefix is longer than the prompt",
            _shown(workload, "prompt_tokens", "shared_prefix_tokens"),
            next_step="prompt_tokens counts the shared prefix too",
        )
    if workload.spread is not None and not (workload.prompt_spread or workload.output_spread):
        raise _misuse(
            "spread says how lengths vary, and neither length does",
            _shown(workload, "spread"),
            next_step="add prompt_spread=0.3 or output_spread=0.3",
        )


def _excluded(workload: Workload, one: str, other: str, *, choices: list[str]) -> None:
    """Raises Misuse when both arguments are given."""
    if getattr(workload, one) is None or getattr(workload, other) is None:
        return
    raise _misuse(
        f"{one} and {other} exclude each other",
        _shown(workload, one, other),
        slip="one of them comes from a mark on the class or module",
        choices=choices,
    )


def _shown(workload: Workload, *names: str) -> str:
    """Arguments as they were written, a long text cut."""
    values = {name: getattr(workload, name) for name in names}
    return ", ".join(f"{n}={v[:40]!r}" if isinstance(v, str) else f"{n}={v!r}" for n, v in values.items())


def _misuse(
    problem: str,
    asked: str,
    *,
    slip: str | None = None,
    next_step: str | None = None,
    choices: list[str] | None = None,
) -> Misuse:
    return Misuse(
        explain(f"marker 'workload': {problem}", asked=asked, slip=slip, next_step=next_step, choices=choices)
    )
