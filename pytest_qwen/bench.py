"""The composition root of a run: target, pool, sentinel and physics put together. Knows no pytest."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

from pytest_qwen import data, detect, physics
from pytest_qwen.ask import RunRequest
from pytest_qwen.configurations import check_context, check_split, shape_from_config
from pytest_qwen.engines import ENDPOINT, TRAINING
from pytest_qwen.engines.base import Engine, Loaded, LoadSpec, Request, Trace
from pytest_qwen.engines.child import ChildEngine
from pytest_qwen.engines.precisions import card_lacks, check_kv_cache, method_of, padded_inputs
from pytest_qwen.engines.profiles import PROFILES
from pytest_qwen.engines.servers import SERVERS
from pytest_qwen.errors import DoesNotFit, QwenError, Unavailable
from pytest_qwen.evidence import Round
from pytest_qwen.gpus import Device, GpuSpec
from pytest_qwen.loading import load_spec, workload_request
from pytest_qwen.locks import DeviceLock
from pytest_qwen.measure import Limits, Observer, Progress
from pytest_qwen.memory import Fit, fit
from pytest_qwen.metrics import RoundContext
from pytest_qwen.models import ModelShape
from pytest_qwen.planning import promised
from pytest_qwen.pool import Lease, LoadRecord, Pool
from pytest_qwen.readers import GpuReader, NvmlReader, ProcReader
from pytest_qwen.roofline import SERVING_CHUNK_TOKENS, Setup, memory_bytes
from pytest_qwen.run import Conditions, Run
from pytest_qwen.sentinel import Sentinel, WindowLimits
from pytest_qwen.settings import Settings
from pytest_qwen.target import Target, priced, resolve

# Allocator settings of the published stacks: large segments that can grow fragment less.
_ALLOCATOR = {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True", "TOKENIZERS_PARALLELISM": "false"}

# A training step keeps the matrix units busy throughout: a clock that the power limit holds down is what the
# card gives for such work, not a disturbance. Heat and power brakes still spoil a round.
_TRAINING_LIMITS = WindowLimits(power_cap_clock_ratio=0.0)

# Of an open loop nobody knows how many requests will be on their way at once: more than any server keeps.
_ANY_NUMBER = 1_000_000

# A client shares no CPU with the server that it asks, and tells itself when it could not keep up. Many users
# keep the card at its power limit, as training does.
_CLIENT_LIMITS = WindowLimits(busy_ratio=math.inf, power_cap_clock_ratio=0.0)
_SPECIAL_LIMITS = {TRAINING: _TRAINING_LIMITS, **dict.fromkeys((ENDPOINT, *SERVERS), _CLIENT_LIMITS)}


class Bench:
    """Everything that measuring needs, made when it is first needed.

    `on_wait` is told what a load waits for, `on_progress` how a measurement goes. `devices` says what is
    there; NVML when None.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        on_wait: Callable[[str], None] = lambda _text: None,
        on_progress: Callable[[Progress], None] = lambda _progress: None,
        devices: Callable[[], tuple[Device, ...]] | None = None,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self._on_wait = on_wait
        self._on_progress = on_progress
        self._devices = devices or detect.detect
        self._clock_s = clock_s
        self._pools: dict[int, Pool] = {}

    @cached_property
    def target(self) -> Target:
        """What this run is on. Raises Misuse for a GPU that is not there, and for a wrong price file."""
        asked = self.settings.gpu.lower()
        remote = self.settings.endpoint is not None
        # the user says what stands behind an endpoint: a card of this machine need not be it
        devices = () if asked == "cpu" or (remote and asked == "auto") else self._devices()
        found = resolve(self.settings.gpu, devices, planning=self.settings.plan or remote)
        return priced(found, data.read_prices(self.settings.prices)) if self.settings.prices else found

    @property
    def memory_bytes(self) -> float | None:
        """Memory of the run's card: the driver's figure, else the catalogue's; None on a CPU."""
        card = self._card
        return None if card is None else memory_bytes(card)

    @property
    def _card(self) -> GpuSpec | Device | None:
        """The device of the run, else the catalogue's row that it is planned for; None on a CPU."""
        target = self.target
        if target.is_cpu:
            return None
        return target.devices[0] if target.devices else target.spec

    @property
    def loads(self) -> tuple[LoadRecord, ...]:
        """Every load of this run, in order."""
        return tuple(load for pool in self._pools.values() for load in pool.loads)

    def spec_for(self, request: RunRequest, overrides: Mapping[str, Any] | None = None) -> LoadSpec:
        """What a test loads on this run's target. Raises Misuse for what no card and no shape allows."""
        spec = load_spec(request, self.settings, self.target, overrides)
        if spec.engine == "transformers":  # other engines have names of their own
            _check_names(spec)
        shape = None if spec.engine in ("fake", TRAINING) else data.find_shape(spec.model)
        if shape is not None:
            longest = (overrides or {}).get("max_model_len", request.model.max_model_len) or 0
            work = request.workload
            check_context(shape, longest, f"@model(max_model_len={longest})")
            check_context(
                shape, (work.prompt_tokens or 0) + (work.output_tokens or 0), "prompt and output of @workload"
            )
            check_split(shape, spec.tensor_parallel)
        return spec

    def lacking(self, request: RunRequest) -> str | None:
        """Why the card of this run cannot run a test's weights, where that is known; None otherwise."""
        spec, card = self.spec_for(request), self.target.spec
        capability = card.compute_capability if card else None
        return None if capability is None or spec.engine != "transformers" else card_lacks(spec, capability)

    def setup_of(self, shape: ModelShape, spec: LoadSpec, asked: Request) -> Setup | None:
        """The arithmetic's view of a load and its workload; None on a CPU or an unknown card."""
        card = self._card
        if card is None or self.target.spec is None:
            return None
        return Setup(
            shape=shape,
            gpu=card,
            dtype=spec.dtype,
            quantization=spec.quantization,
            kv_dtype=spec.kv_cache,
            prompt_tokens=asked.prompt_tokens or 1,
            output_tokens=asked.output_tokens,
            batch=asked.batch_size,
            count=spec.tensor_parallel,
            attention=spec.attention,
            reserved_tokens=_reserved_tokens(spec),
            padded_inputs=padded_inputs(spec),
            widens_kv=_widens_kv(spec),
            users=None if asked.load is None else asked.load.concurrency or _ANY_NUMBER,
            chunk_tokens=None if spec.engine == "transformers" else SERVING_CHUNK_TOKENS,
        )

    def setup_for(self, request: RunRequest, spec: LoadSpec | None = None) -> Setup | None:
        """The same for a test; None too when the model's shape is not known, or the engine is not real."""
        spec = spec or self.spec_for(request)
        shape = None if spec.engine in ("fake", TRAINING) else data.find_shape(spec.model)
        return None if shape is None else self.setup_of(shape, spec, workload_request(request.workload))

    def refusal(self, request: RunRequest) -> str | None:
        """The arithmetic, when physics forbids one of the test's bounds on this card; None otherwise."""
        setup = self.setup_for(request)
        if setup is None:
            return None
        price = request.price_per_hour_usd
        certain = promised(setup, request.workload)
        found = (physics.refusal(bound, certain, price_per_hour_usd=price) for bound in request.bounds)
        return next((text for text in found if text), None)

    def fit_of(self, request: RunRequest, spec: LoadSpec) -> Fit | None:
        """The memory plan of a test's model on this run's card, None where it is not known."""
        setup = self.setup_for(request, spec)
        return None if setup is None else fit(setup)

    def _fit(self, spec: LoadSpec, shape: ModelShape | None, asked: Request) -> Fit | None:
        """The memory plan of one request to what is loaded."""
        setup = None if shape is None or spec.engine == "fake" else self.setup_of(shape, spec, asked)
        return None if setup is None else fit(setup)

    def _overload(self, spec: LoadSpec, shape: ModelShape | None, asked: Request) -> str | None:
        """Why the card could not keep up with an open loop's arrivals, None where nothing says so."""
        if shape is None or spec.engine == "fake" or asked.load is None or asked.load.request_rate is None:
            return None
        setup = self.setup_of(shape, spec, asked)
        return None if setup is None else physics.overload(setup, asked.load.request_rate)

    def plan_facts(self, request: RunRequest, spec: LoadSpec) -> dict[str, Any]:
        """Fit lines and ceiling for the record; empty where the arithmetic is not known."""
        setup = self.setup_for(request, spec)
        plan, top = (None, None) if setup is None else (fit(setup), physics.ceiling(setup))
        facts: dict[str, Any] = {}
        if plan is not None:
            facts["fit"] = [[label, amount] for label, amount in plan.lines]
            facts["total_bytes"], facts["available_bytes"] = plan.total_bytes, plan.available_bytes
        if top is not None:
            facts["ceiling_tokens_per_sec"], facts["arithmetic"] = top.tokens_per_sec, top.arithmetic
        return facts

    def open(
        self,
        request: RunRequest,
        overrides: Mapping[str, Any] | None = None,
        *,
        keep: LoadSpec | None = None,
        check_fit: bool = True,
    ) -> Run:
        """Lease the test's model and make its run. `keep` is a spec that stays loaded beside it.

        Raises the engine errors; DoesNotFit from a real load gains the plan.
        """
        spec = self.spec_for(request, overrides)
        plan = self.fit_of(request, spec)
        # what an endpoint has loaded does fit, in whatever way
        if check_fit and plan is not None and plan.hopeless and spec.engine != ENDPOINT:
            raise DoesNotFit(_does_not_fit(spec, self.target, plan))
        index, pool = self._pool()
        try:
            lease = pool.lease(spec, keep=() if keep is None else (keep,))
        except DoesNotFit as error:
            raise DoesNotFit(_does_not_fit(spec, self.target, plan, str(error))) from error
        return Run(
            request=request,
            spec=spec,
            engine=lease.engine,
            loaded=lease.loaded,
            observer=self._observer(index, lease, request),
            conditions=Conditions(
                alpha=self.settings.alpha,
                limits=Limits(budget_s=self.settings.budget_s),
                ceilings_of=partial(self._ceilings, request, spec, _shape_of(spec, lease.loaded)),
                overload_of=partial(self._overload, spec, _shape_of(spec, lease.loaded)),
                fit_of=partial(self._fit, spec, _shape_of(spec, lease.loaded)),
            ),
            observed=_facts(lease),
        )

    def evict(self) -> None:
        """Unload everything, so that the next lease starts a fresh process."""
        for pool in self._pools.values():
            pool.evict()

    def close(self) -> None:
        """Unload everything and give the devices back; safe to call twice."""
        for pool in self._pools.values():
            pool.close()

    def _pool(self) -> tuple[int, Pool]:
        """The pool of the first device that is free, else of the first one, which is then waited for.

        Two sessions that load one endpoint would measure each other, as on a device of this machine.
        """
        if self._pools:
            return next(iter(self._pools.items()))
        devices = self.target.devices
        locks = [DeviceLock(d.uuid) for d in devices] or [DeviceLock(self.settings.endpoint or "cpu")]
        chosen = next((i for i, lock in enumerate(locks) if _free(lock)), 0)
        visible = devices[chosen].uuid if devices else None
        self._pools[chosen] = Pool(
            partial(_engine, self.settings, visible),
            locks=[locks[chosen]],
            memory=_memory_reader(devices[chosen]) if devices else None,
            on_wait=self._on_wait,
            clock=self._clock_s,
        )
        return chosen, self._pools[chosen]

    def _observer(self, index: int, lease: Lease, request: RunRequest) -> Observer:
        reader: GpuReader | None = _memory_reader(self.target.devices[index]) if self.target.devices else None
        limits = _SPECIAL_LIMITS.get(lease.spec.engine)
        sentinel = Sentinel(gpu=reader, host=ProcReader(), engine_pid=lease.loaded.pid, limits=limits)
        return Observer(
            watch=sentinel.watch,
            clock_s=self._clock_s,
            context=partial(self._context, _shape_of(lease.spec, lease.loaded), lease.spec, request),
            on_progress=self._on_progress,
        )

    def _context(
        self, shape: ModelShape | None, spec: LoadSpec, asked: RunRequest, request: Request, trace: Trace
    ) -> RoundContext:
        """What is known of a round apart from its times."""
        card = self.target.spec
        one = card.price_per_hour_usd if card else None
        price = asked.price_per_hour_usd or (one and one * spec.tensor_parallel)
        if spec.engine == TRAINING:
            return RoundContext(training=True)
        seen = replace(request, prompt_tokens=trace.prompt_tokens, output_tokens=trace.output_tokens)
        setup = None if shape is None else self.setup_of(shape, spec, seen)
        if shape is None or setup is None or not setup.sizes_known:
            return RoundContext(price_per_hour_usd=price)
        return RoundContext(
            bytes_per_step=setup.step_bytes(),
            prefill_flops=shape.prefill_flops(trace.prompt_tokens, trace.batch_size),
            peak_bytes_per_sec=setup.bytes_per_sec,
            peak_flops_per_sec=setup.flops_per_sec,
            price_per_hour_usd=price,
        )

    def _ceilings(
        self, request: RunRequest, spec: LoadSpec, shape: ModelShape | None, seen: Round
    ) -> dict[str, float]:
        """What physics allows the bounded metrics, and decoding, for the work that a round really did."""
        if shape is None or spec.engine == "fake":  # a fake engine's times obey a programme, not physics
            return {}
        asked = Request(
            prompt_tokens=seen.prompt_tokens, output_tokens=seen.output_tokens, batch_size=seen.batch_size
        )
        setup = self.setup_of(shape, spec, asked)
        if setup is not None and seen.client is not None:
            users = math.ceil(seen.client.in_flight) or _ANY_NUMBER
            setup = replace(promised(setup, request.workload), users=users)
        if spec.engine == TRAINING:
            least = None if setup is None else physics.least_training_seconds(setup)
            return {} if least is None else {"step_time_s": least}
        top = None if setup is None else physics.ceiling(setup)
        if setup is None or top is None:
            return {}
        best = {b.metric: physics.best_possible(b, setup, request.price_per_hour_usd) for b in request.bounds}
        known = {metric: value for metric, value in best.items() if value is not None}
        return {"decode_tokens_per_sec": top.tokens_per_sec, **known}


def _check_names(spec: LoadSpec) -> None:
    """Raises Misuse for a quantisation or a KV cache type that does not exist: a load would take seconds."""
    if spec.quantization is not None:
        method_of(spec.quantization)
    if spec.kv_cache is not None:
        check_kv_cache(spec.kv_cache)


def _reserved_tokens(spec: LoadSpec) -> int | None:
    """The room that a static cache takes at once; None for one that grows, or an unknown profile."""
    profile = PROFILES.get(spec.optimize) if spec.engine == "transformers" else None
    return spec.max_model_len if profile is not None and profile.cache == "static" else None


def _widens_kv(spec: LoadSpec) -> bool:
    """Whether attention gets a cache in fewer bits widened, and not as codes that its own kernel reads."""
    profile = PROFILES.get(spec.optimize) if spec.engine == "transformers" else None
    return profile is not None and profile.attention is None


def _engine(settings: Settings, visible: str | None, spec: LoadSpec) -> Engine:
    return ChildEngine(
        spec.engine,
        # a server has settings of its own: vLLM's sleep mode did not start with segments that can grow
        env={} if spec.engine in SERVERS else _ALLOCATOR,
        visible_device=visible,
        load_timeout_s=settings.load_timeout_s,
        run_timeout_s=settings.run_timeout_s,
    )


def _memory_reader(device: Device) -> NvmlReader | None:
    """NVML for this device; None where it does not answer, and then memory is unknown."""
    try:
        return NvmlReader(device.uuid)
    except Unavailable:
        return None


def _free(lock: DeviceLock) -> bool:
    try:
        lock.acquire(0.0)
    except Unavailable:
        return False
    lock.release()
    return True


def _shape_of(spec: LoadSpec, loaded: Loaded) -> ModelShape | None:
    """The model's shape from its loaded configuration, else from the shipped ones."""
    try:
        return shape_from_config(loaded.config, spec.model) if loaded.config else data.find_shape(spec.model)
    except QwenError:
        return None  # an architecture whose arithmetic is not known: metrics that need it stay unknown


def _facts(lease: Lease) -> dict[str, float]:
    """What the load itself showed."""
    facts = {"load_time_s": lease.loaded.load_s}
    if lease.loaded.first_call_s is not None:
        facts["first_call_s"] = lease.loaded.first_call_s
    if lease.memory_before_load_bytes is not None:
        facts["memory_before_load_bytes"] = lease.memory_before_load_bytes
    return facts


def _does_not_fit(spec: LoadSpec, target: Target, plan: Fit | None, found: str = "") -> str:
    """The message of a model that is too large: what happened, the plan line by line, what would help."""
    title = f"{spec.model} in {spec.quantization or spec.dtype} does not fit {target.label}"
    return "\n".join(
        filter(
            None,
            (
                plan.explain(title) if plan else title,
                f"  found: {found}" if found else "",
                "  next step: a quantised model (quantization='int4'), a shorter context, or a larger card",
            ),
        )
    )
