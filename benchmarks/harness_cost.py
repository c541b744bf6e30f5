"""What the harness costs: decode rate through the measuring loop over that of the bare decode loop.

Run `python benchmarks/harness_cost.py [--device cuda --model Qwen/Qwen2.5-Coder-7B-Instruct --optimize max]`;
prints markdown. One process, one loaded model (dummy weights), equal settings. The harness side is what a
fixture's round is: request, engine, sentinel reading GPU and host meanwhile, metrics (`measure.observe`). The
bare side calls the decoder and nothing else. Rounds alternate A B B A; each pair gives a ratio of rates, once
by the wall clock around the call and once by the times of the steps, from the first token to the last. What
of a harness round lies outside the decoder is also timed within the same round, which no drift can disturb.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch

from pytest_qwen import detect
from pytest_qwen.engines.base import LoadSpec, Request
from pytest_qwen.engines.tokenizing import prompt_ids
from pytest_qwen.engines.transformers_ import TransformersEngine
from pytest_qwen.measure import Observer, observe
from pytest_qwen.metrics import RoundContext
from pytest_qwen.readers import NvmlReader, ProcReader
from pytest_qwen.sentinel import Sentinel
from pytest_qwen.statistics import interval

LEAST_RATIO = 0.99
WARM_UP_ROUNDS = 3

# (seconds by the wall clock, seconds from first token to last)
Times = tuple[float, float]


def load(given: argparse.Namespace) -> TransformersEngine:
    engine = TransformersEngine()
    loaded = engine.load(
        LoadSpec(
            engine="transformers",
            model=given.model,
            device=given.device,
            dtype="bfloat16" if given.device == "cuda" else "float32",
            optimize=given.optimize,
            weights="dummy",
            max_model_len=512,
        )
    )
    print(f"{given.model}, {given.optimize}: {'; '.join(loaded.applied)}\n")
    return engine


def harness_side(engine: TransformersEngine, request: Request, device: str) -> Callable[[], Times]:
    gpus = detect.detect() if device == "cuda" else ()
    gpu = NvmlReader(gpus[0].uuid) if gpus else None
    sentinel = Sentinel(gpu=gpu, host=ProcReader(), engine_pid=os.getpid())
    observer = Observer(watch=sentinel.watch, clock_s=time.monotonic, context=lambda *_: RoundContext())

    def run() -> Times:
        started = time.perf_counter()
        seen, _ = observe(engine.run, request, observer)
        return time.perf_counter() - started, (seen.token_ms[-1] - seen.token_ms[0]) / 1000

    return run


def time_decoder(engine: TransformersEngine) -> list[float]:
    """From now on, the seconds of every call that the engine makes of its decoder."""
    decoder, inside = engine._decoder, []
    assert decoder is not None
    run = decoder.run

    def timed(*arguments: Any, **named: Any) -> Any:
        started = time.perf_counter()
        result = run(*arguments, **named)
        inside.append(time.perf_counter() - started)
        return result

    decoder.run = timed  # type: ignore[method-assign]
    return inside


def bare_side(engine: TransformersEngine, request: Request) -> Callable[[], Times]:
    decoder = engine._decoder
    assert decoder is not None
    ids = torch.tensor(prompt_ids(request, engine._tokenizer, engine._vocab), dtype=torch.long)
    decode = decoder.run

    def run() -> Times:
        started = time.perf_counter()
        result = decode(ids, request.output_tokens)
        return time.perf_counter() - started, (result.token_ns[-1] - result.token_ns[0]) / 1e9

    return run


def in_turn(bare: Callable[[], Times], harness: Callable[[], Times], pairs: int) -> list[tuple[Times, Times]]:
    """(bare, harness) of each pair, in the order A B B A."""
    for _ in range(WARM_UP_ROUNDS):
        bare()
        harness()
    found = []
    for number in range(pairs):
        if number % 2 == 0:
            a, b = bare(), harness()
        else:
            b, a = harness(), bare()
        found.append((a, b))
    return found


def row(title: str, which: int, tokens: int, found: list[tuple[Times, Times]]) -> str:
    ratios = [bare[which] / harness[which] for bare, harness in found]  # rates, so times upside down
    low, high = interval(ratios, unseen_drift=0.0)
    bare_rate, harness_rate = (tokens / median(pair[side][which] for pair in found) for side in (0, 1))
    ratio = f"{median(ratios):.4f} [{low:.4f}, {high:.4f}]"
    return f"| {title} | {bare_rate:.2f} | {harness_rate:.2f} | {ratio} | {len(found)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--model", default="embedded/qwen2-tiny")
    parser.add_argument("--optimize", default="eager")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--pairs", type=int, default=40)
    given = parser.parse_args()
    engine = load(given)
    request = Request(prompt_tokens=64, output_tokens=given.tokens, ignore_eos=True)
    bare = bare_side(engine, request)
    inside = time_decoder(engine)
    found = in_turn(bare, harness_side(engine, request, given.device), given.pairs)
    name = torch.cuda.get_device_name() if given.device == "cuda" else f"{os.cpu_count()} CPUs"
    print(f"{name}, Python {platform.python_version()}, torch {torch.__version__}\n")
    print("| rate of | bare, tok/s | harness, tok/s | ratio | pairs |")
    print("| --- | --- | --- | --- | --- |")
    print(row("the whole call, by the wall clock", 0, given.tokens, found))
    print(row("decoding, by the steps' times", 1, given.tokens - 1, found))
    rounds = [harness[0] for _, harness in found]
    outside = [whole - within for whole, within in zip(rounds, inside[-len(rounds) :], strict=True)]
    share = median(part / whole for part, whole in zip(outside, rounds, strict=True))
    milliseconds = median(outside) * 1000
    print(f"\nOutside the decoder: {milliseconds:.2f} ms a round of {given.tokens} tokens, {share:.2%}.")
    print(f"Ratios are medians over pairs with their 99 % interval. Wanted: at least {LEAST_RATIO}.")


if __name__ == "__main__":
    main()
