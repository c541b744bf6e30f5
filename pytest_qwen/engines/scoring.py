"""How likely a loaded model holds a continuation: one forward pass for each distinct input, never padded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from pytest_qwen.engines.base import Likelihood, Pair
from pytest_qwen.errors import Misuse, explain


def score(model: Any, pairs: Sequence[Pair]) -> tuple[Likelihood, ...]:
    """The likelihood of each pair's continuation after its context.

    The input is all tokens but the last one: the logits after each say what the model expects next. Pairs
    of equal input and length, such as the single letters that answer a question, share one pass. Nothing is
    batched with anything else, so that no result depends on its neighbours, in no bit. Sums are taken in
    float32. Raises Misuse for a pair that is longer than what the model was made for.
    """
    found: dict[int, Likelihood] = {}
    alike: dict[tuple[tuple[int, ...], int], list[int]] = {}
    for place, pair in enumerate(pairs):
        key = (*pair.context, *pair.continuation)[:-1], len(pair.continuation)
        alike.setdefault(key, []).append(place)
    _check_length(model, max((len(ids) for ids, _ in alike), default=0))
    for (ids, length), places in alike.items():
        with torch.no_grad():
            logs = _log_probabilities(model, ids, length)
        for place in places:
            found[place] = _likelihood(logs, pairs[place].continuation)
    return tuple(found[place] for place in range(len(pairs)))


def _log_probabilities(model: Any, ids: Sequence[int], last: int) -> torch.Tensor:
    """Log-probabilities of every token of the vocabulary after each of the last positions."""
    inputs = torch.tensor([list(ids)], dtype=torch.long, device=model.device)
    logits = model(input_ids=inputs, use_cache=False, logits_to_keep=last).logits[0]
    return logits[-last:].float().log_softmax(-1)


def _likelihood(logs: torch.Tensor, continuation: Sequence[int]) -> Likelihood:
    wanted = torch.tensor(list(continuation), dtype=torch.long, device=logs.device)
    return Likelihood(
        log_probability=float(logs.gather(1, wanted[:, None]).sum()),
        greedy=bool((logs.argmax(-1) == wanted).all()),
    )


def _check_length(model: Any, longest: int) -> None:
    most = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if most is not None and longest > most:
        raise Misuse(
            explain(
                "a question is longer than what the model was made for",
                asked=f"{longest} tokens",
                found=f"{most} positions",
                next_step="fewer examples before each question (shots=), or a model with a longer context",
            )
        )
