"""Drives other load generators and reads their files: guidellm, aiperf, vllm bench; says what these hide."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from pytest_qwen.errors import EngineFault, Misuse, NotInstalled, explain
from pytest_qwen.streams import State, Stream

# What none of the three writes down: success is a connection that ended without an error.
_NO_END = "whether an answer was whole: one that the server ended half way counts as complete"
_NO_CLIENT = "whether the generator itself was the bottleneck: loop lag, and how much of the load it held"
_VLLM = (
    _NO_END,
    "whether the server counted the tokens: without its counts vllm bench counts them itself",
    _NO_CLIENT,
)
_GUIDELLM = (
    "the longest gap: of the chunks only the first and the last have a time",
    _NO_END,
    "whether the server counted the tokens: without its counts guidellm books those that were asked for",
    _NO_CLIENT,
)
_AIPERF = (_NO_END, _NO_CLIENT)
_TAIL_LINES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """A load that another tool made: its requests, and in words what its file cannot show.

    Times are milliseconds, `scheduled_ms` and `sent_ms` from the first request. `version` is "" when the
    file does not say it.
    """

    tool: str
    version: str
    streams: tuple[Stream, ...]
    hides: tuple[str, ...]


def read(path: Path | str) -> Recording:
    """The requests of a result file: guidellm's JSON, aiperf's profile_export.jsonl, vllm bench's JSON.

    Raises Misuse for another file, and for a summary without requests.
    """
    path = Path(path)
    try:
        text = path.read_text()
    except OSError as error:
        raise Misuse(
            explain("this result file cannot be read", asked=str(path), found=error.strerror)
        ) from error
    try:
        content = (
            [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else json.loads(text)
        )
        for found, reader in _READERS:
            if found(content):
                return reader(content)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise Misuse(
            explain(
                "this result file is not as its tool writes it",
                asked=str(path),
                found=f"{type(error).__name__}: {error}",
            )
        ) from error
    raise Misuse(
        explain(
            "this is no result file with requests in it",
            asked=str(path),
            next_step="give guidellm's JSON, aiperf's profile_export.jsonl, or the JSON of "
            "`vllm bench serve --save-result --save-detailed`",
        )
    )


def drive(command: Sequence[str], result: Path | str, *, timeout_s: float = 3600.0) -> Recording:
    """Run a load generator and read the file that it writes; one that was there before is removed first.

    Raises NotInstalled when there is no such program, EngineFault when it fails or does not end in time,
    with the last that it printed, and what `read` raises.
    """
    result = Path(result)
    result.unlink(missing_ok=True)
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout_s, check=False
        )
    except FileNotFoundError as error:
        raise NotInstalled(
            explain("the load generator is not installed", asked=command[0], found=str(error))
        ) from error
    except subprocess.TimeoutExpired as error:
        what = f"the load generator did not end within {timeout_s:g} s"
        raise EngineFault(explain(what, found=_tail(error.stdout or b""))) from None
    if done.returncode or not result.exists():
        what = f"ended with exit code {done.returncode}" if done.returncode else f"did not write {result}"
        raise EngineFault(
            explain(f"the load generator {what}", asked=" ".join(command), found=_tail(done.stdout))
        )
    return read(result)


def _tail(output: bytes) -> str:
    lines = output.decode("utf-8", "replace").strip().splitlines()[-_TAIL_LINES:]
    return "\n".join(["its last output was", *(f"    | {line}" for line in lines)]) if lines else "no output"


def _vllm(content: Mapping[str, Any]) -> Recording:
    """One list a quantity, one entry a request; seconds. Only --save-detailed writes the lists."""
    first = min(content["start_times"])
    rows = zip(
        *(content[name] for name in ("start_times", "ttfts", "itls", "latencies", "output_lens")),
        *(content[name] for name in ("input_lens", "errors", "generated_texts")),
        strict=True,
    )
    streams = []
    for start, ttft, gaps, latency, output, prompt, error, text in rows:
        sent = (start - first) * 1e3
        if error:
            streams.append(_failed(sent, error))
            continue
        streams.append(
            _stream(
                sent,
                chunk_ms=tuple(1e3 * at for at in accumulate(gaps, initial=ttft)),
                end_ms=latency * 1e3,
                prompt=prompt,
                output=output,
                text=text,
            )
        )
    return Recording(tool="vllm bench", version="", streams=tuple(streams), hides=_VLLM)


def _guidellm(content: Mapping[str, Any]) -> Recording:
    """Benchmarks with lists of requests by how they ended; seconds since the epoch."""
    streams: list[Stream] = []
    for benchmark in content["benchmarks"]:
        by_state = benchmark["requests"]
        rows = [(state, row) for state in ("successful", "errored") for row in by_state[state] or ()]
        starts = [row["request_start_time"] for _, row in rows if row["request_start_time"]]
        for state, row in rows:
            start = row["request_start_time"]
            sent = (start - min(starts)) * 1e3 if start else 0.0
            if state == "errored":
                streams.append(_failed(sent, row["info"]["error"] or "an error without words"))
                continue
            times = row["info"]["timings"]
            first, last = times["first_token_iteration"], times["last_token_iteration"]
            streams.append(
                _stream(
                    sent,
                    chunk_ms=(),
                    ends=((first - start) * 1e3, (last - start) * 1e3),
                    end_ms=(row["request_end_time"] - start) * 1e3,
                    prompt=row["prompt_tokens"],
                    output=row["output_tokens"],
                    cached=row.get("cached_tokens"),
                    text=row["output"] or "",
                )
            )
    version = content["metadata"]["guidellm_version"]
    return Recording(tool="guidellm", version=version, streams=tuple(streams), hides=_GUIDELLM)


def _aiperf(content: Sequence[Mapping[str, Any]]) -> Recording:
    """A line a request: metadata in nanoseconds since the epoch, metrics in milliseconds."""
    measured = [row for row in content if row["metadata"]["benchmark_phase"] == "profiling"]
    first = min((row["metadata"]["request_start_ns"] for row in measured), default=0)
    streams = []
    for row in measured:
        sent = (row["metadata"]["request_start_ns"] - first) / 1e6
        if error := row.get("error"):
            streams.append(_failed(sent, f"{error.get('code') or ''} {error['message']}".strip()))
            continue
        value = {name: one["value"] for name, one in row["metrics"].items()}
        streams.append(
            _stream(
                sent,
                chunk_ms=tuple(
                    accumulate(value["inter_chunk_latency"], initial=value["time_to_first_token"])
                ),
                end_ms=value["request_latency"],
                prompt=value.get("usage_prompt_tokens"),
                # its own count of the text is `output_sequence_length`; only this one is the server's
                output=value.get("usage_completion_tokens"),
            )
        )
    return Recording(tool="aiperf", version="", streams=tuple(streams), hides=_AIPERF)


def _stream(
    sent_ms: float,
    *,
    chunk_ms: tuple[float, ...],
    end_ms: float,
    prompt: int | None,
    output: int | None,
    cached: int | None = None,
    text: str = "",
    ends: tuple[float, float] | None = None,
) -> Stream:
    """A request that the tool calls complete; `ends` where only the first and last chunk are known."""
    first, last = ends or (chunk_ms[0], chunk_ms[-1])
    return Stream(
        scheduled_ms=sent_ms,
        sent_ms=sent_ms,
        state="no-usage" if output is None else "ok",
        ttft_ms=first,
        last_ms=last,
        e2e_ms=end_ms,
        chunk_ms=chunk_ms,
        prompt_tokens=prompt,
        output_tokens=output,
        cached_tokens=cached,
        digest=hashlib.sha256(text.encode()).hexdigest()[:16] if text else "",
    )


def _failed(sent_ms: float, words: str) -> Stream:
    """A request that the tool calls failed; its kind is not told apart in any of the files."""
    state: State = "http-error"
    return Stream(scheduled_ms=sent_ms, sent_ms=sent_ms, state=state, detail=words.splitlines()[0])


_READERS: tuple[tuple[Callable[[Any], bool], Callable[[Any], Recording]], ...] = (
    (lambda content: isinstance(content, dict) and "itls" in content, _vllm),
    (lambda content: isinstance(content, dict) and "benchmarks" in content, _guidellm),
    (lambda content: isinstance(content, list) and bool(content) and "metadata" in content[0], _aiperf),
)
