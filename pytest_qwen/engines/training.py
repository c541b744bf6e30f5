"""The training engine: one run is one optimiser step on random tokens; imported in its child only."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pytest_qwen.engines.base import Loaded, LoadSpec, Request, Trace
from pytest_qwen.engines.device import (
    device_name,
    reserved_peak_bytes,
    synchronize,
    use_physical_cores,
    versions,
)
from pytest_qwen.engines.training_methods import Recipe, make_optimizer, prepare_model
from pytest_qwen.engines.training_peak import peak_of
from pytest_qwen.errors import EngineFault, Misuse, Unavailable, explain


class TrainingEngine:
    """One model with its trainable parameters and their optimiser on one device."""

    def __init__(self) -> None:
        self._model: Any = None
        self._optimizer: Any = None
        self._device = torch.device("cpu")
        self._vocab = 0
        self._work: tuple[int, int] | None = None  # batch and tokens of the last step
        self._peaks: dict[tuple[int, int], int] = {}  # on a CPU: peak bytes of a step by its work

    def load(self, spec: LoadSpec) -> Loaded:
        """Load the model, add what is trained, and make the optimiser.

        Raises ModelUnusable, NotInstalled, Unavailable; out of memory comes as torch's own error.
        """
        self._device = torch.device(spec.device)
        _check_device(spec)
        use_physical_cores(self._device)
        recipe = Recipe.of(spec)
        started = time.perf_counter()
        torch.manual_seed(spec.seed)
        self._model, applied = prepare_model(spec, recipe)
        trained = [p for p in self._model.parameters() if p.requires_grad]
        self._optimizer = make_optimizer(recipe, trained)
        synchronize(self._device)
        load_s = time.perf_counter() - started
        self._vocab = self._model.config.get_text_config().vocab_size
        return Loaded(
            load_s=load_s,
            weights_bytes=_bytes_of(self._model),
            device_memory_bytes=self._allocated_now(),
            device_name=device_name(self._device),
            applied=(*applied, f"{sum(p.numel() for p in trained)} trainable parameters"),
            versions=versions("peft", "accelerate", "bitsandbytes"),
            config=self._model.config.to_dict(),
        )

    def run(self, request: Request, on_token: Callable[[str], None] | None = None) -> Trace:  # noqa: ARG002
        """One step: forward, backward, optimiser, gradients dropped. Raises Misuse without `prompt_tokens`.

        `prompt_tokens` is the length of a sequence, `batch_size` their number; the only "token" of the trace
        is the step.
        """
        if self._model is None:
            raise EngineFault("run() before load(): nothing is loaded")
        if request.prompt_tokens is None:
            raise Misuse(explain("a training step is on random tokens", next_step="give prompt_tokens=N"))
        work = request.batch_size, request.prompt_tokens
        self._settle_memory(work)
        generator = torch.Generator().manual_seed(request.seed)
        ids = torch.randint(self._vocab, work, generator=generator).to(self._device)
        loss, step_ns = self._timed(ids)
        if math.isnan(loss):  # the step computed nothing that means anything
            raise EngineFault(f"the loss of a step on {work[0]} x {work[1]} tokens is not a number")
        return Trace(
            prompt_tokens=request.prompt_tokens,
            output_tokens=1,
            batch_size=request.batch_size,
            token_ns=(step_ns,),
            texts=("",) * request.batch_size,
            finish_reason="length",
            tokens_digest=hashlib.sha256(f"{loss:.6g}".encode()).hexdigest()[:16],
            clock="cuda-events" if self._device.type == "cuda" else "host",
            peak_memory_bytes=reserved_peak_bytes(self._device),
            peak_allocated_bytes=self._allocated_peak(work),
        )

    def count_tokens(self, text: str) -> int:
        """Bytes of the text: training has no tokenizer."""
        return len(text.encode())

    def rest(self) -> None:
        """Nothing goes on between runs."""

    def close(self) -> None:
        """Drop everything; safe to call twice."""
        self._model = self._optimizer = None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def step(self, ids: Tensor) -> Tensor:
        """Forward, backward, optimiser step; the gradients are dropped at its end. Returns the loss."""
        loss: Tensor = self._model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    def _timed(self, ids: Tensor) -> tuple[float, int]:
        """The loss and the nanoseconds of one step, on the device's clock where it has one."""
        if self._device.type != "cuda":
            started = time.perf_counter_ns()
            loss = self.step(ids)
            return float(loss), time.perf_counter_ns() - started
        torch.cuda.reset_peak_memory_stats(self._device)
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        loss = self.step(ids)
        end.record()
        end.synchronize()
        return float(loss), round(begin.elapsed_time(end) * 1e6)

    def _settle_memory(self, work: tuple[int, int]) -> None:
        """Before another kind of step: nothing cached by the last one may count as this one's memory."""
        if work == self._work:
            return
        self._work = work
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        elif work not in self._peaks:
            ids = torch.randint(self._vocab, work)
            if not self._optimizer.state:
                self.step(ids)  # the first step makes the optimiser's states
            self._peaks[work] = self._allocated_now() + peak_of(lambda: self.step(ids))

    def _allocated_now(self) -> int:
        """Bytes that weights and optimiser states hold between two steps."""
        if self._device.type == "cuda":
            return int(torch.cuda.memory_allocated(self._device))
        states = (t for state in self._optimizer.state.values() for t in state.values())
        return _bytes_of(self._model) + sum(int(t.nbytes) for t in states if isinstance(t, Tensor))

    def _allocated_peak(self, work: tuple[int, int]) -> int:
        """Peak of the tensors' bytes: the allocator's of the last step, on a CPU a profiled step's."""
        if self._device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self._device))
        return self._peaks[work]


def _check_device(spec: LoadSpec) -> None:
    """What this machine cannot do, said before anything is loaded."""
    if spec.device.startswith("cuda") and not torch.cuda.is_available():
        raise Unavailable(
            explain(
                "the GPU cannot be used: this PyTorch finds no CUDA device",
                asked=f"device {spec.device}",
                found=f"torch {torch.__version__}, built for CUDA {torch.version.cuda}",
            )
        )
    if spec.tensor_parallel > 1:
        raise Unavailable(
            explain("fine-tuning runs on one GPU", asked=f"tensor_parallel={spec.tensor_parallel}")
        )


def _bytes_of(model: Any) -> int:
    """Bytes of parameters and buffers, shared tensors once, without the scales of 4-bit weights."""
    tensors = {t.data_ptr(): t.nbytes for t in (*model.parameters(), *model.buffers())}
    return sum(tensors.values())
