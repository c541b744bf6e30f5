"""A loaded engine as a model of lm-evaluation-harness; imported where accuracy is measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import normalize_gen_kwargs, postprocess_generated_text

from pytest_qwen.engines.base import Engine, Pair, Request
from pytest_qwen.errors import Misuse, explain

# So many pairs cross to the engine at once: well within the time limit of one call.
_PAIRS_A_CALL = 32


class EngineLM(TemplateLM):  # type: ignore[misc]  # the harness comes without types
    """What the harness asks of a model, asked of an engine of ours: greedy answers and likelihoods.

    `config` is the model's configuration, for the token that stands before a text without context. Errors of
    the engine come through as they are; Misuse for a task that samples, or whose result is no right or wrong.
    """

    def __init__(self, engine: Engine, config: Mapping[str, Any] | None) -> None:
        super().__init__()
        self._engine = engine
        self._config = config or {}
        # the four choices of a question share its context
        self._encode = lru_cache(maxsize=1024)(engine.encode)

    @property
    def eot_token_id(self) -> int:
        """The first of the configuration's tokens that begin or end a text, 0 where it names none."""
        named = (self._config.get(name) for name in ("bos_token_id", "eos_token_id"))
        flat = (one[0] if isinstance(one, list) and one else one for one in named)
        return next((one for one in flat if isinstance(one, int)), 0)

    def tok_encode(self, string: str, **_: Any) -> list[int]:
        """Token ids under the engine's tokenizer."""
        return list(self._encode(string))

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """The harness's own splitting of context and continuation, without its progress bar."""
        found: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm=disable_tqdm)
        return found

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], **_: Any
    ) -> list[tuple[float, bool]]:
        pairs = [
            Pair(context=tuple(context), continuation=tuple(continuation))
            for _, context, continuation in requests
        ]
        found = []
        for start in range(0, len(pairs), _PAIRS_A_CALL):
            scored = self._engine.score(pairs[start : start + _PAIRS_A_CALL])
            found += [(one.log_probability, one.greedy) for one in scored]
        return found

    def generate_until(self, requests: list[Any], **_: Any) -> list[str]:
        """One greedy answer a request, cut where the task says."""
        return [self._answer(*request.args) for request in requests]

    def loglikelihood_rolling(self, requests: list[Any], **_: Any) -> list[float]:
        """Refused: perplexity is no share of right answers."""
        raise Misuse(
            explain(
                "this task measures how well a text is predicted, not whether answers are right",
                asked=requests[0].task_name if requests else None,
                next_step="use a task of multiple choice or of generated answers",
            )
        )

    def _answer(self, prompt: str, options: dict[str, Any]) -> str:
        wanted = normalize_gen_kwargs(options)
        if wanted["do_sample"]:
            raise Misuse(
                explain(
                    "this task samples its answers, so that no two runs would agree",
                    asked=f"do_sample=True, temperature={wanted.get('temperature')}",
                    next_step="use a task whose generation_kwargs have do_sample: false",
                )
            )
        request = Request(
            prompt=prompt,
            output_tokens=wanted["max_gen_toks"],
            stop=tuple(end for end in wanted["until"] if end),
            template=False,
        )
        text = self._engine.run(request).texts[0]
        return str(postprocess_generated_text(text, wanted["until"], None))
