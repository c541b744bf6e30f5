"""How exactly load generators tell what a server did: ours and others, beside the mock server's own log.

Run `python benchmarks/client_accuracy.py [--streams 1 16] [--tool NAME=PATH ...]`; prints markdown. NAME is
"vllm", "guidellm" or "aiperf", PATH its command in an environment of its own, `--tokenizer` a folder with a
tokenizer for them. Client and server stay on one CPU each, so two CPUs should be idle. The truth is when the
server really sent what: TTFT from a request's arrival to its first chunk, ITL the mean of an answer's gaps.
"held" is the mean number of requests in the server between the first arrival and the last one, over the asked
number; "CPU" what the client's processes used of one CPU in that time.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean, median

from pytest_qwen import generators
from pytest_qwen.engines.base import LoadSpec, Request
from pytest_qwen.engines.endpoint import EndpointEngine
from pytest_qwen.streams import Load, Stream
from pytest_qwen.testing import MockServer, Served

CLIENT_CPU, SERVER_CPU = 0, 1
TTFT_MS, GAP_MS, TOKENS, PROMPT = 200.0, 20.0, 64, 64
WAVES = {1: 12}  # answers one after the other for each stream; others as below
OTHERWISE = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a client said of each request, ms, and what it said of itself."""

    ttft_ms: list[float]
    itl_ms: list[float]
    digests: list[str]
    note: str = ""


def percentile(values: Sequence[float], share: float) -> float:
    """By linear interpolation, as numpy does."""
    ordered = sorted(values)
    at = share * (len(ordered) - 1)
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)


def told_of(streams: Sequence[Stream]) -> Told:
    """TTFT and mean gap of each stream that has them."""
    whole = [one for one in streams if one.ttft_ms is not None and one.last_ms is not None and one.complete]
    itl = [
        (one.last_ms - one.ttft_ms) / (TOKENS - 1) for one in whole if one.last_ms and one.ttft_ms is not None
    ]
    return Told(
        ttft_ms=[one.ttft_ms for one in whole if one.ttft_ms is not None],
        itl_ms=itl,
        digests=[one.digest for one in whole if one.digest],
    )


def run_ours(url: str, streams: int, requests: int, folder: Path) -> Told:
    """Our own client in a process of its own, as the plugin runs it."""
    result = folder / "ours.json"
    command = [sys.executable, __file__, "--as-client", url, str(streams), str(requests), str(result)]
    subprocess.run(command, check=True)
    found = json.loads(result.read_text())
    told = told_of([Stream(**one | {"chunk_ms": tuple(one["chunk_ms"])}) for one in found["streams"]])
    return replace(told, note=found["note"])


def as_client(url: str, streams: int, requests: int, result: Path) -> None:
    """The inside of `run_ours`: one load, one long slice."""
    engine = EndpointEngine()
    engine.load(LoadSpec(engine="endpoint", model="mock", options=(("url", url),)))
    load = Load(concurrency=streams, slice_requests=requests - streams)
    trace = engine.run(Request(prompt_tokens=PROMPT, output_tokens=TOKENS, ignore_eos=True, load=load))
    engine.rest()
    engine.close()
    client = trace.client
    assert client is not None
    note = f"says itself: held {client.held_ratio:.1%}, lag p99 {client.lag_p99_ms:.2f} ms"
    result.write_text(json.dumps({"streams": [asdict(one) for one in trace.streams], "note": note}))


def tool(name: str, path: str, tokenizer: str) -> Callable[[str, int, int, Path], Told]:
    """A runner of another tool, that reads its result file as the package does."""

    def run(url: str, streams: int, requests: int, folder: Path) -> Told:
        command, result = COMMANDS[name](path, url.removesuffix("/v1"), streams, requests, folder, tokenizer)
        environment = os.environ | ({} if name == "aiperf" else {"HF_HUB_OFFLINE": "1"})
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=400
        )
        if done.returncode:
            raise RuntimeError(f"{name}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
        recording = generators.read(result)
        return told_of(recording.streams)

    return run


def vllm(
    path: str, url: str, streams: int, requests: int, folder: Path, tokenizer: str
) -> tuple[list[str], Path]:
    return [
        *(path, "bench", "serve", "--backend", "openai-chat", "--base-url", url),
        *("--endpoint", "/v1/chat/completions", "--model", "mock", "--tokenizer", tokenizer),
        *("--dataset-name", "random", "--random-input-len", str(PROMPT), "--random-output-len", str(TOKENS)),
        *("--num-prompts", str(requests), "--max-concurrency", str(streams), "--ignore-eos"),
        *("--save-result", "--save-detailed", "--result-dir", str(folder), "--result-filename", "vllm.json"),
    ], folder / "vllm.json"


def guidellm(
    path: str, url: str, streams: int, requests: int, folder: Path, tokenizer: str
) -> tuple[list[str], Path]:
    return [
        *(path, "run", "--backend", f"kind=openai_http,target={url},model=mock"),
        *("--profile", f"kind=concurrent,streams={streams}"),
        *("--constraint", f"kind=max_requests,count={requests}"),
        *("--data", f"kind=synthetic_text,prompt_tokens={PROMPT},output_tokens={TOKENS}"),
        *("--tokenizer", f"kind=huggingface_auto,model={tokenizer}"),
        *("--output", f"kind=json,path={folder / 'guidellm.json'}", "--disable-console"),
    ], folder / "guidellm.json"


def aiperf(
    path: str, url: str, streams: int, requests: int, folder: Path, tokenizer: str
) -> tuple[list[str], Path]:
    return [
        *(path, "profile", "--model", "mock", "--url", url, "--endpoint-type", "chat", "--streaming"),
        *("--concurrency", str(streams), "--request-count", str(requests), "--tokenizer", tokenizer),
        *("--isl", str(PROMPT), "--osl", str(TOKENS), "--extra-inputs", "ignore_eos:true"),
        *("--artifact-dir", str(folder / "aiperf"), "--ui", "none"),
    ], folder / "aiperf" / "profile_export.jsonl"


COMMANDS = {"vllm": vllm, "guidellm": guidellm, "aiperf": aiperf}


class CpuWatch:
    """What this process's descendants have used of the CPU, four times a second; the server's aside."""

    def __init__(self, *aside: int) -> None:
        self._aside = set(aside)
        self._stop = threading.Event()
        self._seen: list[tuple[int, float]] = []
        self._thread = threading.Thread(target=self._watch)

    @contextlib.contextmanager
    def watching(self) -> Iterator[CpuWatch]:
        self._thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            self._thread.join()

    def used(self, start_ns: int, end_ns: int) -> float:
        """Of one CPU, between the samples next to both moments."""
        before = min(self._seen, key=lambda one: abs(one[0] - start_ns))
        after = min(self._seen, key=lambda one: abs(one[0] - end_ns))
        return (
            (after[1] - before[1]) / ((after[0] - before[0]) / 1e9) if after[0] > before[0] else float("nan")
        )

    def _watch(self) -> None:
        ticks = os.sysconf("SC_CLK_TCK")
        total: dict[int, float] = {}  # a process that has ended keeps what it had used
        while not self._stop.wait(0.25):
            parents, used = {}, {}
            for stat in Path("/proc").glob("[0-9]*/stat"):
                with contextlib.suppress(OSError):
                    fields = stat.read_text().rsplit(")", 1)[1].split()
                    pid = int(stat.parent.name)
                    parents[pid], used[pid] = int(fields[1]), (int(fields[11]) + int(fields[12])) / ticks
            for pid, seconds in used.items():
                if pid not in self._aside and self._is_ours(pid, parents):
                    total[pid] = seconds
            self._seen.append((time.monotonic_ns(), sum(total.values())))

    @staticmethod
    def _is_ours(pid: int, parents: dict[int, int]) -> bool:
        while pid in parents and parents[pid] > 1:
            pid = parents[pid]
            if pid == os.getpid():
                return True
        return False


def held(served: Sequence[Served], streams: int) -> float:
    """Mean number of requests in the server from the first arrival to the last, over the asked number."""
    start, end = served[0].received_ns, max(one.received_ns for one in served)
    inside = sum(max(0, min(one.ended_ns, end) - one.received_ns) for one in served)
    return inside / (end - start) / streams


def line(name: str, streams: int, run: Callable[[str, int, int, Path], Told]) -> str:
    """One row of the table: one client at one number of streams."""
    requests = streams * WAVES.get(streams, OTHERWISE)
    with (
        MockServer(ttft_ms=TTFT_MS, gap_ms=GAP_MS, cpu=SERVER_CPU) as server,
        tempfile.TemporaryDirectory() as folder,
    ):
        with CpuWatch(server.pid).watching() as watch:
            told = run(server.url, streams, requests, Path(folder))
        # what a tool sends to see whether the server is there comes first and is no part of its result
        asked = [one for one in server.log() if one.stream and one.output_tokens == TOKENS]
        whole = [one for one in server.log() if one.stream and len(one.chunk_ns) > 1][-requests:]
        # by their text where the tool keeps it, else the last ones
        kept = set(told.digests)
        truth = [one for one in asked if one.digest in kept] if kept else asked[-len(told.ttft_ms) :]
    ttft = [one.ttft_ms for one in truth]
    itl = [mean(one.gaps_ms) for one in truth]
    cells = [name, str(streams), str(len(told.ttft_ms))]
    for share in (0.5, 0.99):
        true, said = percentile(ttft, share), percentile(told.ttft_ms, share)
        cells.append(f"{said - true:+.2f} ({said / true - 1:+.2%})")
    cells.append(f"{median(told.itl_ms) / median(itl) - 1:+.3%}")
    cells.append(f"{held(whole, streams):.1%}")
    cells.append(f"{watch.used(whole[0].received_ns, whole[-1].ended_ns):.0%}")
    cells.append(told.note)
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 16, 128])
    parser.add_argument("--tool", action="append", default=[], metavar="NAME=PATH")
    parser.add_argument("--tokenizer", default="", help="folder with a tokenizer, for the other tools")
    parser.add_argument("--as-client", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.as_client:
        url, streams, requests, result = given.as_client
        as_client(url, int(streams), int(requests), Path(result))
        return
    runs = {"pytest-qwen": run_ours}
    for one in given.tool:
        name, _, path = one.partition("=")
        runs[name] = tool(name, path, given.tokenizer)
    os.sched_setaffinity(0, {CLIENT_CPU})  # inherited by whatever is started but the server
    print(
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, Python {platform.python_version()}, {platform.platform()}, "
    )
    print(f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}\n")
    heads = ("client", "streams", "requests", "TTFT p50, ms", "TTFT p99, ms", "ITL", "held", "CPU", "")
    print(f"| {' | '.join(heads)} |\n|{' --- |' * len(heads)}")
    for streams in given.streams:
        for name, run in runs.items():
            print(line(name, streams, run), flush=True)


if __name__ == "__main__":
    main()
