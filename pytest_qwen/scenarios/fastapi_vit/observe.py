"""Runs a generated image server three times: with the model, with a slow one, and with none."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from pytest_qwen.battery import battery
from pytest_qwen.environments import first_environment, needs_substitution, retry_in_tf4
from pytest_qwen.exchanges import Call
from pytest_qwen.openapi import (
    Document,
    NotReadable,
    find_health,
    find_predict,
    read_document,
    routes_document,
)
from pytest_qwen.records import plain
from pytest_qwen.sandbox.base import Sandbox, SandboxFault
from pytest_qwen.scenarios.base import Seen, Trial, result_of
from pytest_qwen.scenarios.deeper import look_deeper
from pytest_qwen.scenarios.fastapi_vit.calls import ASKABLE, Caller, Images, health_call, shuffled
from pytest_qwen.scenarios.fastapi_vit.slow import ask_slow
from pytest_qwen.scenarios.starting import another_stub, example_calls, launch_of
from pytest_qwen.serving import Serving
from pytest_qwen.standin import ALIASES, Standin, packed_standin

MODEL_ID = "Falconsai/nsfw_image_detection"
_DOCUMENT = Call(name="openapi", method="GET", path="/openapi.json")
_DOCUMENT_BYTES = 2 << 20
_METRICS = Call(name="metrics", method="GET", path="/metrics")
# After this many calls in a row that ran into their deadline the server hangs: the rest need not be asked.
_HUNG = 2


def prepare(sandbox: Sandbox, seed: int) -> dict[str, Any]:
    """The session's stand-in model, as it crosses JSON."""
    return packed_standin(sandbox, seed, (MODEL_ID, *ALIASES))


def observe(trial: Trial, seen: Seen) -> None:
    """Fill `seen` with all that the rubric reads.

    The program is started again with transformers 4 where version 5 is why it failed, and with a stub for a
    package that the image lacks where stubs were asked for.
    """
    environment, notes = first_environment(trial.source.get("requirements", ())), []
    stubs: tuple[str, ...] = ()
    while True:
        _once(trial, seen, environment, stubs)
        stub = another_stub(trial, seen, stubs)
        main = seen.servers.get("main")
        why = retry_in_tf4(main.log_tail or main.log_head) if main and not main.ready else None
        if stub:
            stubs = (*stubs, stub)
            notes.append(f"run with an empty stub instead of {stub!r}")
        elif why and environment == "tf5":
            environment = "tf4"
            notes.append(f"run with transformers 4, because with 5: {why}")
        else:
            break
        seen.forget()
    for name in needs_substitution(trial.source.get("model_ids", ()), (MODEL_ID,)):
        notes.append(f"model substitution: {name} leads to the stand-in too")
    seen.facts["notes"] = notes
    look_deeper(trial, seen, launch_of(trial, environment=environment, hub=trial.material.hub, stubs=stubs))


def _once(trial: Trial, seen: Seen, environment: str, stubs: tuple[str, ...]) -> None:
    """All three starts at once: they share the machine while they import, which is most of the time."""
    standin: Standin = trial.material
    seen.facts |= {
        "oracle": standin.oracle,
        "slow_oracle": standin.slow_oracle,
        "labels": list(standin.labels),
    }
    hubs: Mapping[str, Mapping[str, bytes]] = {"main": standin.hub, "slow": standin.slow_hub, "empty": {}}
    servings = {
        purpose: Serving(trial.sandbox, launch_of(trial, environment=environment, hub=hub, stubs=stubs))
        for purpose, hub in hubs.items()
    }
    works = _Signal()
    parts: dict[str, Callable[[], None]] = {
        "main": lambda: _main(trial, seen, servings["main"], works, hopeless=servings["slow"].remove)
    }
    if not trial.brief:
        parts["empty"] = lambda: _empty(seen, servings["empty"], works)
        parts["slow"] = lambda: _slow(seen, servings["slow"], works)
    with ThreadPoolExecutor(len(parts)) as pool:
        futures = [pool.submit(_timed, seen, purpose, part) for purpose, part in parts.items()]
        try:
            for future in futures:
                result_of(future, seen)
        finally:  # Ctrl-C arrives here: what the other threads wait for ends with its container
            works.say(None)
            for serving in servings.values():
                with suppress(SandboxFault):
                    serving.remove()


def _timed(seen: Seen, purpose: str, part: Callable[[], None]) -> None:
    started = time.monotonic()
    try:
        part()
    finally:
        seen.timings_s[purpose] = time.monotonic() - started


class _Signal:
    """What the first start tells the others: the caller of a server that answers an image, or None."""

    def __init__(self) -> None:
        self._known = threading.Event()
        self._caller: Caller | None = None

    def say(self, caller: Caller | None) -> None:
        """Tell it once; what is said later changes nothing."""
        if not self._known.is_set():
            self._caller = caller
            self._known.set()

    def wait(self) -> Caller | None:
        """The caller, once it is known; None when there is nothing to ask."""
        self._known.wait()
        return self._caller


# ---- with the model


def _main(
    trial: Trial, seen: Seen, serving: Serving, works: _Signal, *, hopeless: Callable[[], None]
) -> None:
    try:
        with serving:
            if serving.ready():
                _ask_main(trial, seen, serving, works)
                serving.steady()
            seen.servers["main"] = serving.server()
    finally:
        works.say(None)
        if works.wait() is None:
            hopeless()


def _ask_main(trial: Trial, seen: Seen, serving: Serving, works: _Signal) -> None:
    probe = serving.probe
    seen.exchanges |= probe.batch([_DOCUMENT], keep_bytes=_DOCUMENT_BYTES)
    document = read_document(seen.exchanges["openapi"].body)
    seen.facts["api"] = {"error": document.reason} if isinstance(document, NotReadable) else plain(document)
    offered = document if isinstance(document, Document) else routes_document(trial.source.get("routes", ()))
    predict = find_predict(offered)
    seen.facts["predict"] = None if predict is None else plain(predict)
    health = find_health(offered)
    if health is not None:
        seen.facts["health"] = health.path
        seen.exchanges |= probe.batch([health_call("health", health.path)])
    if predict is None or predict.how not in ASKABLE:
        if predict is not None:
            seen.facts["cannot_ask"] = (
                f"it takes images by {predict.how} only, and nothing outside can be reached from the sandbox"
            )
        return
    standin: Standin = trial.material
    caller = Caller(predict, Images(pairs=standin.images, battery=battery()))
    if not _ask(seen, serving, caller.labelled()):
        return
    if seen.exchanges["good.0"].ok:
        works.say(caller)  # the slow start is worth its time
    else:
        works.say(None)
    calls = shuffled(caller.kinds(), trial.seed) + shuffled(caller.bad(), trial.seed)
    if not _ask(seen, serving, calls):
        return
    seen.exchanges |= probe.batch(caller.parallel(8))
    _ask(seen, serving, [caller.good("after.0", "good.0")])
    _ask_large(seen, serving, caller)
    _ask(seen, serving, [caller.bomb(), caller.good("after.1", "good.0"), _METRICS])
    _ask(seen, serving, example_calls(trial.source, standin.images["good.0"]))


def _ask(seen: Seen, serving: Serving, calls: list[Call]) -> bool:
    """One call after the other; False when the server hangs, and then the rest is not asked."""
    hung = 0
    for call in calls:
        found = serving.probe.batch([call])
        seen.exchanges |= found
        failure = found[call.name].failure or ""
        hung = hung + 1 if failure.startswith("deadline") else 0
        if hung >= _HUNG:
            seen.facts["hung"] = f"{_HUNG} calls in a row were not answered in time"
            return False
    return True


def _ask_large(seen: Seen, serving: Serving, caller: Caller) -> None:
    """25 MiB, while the engine is asked for the guest's resident memory."""
    before = peak = serving.guest.resident_bytes()
    serving.probe.begin([caller.large()])
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.05):
            now = serving.guest.resident_bytes()
            peak = max(filter(None, (peak, now)), default=None)

    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(watch)
        try:
            seen.exchanges |= serving.probe.finish()
        finally:
            done.set()
        watching.result()
    seen.facts["memory"] = {"before_bytes": before, "peak_bytes": peak}


# ---- without the model


def _empty(seen: Seen, serving: Serving, works: _Signal) -> None:
    with serving:
        if serving.ready():
            path = seen.facts.get("health") if works.wait() else None
            caller = works.wait()
            calls = [health_call("empty.health", path)] if path else []
            if caller is not None:
                calls.append(caller.good("empty.predict", "good.0"))
            seen.exchanges |= serving.probe.batch(calls, at_once=1) if calls else {}
        seen.servers["empty"] = serving.server()


# ---- with the slow model


def _slow(seen: Seen, serving: Serving, works: _Signal) -> None:
    with serving:
        ready = serving.ready()
        caller = works.wait()
        if caller is None:
            return
        if ready:
            ask_slow(seen, serving, caller)
        seen.servers["slow"] = serving.server()
