"""The decode loop: prefill once, then one step per token, each step marked by a device event."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from pytest_qwen.engines import fusion
from pytest_qwen.engines.building import build_model
from pytest_qwen.engines.profiles import PROFILES, OptimizeProfile
from pytest_qwen.engines.sessions import DynamicSession, Session, StaticSession

__all__ = ["PROFILES", "DecodeResult", "Decoder", "OptimizeProfile", "apply_flags", "build_model"]


def apply_flags(profile: OptimizeProfile) -> None:
    """Set the process-wide switches of a profile: whether float32 products may use tensor cores (TF32)."""
    torch.set_float32_matmul_precision("high" if profile.tf32 else "highest")


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeResult:
    """Tokens of a batch (rows of equal length), and when each step's were ready.

    `token_ns` has one entry a step, in nanoseconds since the start of the run; the first is TTFT.
    """

    token_ids: Tensor
    token_ns: tuple[int, ...]


class Decoder:
    """Generates with one model under one profile; `applied` says in words what was really done.

    `experts` is the caller's explicit choice, which no profile replaces. The model is changed in place.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        profile: OptimizeProfile,
        max_batch: int = 1,
        max_len: int = 2048,
        experts: str | None = None,
        kv_cache: str | None = None,
    ):
        self._model, self._profile, self._kv_cache = model, profile, kv_cache
        self._max_batch, self._max_len = max_batch, max_len
        self._newest: tuple[int, Session] | None = None
        self.applied: list[str] = []
        self._operate(experts)

    def _operate(self, experts: str | None) -> None:
        """Change the model as the profile asks, and take note of what was done."""
        model, profile, note = self._model, self._profile, self.applied.append
        note(f"{profile.cache} cache" + (f" in {self._kv_cache}" if self._kv_cache else ""))
        if profile.fuse_projections and (count := fusion.fuse_projections(model)):
            note(f"query, key and value projections fused in {count} layers")
        if profile.sort_routers and (count := fusion.sort_routers(model)):
            note(f"experts chosen by a sort in {count} routers")
        if profile.attention and model.config._attn_implementation == "sdpa":
            model.set_attn_implementation(profile.attention)
            note(f"attention {profile.attention} for one token, sdpa for prompts")
        if profile.experts and experts is None and fusion.has_experts(model):
            model.set_experts_implementation(profile.experts)
            note(f"experts {profile.experts}")

    @property
    def model(self) -> PreTrainedModel:
        """The model that generates."""
        return self._model

    def prepare(self) -> float:
        """Compile and capture for the largest batch; returns the seconds of the first call."""
        started = time.perf_counter()
        self.run(torch.zeros(self._max_batch, 4, dtype=torch.long), 3)
        return time.perf_counter() - started

    def run(
        self,
        input_ids: Tensor,
        n_out: int,
        *,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        eos_ids: Sequence[int] | None = None,
        on_token: Callable[[int], bool] | None = None,
    ) -> DecodeResult:
        """Generate up to `n_out` tokens for each row of `input_ids`, all of one length.

        Temperature 0 is greedy. Without `eos_ids` and `on_token` the host never waits for the device between
        steps. With `eos_ids` it ends when every row has met one (rows that end early go on until then);
        `on_token` gets the tokens of row 0, and ends the run by giving True.
        """
        batch, n_in = input_ids.shape
        if n_out < 1 or n_in + n_out > self._max_len:
            raise ValueError(f"{n_in} + {n_out} tokens asked for, {self._max_len} at most, one of them new")
        session = self._session(batch)
        pick = _sampler(temperature, top_p, seed, session.tokens.device)
        is_over = _ending(eos_ids, batch, session.tokens.device) if eos_ids else None
        clock = _clock(session.tokens.device, n_out)
        column = n_in
        with torch.no_grad():
            for column in range(n_in, n_in + n_out):
                session.advance() if column > n_in else session.start(input_ids)
                newest = session.tokens[:, column]
                if pick is not None:
                    newest.copy_(pick(session.logits))
                clock.mark()
                if on_token is not None and on_token(int(newest[0])):
                    break
                if is_over is not None and is_over(newest):
                    break
        token_ns = clock.read()
        session.end()
        return DecodeResult(token_ids=session.tokens[:, n_in : column + 1].cpu(), token_ns=token_ns)

    def _session(self, batch: int) -> Session:
        """The state for this batch size; that of another one gives its KV cache back first."""
        if self._newest is None or self._newest[0] != batch:
            self._newest = None
            kind = DynamicSession if self._profile.cache == "dynamic" else StaticSession
            made = kind(self._model, self._profile, batch, self._max_len, self.applied, self._kv_cache)
            self._newest = batch, made
        return self._newest[1]


class _EventClock:
    """One event a step on the device's own clock, read after one synchronise at the end."""

    def __init__(self, count: int):
        self._events = [torch.cuda.Event(enable_timing=True) for _ in range(count + 1)]
        self._used = 0
        self.mark()

    def mark(self) -> None:
        """Record the next event."""
        self._events[self._used].record()
        self._used += 1

    def read(self) -> tuple[int, ...]:
        """Nanoseconds from the first mark to each later one."""
        begin, *marks = self._events[: self._used]
        marks[-1].synchronize()
        return tuple(round(begin.elapsed_time(mark) * 1e6) for mark in marks)


class _HostClock:
    """The host's clock, for devices that work while they are called."""

    def __init__(self) -> None:
        self._marks = [time.perf_counter_ns()]

    def mark(self) -> None:
        """Note the time."""
        self._marks.append(time.perf_counter_ns())

    def read(self) -> tuple[int, ...]:
        """Nanoseconds from the start to each mark."""
        begin, *marks = self._marks
        return tuple(mark - begin for mark in marks)


def _clock(device: torch.device, count: int) -> _EventClock | _HostClock:
    return _EventClock(count) if device.type == "cuda" else _HostClock()


def _ending(eos_ids: Sequence[int], batch: int, device: torch.device) -> Callable[[Tensor], bool]:
    """A function that takes each step's tokens and says whether all rows have ended (it waits for them)."""
    ends = torch.tensor(list(eos_ids), device=device)
    ended = torch.zeros(batch, dtype=torch.bool, device=device)

    def is_over(newest: Tensor) -> bool:
        ended.logical_or_(torch.isin(newest, ends))
        return bool(ended.all())

    return is_over


def _sampler(
    temperature: float, top_p: float, seed: int, device: torch.device
) -> Callable[[Tensor], Tensor] | None:
    """A function from logits to tokens; None for greedy choice, which the step makes itself."""
    if temperature == 0:
        return None
    generator = torch.Generator(device).manual_seed(seed)

    def pick(logits: Tensor) -> Tensor:
        shares, order = (logits.float() / temperature).softmax(-1).sort(-1, descending=True)
        shares[shares.cumsum(-1) - shares > top_p] = 0  # the first token that crosses top_p stays
        return order.gather(1, torch.multinomial(shares, 1, generator=generator))[:, 0]

    return pick
