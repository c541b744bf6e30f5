"""A published serving configuration done right: memory item by item, consistent percentages, what fits."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pytest_qwen.capacity import largest_batch, longest_context
from pytest_qwen.claims_arithmetic import ARITHMETIC_CHECKS
from pytest_qwen.claims_physics import PHYSICS_CHECKS
from pytest_qwen.errors import Misuse, explain
from pytest_qwen.memory import Fit
from pytest_qwen.physics import Setup, ceiling, fit, mbu, mfu
from pytest_qwen.published import Row, Span, printed, span

# The reports' engine takes long prompts in pieces; 8,192 tokens is its default on large cards.
CHUNK_TOKENS = 8192
_GB = 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """How much of one card a configuration uses, each in percent of one peak of its data sheet.

    `memory` is bytes needed / advertised bytes: above 100 it does not run. `bandwidth` and `compute` are
    MBU and MFU of a decode step that takes the least time the roofline allows, so that the busier of the two
    is at 100 and no software has more; a real step lowers both alike and leaves their ratio as it is.
    """

    memory: float
    bandwidth: float
    compute: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimization:
    """One configuration: what it needs, what would fit, and what is wrong with what was published.

    `shares` are those of the configuration where it fits, else of the largest batch that does (its `batch`);
    None where not even one sequence fits. `tokens_per_sec` is the whole batch's ceiling there.
    """

    name: str
    setup: Setup
    fit: Fit
    batch: int
    longest_context: int
    shares: Shares | None
    tokens_per_sec: float | None
    contradictions: tuple[str, ...]

    @property
    def weights_gb(self) -> float:
        """All weights, scales included, in 1e9 bytes."""
        return self.setup.weights_bytes / _GB

    @property
    def kv_cache_gb(self) -> float:
        """The KV cache of all sequences at their full length."""
        return self.setup.kv_bytes / _GB

    @property
    def activations_gb(self) -> float:
        """What lives beside weights and cache while a piece of a prompt is processed."""
        return self._line("activations")

    @property
    def total_gb(self) -> float:
        """Everything, with the driver's context."""
        return self.fit.total_bytes / _GB

    @property
    def memory_percent(self) -> float:
        """What the configuration as published needs, in percent of the card's memory."""
        return 100 * self.fit.total_bytes / self.fit.available_bytes

    def _line(self, begins: str) -> float:
        return sum(amount for label, amount in self.fit.lines if label.startswith(begins)) / _GB

    def explain(self) -> str:
        """The report of this configuration as text."""
        asked = f"{self.setup.batch} x {self.setup.context_tokens} tokens"
        lines = [
            self.fit.explain(f"{self.name}: {self.setup.label}, {asked}"),
            f"  {self.memory_percent:.1f} % of the memory",
            f"  would fit: {self.batch} x {self.setup.context_tokens} tokens, "
            f"or {self.setup.batch} x {self.longest_context} tokens",
        ]
        if self.shares is not None and self.tokens_per_sec is not None:
            lines.append(
                f"  {self.batch} sequences: at most {self.tokens_per_sec:.1f} tok/s together; memory "
                f"{self.shares.memory:.1f} %, bandwidth {self.shares.bandwidth:.1f} %, "
                f"compute {self.shares.compute:.1f} %"
            )
        return "\n".join([*lines, *(f"  published: {text}" for text in self.contradictions)])


def optimization(row: Row) -> Optimization:
    """A published row that names model, card, sequences and context. Raises Misuse for one that does not."""
    asked = row.setup
    if asked is None or not {"sequences", "context_tokens"} <= set(row.fields):
        needed = "model, gpu, sequences, context_tokens"
        raise Misuse(explain(f"'{row.name}' is no serving configuration", asked=f"a row with {needed}"))
    setup = replace(
        asked,
        batch=int(row["sequences"]),
        prompt_tokens=int(row["context_tokens"]) - 1,
        output_tokens=1,
        chunk_tokens=CHUNK_TOKENS,
    )
    memory, most = fit(setup), largest_batch(setup)
    if memory is None or most is None:
        raise Misuse(explain(f"the needs of '{row.name}' are not known", asked=setup.label))
    batch = min(setup.batch, most)
    running = replace(setup, batch=batch) if batch else None
    seconds = None if running is None else _step_seconds(running)
    return Optimization(
        name=row.name,
        setup=setup,
        fit=memory,
        batch=batch,
        longest_context=longest_context(setup) or 0,
        shares=None if running is None or seconds is None else _shares(running, seconds),
        tokens_per_sec=batch / seconds if seconds else None,
        contradictions=tuple(_contradictions(row, setup)),
    )


def _flops(setup: Setup) -> float:
    """FLOPs of one decode step of the batch at its full length."""
    return setup.batch * setup.shape.flops_per_token(setup.context_tokens)


def _step_seconds(setup: Setup) -> float | None:
    """The roofline's time of one step at the data sheet's peaks: the longer of reading and computing."""
    top = ceiling(setup)
    if top is None or setup.flops_per_sec is None:
        return None
    return max(top.bytes_per_step / top.bandwidth_bytes_per_sec, _flops(setup) / setup.flops_per_sec)


def _shares(setup: Setup, seconds: float) -> Shares:
    memory, bandwidth, peak = fit(setup), setup.bytes_per_sec or 0.0, setup.flops_per_sec or 0.0
    return Shares(
        memory=100 * memory.total_bytes / memory.available_bytes if memory else 0.0,
        bandwidth=100 * mbu(setup.step_bytes(), 1000 * seconds, bandwidth),
        compute=100 * mfu(_flops(setup), seconds, peak),
    )


def _contradictions(row: Row, setup: Setup) -> list[str]:
    """What the checks find in the row, and what only its percentages together show."""
    found = [text for check in (PHYSICS_CHECKS | ARITHMETIC_CHECKS).values() for _, text in check(row)]
    limit = setup.shape.max_positions
    if limit is not None and setup.context_tokens > limit:
        found.append(f"a context of {setup.context_tokens} tokens; the model has {limit} positions")
    stated = row.fields.get("utilization_percent", {})
    seconds = _step_seconds(setup)
    if {"compute", "bandwidth"} <= set(stated) and seconds is not None:
        shares = _shares(setup, seconds)
        ours = shares.compute / shares.bandwidth
        if not (span(stated["compute"]) / span(stated["bandwidth"])).overlaps(Span(0.8 * ours, 1.25 * ours)):
            found.append(
                f"compute {printed(stated['compute'])} % beside bandwidth {printed(stated['bandwidth'])} %; "
                f"at any speed {setup.batch} sequences have them at {ours:.3f} to 1"
            )
    if {"memory", "compute", "bandwidth"} <= set(stated) and "overall_percent" in row:
        mean = sum(float(value) for value in stated.values()) / len(stated)
        if row.span("overall_percent").overlaps(Span(mean - 0.05, mean + 0.05)):
            text = f"overall {printed(row['overall_percent'])} % is the mean of memory, compute and bandwidth"
            found.append(f"{text}, three shares of different things")
    return found
