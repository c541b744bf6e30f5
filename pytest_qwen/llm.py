"""The object that tests hold: a loaded model to generate with and to measure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pytest_qwen.engines.base import Loaded, LoadSpec, Message, Request
from pytest_qwen.errors import Misuse, explain
from pytest_qwen.evidence import Measurement
from pytest_qwen.levels import Highest
from pytest_qwen.load_search import Range
from pytest_qwen.loading import LOAD_ARGUMENTS, load_of, workload_request
from pytest_qwen.memory import Fit
from pytest_qwen.run import Answer, Run

if TYPE_CHECKING:
    from pytest_qwen.generators import Recording


class Llm:
    """The `llm` fixture: a loaded model to generate with and to measure."""

    def __init__(self, run: Run) -> None:
        self._run = run

    @property
    def spec(self) -> LoadSpec:
        """What is loaded."""
        return self._run.spec

    @property
    def loaded(self) -> Loaded:
        """What loading gave: seconds, bytes, what was applied, versions."""
        return self._run.loaded

    def generate(self, prompt: str | None = None, **options: Any) -> Answer:
        """Answer one prompt, through the chat template for an instruct model.

        Options: output_tokens, temperature, top_p, seed, ignore_eos, batch_size. With bounds on the test
        the last request is repeated, with its output length fixed, until the verdict is sure.
        """
        return self._run.generate(self._request(prompt=prompt, **options))

    def chat(self, messages: Sequence[Message | Mapping[str, str]], **options: Any) -> Answer:
        """Answer a conversation: messages with "role" and "content"."""
        turns = tuple(m if isinstance(m, Message) else Message(**m) for m in messages)  # type: ignore[arg-type]
        return self._run.generate(self._request(messages=turns, **options))

    def stream(self, prompt: str | None = None, **options: Any) -> Iterator[str]:
        """Like `generate`, giving pieces of text as they are ready; `answers[-1]` has the whole."""
        return self._run.stream(self._request(prompt=prompt, **options))

    def measure(self, **options: Any) -> Measurement:
        """Repeat the test's workload (or these request options) until its bounds are sure.

        The arguments of a load may be given too: concurrency, request_rate, arrival, requests_per_round ...
        """
        return self._run.measure(self._request(fixed=True, **options) if options else None)

    def highest(
        self,
        *,
        concurrency: Range | None = None,
        request_rate: Range | None = None,
        budget_s: float | None = None,
        **options: Any,
    ) -> Highest:
        """The highest load whose every bound is met: `concurrency=(1, 256)` or `request_rate=(0.5, 50)`.

        Levels are doubled and then halved between; each is measured until sure, and one without a verdict
        counts as not met. The test's bounds are then judged on the level that was found. `budget_s` is for
        all levels together (`--qwen-budget` unless given).
        """
        if (concurrency is None) == (request_rate is None):
            choices = ["concurrency=(1, 256)", "request_rate=(0.5, 50)"]
            raise Misuse(explain("llm.highest wants one of concurrency and request_rate", choices=choices))
        request = self._request(fixed=True, **options)
        if concurrency is not None:
            return self._run.highest(request, "concurrency", concurrency, budget_s=budget_s)
        assert request_rate is not None  # noqa: S101 - checked above
        return self._run.highest(request, "request_rate", request_rate, budget_s=budget_s)

    def take(self, recording: Recording) -> Measurement:
        """Have the test's bounds judged on a load that another generator made of this server.

        `recording` is what `generators.read` or `generators.drive` gives; the test's workload says what that
        load was. Raises Misuse for one that is too short.
        """
        return self._run.take(recording)

    def memory_plan(self, **options: Any) -> Fit | None:
        """The memory that the test's workload (or these request options) needs on this card by the plan.

        `.allocated_bytes` is what the measurement's "allocated_gb" should come to. None on a CPU and where a
        size is not known.
        """
        return self._run.memory_plan(self._request(fixed=True, **options))

    def sleep(self, level: int = 1) -> float:
        """Have the server give the device's memory back and stay; seconds that it took.

        Level 1 keeps the weights in the host's memory, level 2 drops them. Raises Unavailable for an engine
        without a sleep mode, Misuse for a server that was not started with it.
        """
        return self._run.sleep(level)

    def wake(self) -> float:
        """Have a sleeping server take its memory again; seconds until it can answer."""
        return self._run.wake()

    def count_tokens(self, text: str) -> int:
        """Tokens of the text under the model's tokenizer."""
        return self._run.engine.count_tokens(text)

    @property
    def answers(self) -> Sequence[Answer]:
        """Every answer of this test so far."""
        return tuple(self._run.answers)

    def _request(self, *, fixed: bool = False, **options: Any) -> Request:
        """The workload's request with the given options; a given prompt replaces the workload's."""
        base = workload_request(self._run.request.workload)
        base = base if fixed else replace(base, ignore_eos=False)
        given = {name: value for name, value in options.items() if value is not None}
        if given.keys() & LOAD_ARGUMENTS:
            wanted = {name: given.pop(name) for name in LOAD_ARGUMENTS & given.keys()}
            given["load"] = load_of(self._run.request.workload, wanted)
        if {"prompt", "messages", "prompt_tokens"} & given.keys():
            base = replace(base, prompt=None, prompt_tokens=None)
        try:
            return replace(base, **given)
        except TypeError as error:
            names = sorted({*Request.__dataclass_fields__, *LOAD_ARGUMENTS})
            raise Misuse(
                explain(
                    "llm: unknown request option", asked=str(sorted(given)), found=str(error), choices=names
                )
            ) from None
