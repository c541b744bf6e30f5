"""What requests to a server did, seen as one run of an engine."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from statistics import median
from typing import Literal

from pytest_qwen.engines.base import Trace
from pytest_qwen.streams import Stream


def trace_of(streams: Sequence[Stream], texts: Sequence[str]) -> Trace:
    """What the requests did, seen as one."""
    complete = [stream for stream in streams if stream.complete]
    reasons = [stream.finish_reason for stream in complete]
    finish: Literal["stop", "length"] = (
        "length" if reasons and reasons.count("length") * 2 > len(reasons) else "stop"
    )
    digests = "".join(stream.digest for stream in streams)
    return Trace(
        prompt_tokens=_median([s.prompt_tokens for s in complete if s.prompt_tokens is not None]),
        output_tokens=_median([s.output_tokens for s in complete if s.output_tokens is not None]),
        batch_size=len(streams),
        token_ns=(),
        texts=tuple(texts),
        finish_reason=finish,
        tokens_digest=hashlib.sha256(digests.encode()).hexdigest()[:16],
        clock="host",
        streams=tuple(streams),
    )


def _median(values: Sequence[int]) -> int:
    return round(median(values)) if values else 0
