"""The object behind the `finetune` fixture: a fine-tuning step measured beside its predicted memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pytest_qwen import data
from pytest_qwen.bounds import BOUND_KINDS
from pytest_qwen.configurations import shape_from_config
from pytest_qwen.deciding import interval_of
from pytest_qwen.engines import TRAINING
from pytest_qwen.engines.base import Loaded, LoadSpec, Request
from pytest_qwen.errors import DoesNotFit, Misuse, Unavailable, closest, explain
from pytest_qwen.evidence import Measurement
from pytest_qwen.models import ModelShape
from pytest_qwen.run import Run
from pytest_qwen.statistics import percentile
from pytest_qwen.training_memory import METHODS, OPTIMIZERS, TARGETS, Step, TrainingPlan

_KIND = BOUND_KINDS["max_step_time"]
# any limit: the interval of the median does not depend on it
_MEDIAN = _KIND.bound(1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class FineTuned:
    """One way to fine-tune, measured: seconds of a step (median, with the interval `low` to `high`), memory.

    `allocated_gb` is the peak of what tensors held, `vram_gb` what the card showed above its state before the
    load (on a CPU: resident memory of the process), both in 1e9 bytes. `step` is what was predicted.
    """

    step: Step
    step_time_s: float
    low: float
    high: float
    n: int
    allocated_gb: float
    vram_gb: float
    trainable_parameters: int
    measurement: Measurement
    loaded: Loaded

    @property
    def plan(self) -> TrainingPlan:
        """The predicted memory, line by line."""
        return self.step.plan()

    @property
    def predicted_gb(self) -> float:
        """The predicted peak, to be compared with `allocated_gb`."""
        return self.plan.total_bytes / 1e9

    @property
    def error(self) -> float:
        """Predicted over measured peak, less one: 0.02 is 2 % too much."""
        return self.predicted_gb / self.allocated_gb - 1

    @property
    def tokens_per_sec(self) -> float:
        """Tokens of all sequences over the median step."""
        return self.step.tokens * self.step.batch / self.step_time_s

    def __str__(self) -> str:
        step = self.step
        return (
            f"{step.method}, {step.batch} x {step.tokens} tokens: {self.step_time_s:.4g} s a step"
            f" [{self.low:.4g}, {self.high:.4g}], n={self.n}; {self.allocated_gb:.2f} GB allocated"
            f" ({self.predicted_gb:.2f} predicted, {self.error:+.1%}), {self.vram_gb:.2f} GB on the device"
        )


class FineTune:
    """The `finetune` fixture: `finetune("lora", tokens=1024)` loads, repeats the step and gives a FineTuned.

    `open_run` leases the test's model with the given overrides, `spec_of` says what that would load.
    `available_bytes` is the device's memory, None where unknown.
    """

    def __init__(
        self,
        open_run: Callable[[Mapping[str, Any]], Run],
        spec_of: Callable[[Mapping[str, Any]], LoadSpec | None],
        *,
        available_bytes: float | None,
        alpha: float,
    ) -> None:
        self._open, self._spec_of = open_run, spec_of
        self._available_bytes, self._alpha = available_bytes, alpha

    def __call__(
        self,
        method: str = "lora",
        *,
        tokens: int = 1024,
        batch_size: int = 1,
        rank: int = 64,
        targets: Iterable[str] = TARGETS,
        gradient_checkpointing: bool = True,
        optimizer: str = "adamw",
    ) -> FineTuned:
        """Fine-tune the test's model for some steps on `batch_size` random sequences of `tokens` tokens.

        Methods: "lora", "lora-embeddings" (embedding and head trained too), "qlora" (the base in 4 bits),
        "full". `optimizer`: "adamw" (states in the model's number format), "adamw-fp32", "adamw8bit",
        "paged-adamw8bit" (these three by bitsandbytes, on a GPU).

        Raises Misuse, DoesNotFit with the plan, NotInstalled, Unavailable, and what a load raises.
        """
        if isinstance(targets, str) or not isinstance(targets, Iterable):
            slip = "one name goes into a list too: targets=['q_proj']"
            raise Misuse(
                explain("finetune: targets is no list of names", asked=f"targets={targets!r}", slip=slip)
            )
        chosen = _checked(method, optimizer, tuple(targets), tokens, batch_size, rank)
        overrides = {
            "engine": TRAINING,
            "optimize": "eager",
            "quantization": "nf4" if method == "qlora" else None,
            "options": {
                "method": method,
                "optimizer": optimizer,
                "rank": rank,
                "targets": ",".join(chosen),
                "gradient_checkpointing": gradient_checkpointing,
            },
        }

        def step_on(shape: ModelShape, spec: LoadSpec) -> Step:
            return Step(
                shape=_trainable(shape, tokens, 1 if method == "full" else rank),
                method=method,
                tokens=tokens,
                batch=batch_size,
                rank=rank,
                targets=chosen,
                checkpointing=gradient_checkpointing,
                optimizer=optimizer,
                dtype=spec.dtype,
                on_gpu=spec.device != "cpu",
            )

        spec = self._spec_of(overrides)
        known = None if spec is None else data.find_shape(spec.model)
        planned = None if spec is None or known is None else step_on(known, spec)
        self._refuse_hopeless(planned)
        try:
            run = self._open(overrides)
            step = step_on(_shape_of(run), run.spec)
            found = run.measure(Request(prompt_tokens=tokens, batch_size=batch_size, output_tokens=1))
        except DoesNotFit as error:
            raise DoesNotFit(self._does_not_fit(planned, str(error))) from error
        return self._result(step, run, found)

    def _refuse_hopeless(self, planned: Step | None) -> None:
        """Load nothing when the weights alone exceed the memory. Raises DoesNotFit."""
        if planned is None or self._available_bytes is None:
            return
        if planned.weights_bytes + planned.added_bytes > self._available_bytes:
            raise DoesNotFit(self._does_not_fit(planned, "refused by the plan, nothing was loaded"))

    def _does_not_fit(self, planned: Step | None, found: str) -> str:
        if planned is None:
            return found
        title = (
            f"{planned.method} of {planned.shape.model_id} on {planned.batch} x {planned.tokens} tokens"
            " does not fit"
        )
        return "\n".join(
            (
                planned.plan().explain(title, self._available_bytes),
                f"  found: {' '.join(found.split())}",
                "  next step: gradient_checkpointing=True, fewer tokens, 'qlora', or a larger card",
            )
        )

    def _result(self, step: Step, run: Run, found: Measurement) -> FineTuned:
        values = found.values(_KIND.metric)
        if not values:
            raise Unavailable("no clean round of training: " + "; ".join(found.rounds[-1].violations))
        low, high = interval_of(_MEDIAN, values, alpha=self._alpha)
        return FineTuned(
            step=step,
            step_time_s=percentile(values, 0.5),
            low=low,
            high=high,
            n=len(values),
            allocated_gb=found.observed["allocated_gb"],
            vram_gb=found.observed["vram_gb"],
            trainable_parameters=step.trainable_parameters,
            measurement=found,
            loaded=run.loaded,
        )


def check_base(quantization: str | None) -> None:
    """Raises Misuse for a quantised base that is asked for by a mark: the method decides that."""
    if quantization is not None:
        raise Misuse(
            explain(
                "finetune takes the precision of the base from its method",
                asked=f"model(quantization={quantization!r})",
                slip="the mark is on the class or module, for its other tests",
                choices=['finetune("qlora") for a base in nf4', "the other methods for a base in dtype"],
            )
        )


def _shape_of(run: Run) -> ModelShape:
    """The shape of what was loaded. Raises Misuse when its arithmetic is not known."""
    if run.loaded.config:
        return shape_from_config(run.loaded.config, run.spec.model)
    known = data.find_shape(run.spec.model)
    if known is None:
        raise Misuse(explain("the shape of the fine-tuned model is not known", asked=run.spec.model))
    return known


def _trainable(shape: ModelShape, tokens: int, rank: int) -> ModelShape:
    """The shape, if such a step can be made on it. Raises Misuse."""
    if shape.experts:
        raise Misuse(
            explain(
                "fine-tuning of a mixture of experts is not supported",
                asked=shape.model_id,
                next_step="a dense model",
            )
        )
    if shape.max_positions is not None and tokens > shape.max_positions:
        raise Misuse(
            explain(
                "the sequence is longer than the model's context",
                asked=f"tokens={tokens}",
                found=f"{shape.model_id} has {shape.max_positions} positions",
            )
        )
    if rank > shape.hidden:
        raise Misuse(
            explain(
                "adapters of a rank above the model's width would be larger than what they adapt",
                asked=f"rank={rank}",
                found=f"{shape.model_id} is {shape.hidden} wide",
                slip="tokens and rank mixed up?",
            )
        )
    return shape


def _checked(
    method: str, optimizer: str, targets: tuple[str, ...], tokens: int, batch_size: int, rank: int
) -> tuple[str, ...]:
    """The targets, once every argument is valid. Raises Misuse."""
    _one_of("method", method, METHODS)
    _one_of("optimizer", optimizer, OPTIMIZERS)
    for target in targets:
        _one_of("targets", target, TARGETS)
    counts = {
        "tokens": (tokens, 2),
        "batch_size": (batch_size, 1),
        "rank": (rank, 1),
        "targets": (len(targets), 1),
    }
    for name, (value, least) in counts.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise Misuse(
                explain(
                    f"finetune: {name} has to be {least} or more",
                    asked=f"{name}={value!r}",
                    slip="a step predicts each next token: one token has none" if name == "tokens" else None,
                )
            )
    return targets


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        meant = closest(str(value), choices)
        raise Misuse(
            explain(
                f"finetune: {name} {value!r} is not known",
                slip=f"did you mean {meant!r}?" if meant else None,
                choices=choices,
            )
        )
