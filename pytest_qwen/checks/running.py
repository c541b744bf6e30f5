"""Checks of what the program did while it ran: answers, errors, and that it stayed alive."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pytest_qwen.checks.findings import failed, flaky, passed, unmeasured
from pytest_qwen.checks.predictions import agrees, read_prediction
from pytest_qwen.checks.reading import (
    all_meet,
    brief,
    last_words,
    median,
    named,
    on,
    server,
    why_missing,
    why_silent,
)
from pytest_qwen.exchanges import Exchange
from pytest_qwen.observations import Evidence
from pytest_qwen.scorecards import Finding

REFUSALS = (400, 413, 415, 422)
_MIB = 1 << 20


# ---- correctness


def starts(evidence: Evidence) -> Finding:
    """C2: an HTTP answer within 90 s, and the same process two seconds later."""
    main = server(evidence, "main")
    if main is None:
        return why_missing(evidence, "a start")
    if "limited" in evidence.facts:
        return unmeasured(str(evidence.facts["limited"]))
    if main.missing_import:
        return failed(f"missing-import:{main.missing_import}")
    if not main.ready:
        how = f"{main.ended} with code {main.exit_code}" if main.ended else "never answered"
        return failed(f"{how}: {last_words(main)}")
    if not main.steady:
        return failed(f"answered, then {main.ended or 'restarted'} within two seconds: {last_words(main)}")
    return passed("answered, and was the same process two seconds later", timing=_seconds(main.ready_s))


@on("good.0", what="a valid PNG")
def answers_an_image(_evidence: Evidence, seen: Sequence[Exchange]) -> Finding:
    """C3: a valid PNG gives 2xx JSON in 10 s."""
    first = seen[0]
    if not first.ok:
        return failed(brief(first))
    if not first.body.lstrip().startswith(("{", "[")):
        return failed(f"{first} but the body is no JSON: {first.body[:60]}")
    return passed(str(first), timing=f"{first.elapsed_ms:.0f} ms")


@on("good.", "hidden.", what="images of both labels")
def agrees_with_the_oracle(evidence: Evidence, seen: Sequence[Exchange]) -> Finding:
    """C4: label and score are those of the stand-in model, for pairs of images with opposite labels."""
    wrong = [one for one in seen if not _right(evidence, one)]
    if wrong:
        return failed(_disagreement(evidence, wrong[0]))
    return passed(f"{len(seen)} images of opposite labels: label and score are the oracle's within 0.001")


@on("kind.", what="images of every kind")
def takes_every_kind(_evidence: Evidence, seen: Sequence[Exchange]) -> Finding:
    """C5: the share of kinds (JPEG, WebP, grey, palette, RGBA, one pixel, EXIF-rotated) that give 2xx."""
    wrong = [brief(one) for one in seen if not one.ok]
    if not wrong:
        return passed(f"all {len(seen)} kinds of image were answered")
    share = 1 - len(wrong) / len(seen)
    return failed(f"{len(wrong)} of {len(seen)} kinds refused: {'; '.join(wrong)}", share=share)


@on("good.0", "again", what="the same image twice")
def answers_the_same_again(evidence: Evidence, seen: Sequence[Exchange]) -> Finding:
    """C6: the same image twice gives the same label and score."""
    if len(seen) < 2:
        return why_missing(evidence, "the same image twice")
    labels = evidence.facts.get("labels", ())
    first, second = (read_prediction(one.body, labels) for one in seen)
    if not all(one.ok for one in seen):
        return failed("; ".join(brief(one) for one in seen))
    return passed("twice the same") if first == second else failed(f"first {first}, then {second}")


@on("bad.", "odd.", what="the bad battery")
def never_breaks_on_bad_input(_evidence: Evidence, seen: Sequence[Exchange]) -> Finding:
    """C7: no bad input gives a 5xx, or no answer at all."""
    return all_meet(
        seen, lambda one: one.status is not None and one.status < 500, f"{len(seen)} bad inputs, no 5xx"
    )


@on("bad.", what="the bad battery")
def refuses_bad_input(_evidence: Evidence, seen: Sequence[Exchange]) -> Finding:
    """C8: bad input gives 400, 413, 415 or 422."""
    return all_meet(seen, lambda one: one.status in REFUSALS, f"{len(seen)} bad inputs, all refused with 4xx")


@on("parallel.", what="parallel requests")
def answers_in_parallel(evidence: Evidence, seen: Sequence[Exchange]) -> Finding:
    """C9: eight parallel requests all give 2xx and the oracle's answers."""
    wrong = [one for one in seen if not one.ok or not _right(evidence, one)]
    if wrong:
        return failed(f"{len(wrong)} of {len(seen)} wrong: {_disagreement(evidence, wrong[0])}")
    return passed(f"{len(seen)} parallel requests, all right")


@on("after.", what="a valid image after the battery")
def survives_the_battery(evidence: Evidence, seen: Sequence[Exchange]) -> Finding:
    """C11: after everything the first image is still answered and the process was never restarted."""
    main = server(evidence, "main")
    if main is None or not main.alive_after:
        return failed("the process ended or was restarted during the calls")
    return all_meet(seen, lambda one: one.ok, "still answers, never restarted")


# ---- completeness


@on("good.0", what="a valid PNG")
def tells_label_and_score(evidence: Evidence, seen: Sequence[Exchange]) -> Finding:
    """K3: the response carries both a label and a score."""
    read = read_prediction(seen[0].body, evidence.facts.get("labels", ()))
    lacking = [name for name, value in (("label", read.label), ("score", read.score)) if value is None]
    if not seen[0].ok or lacking:
        return failed(f"{brief(seen[0])}: no {' and no '.join(lacking) or 'answer'} in it")
    return passed("label and score are in the response")


def health_answers(evidence: Evidence) -> Finding:
    """K4: a health or readiness operation answers 200 in 2 s."""
    seen = evidence.exchanges.get("health")
    if seen is None:
        return why_silent(evidence) or failed("there is no GET operation for health or readiness")
    if seen.status != 200 or seen.elapsed_ms > 2000:
        return failed(brief(seen), timing=f"{seen.elapsed_ms:.0f} ms")
    return passed(str(seen), timing=f"{seen.elapsed_ms:.0f} ms")


def handles_a_missing_model(evidence: Evidence) -> Finding:
    """K8: without the model's files it ends with an error code and a message, or says 503."""
    empty = server(evidence, "empty")
    if empty is None:
        return why_missing(evidence, "a start without the model")
    if not empty.ready:
        if empty.ended == "exited" and empty.exit_code and (empty.log_tail or empty.log_head):
            return passed(f"without the model it exits with code {empty.exit_code} and says why")
        return failed(f"without the model: {empty.ended or 'no answer'} with code {empty.exit_code}")
    unready = [one for one in named(evidence, "empty.") if one.status == 503]
    if unready:
        return passed(f"without the model {unready[0]}")
    said = "; ".join(str(one) for one in named(evidence, "empty.")) or "it serves as if nothing were missing"
    return failed(f"without the model: {said}")


# ---- practices, the part that is seen while it runs


@on("slow.block.openapi", what="a request during predictions")
def loop_stays_free(evidence: Evidence, seen: Sequence[Exchange]) -> Finding:
    """B1: another request is answered in under 500 ms while four predictions or more run; three times."""
    busy = named(evidence, "slow.block.predict")
    if not all(one.ok for one in busy):
        return failed("; ".join(brief(one) for one in busy if not one.ok))
    during = [one for one in seen if any(_overlaps(one, other) for other in busy)]
    if not during:
        return unmeasured("the predictions were over before anything could be asked beside them")
    return _timed(during, 500.0, "another request beside running predictions")


def _overlaps(one: Exchange, other: Exchange) -> bool:
    return other.started_ms <= one.started_ms < other.started_ms + other.elapsed_ms


@on("slow.first.", what="a second request")
def model_is_kept(evidence: Evidence, seen: Sequence[Exchange]) -> Finding:
    """B2: the second request takes at most half as long as a cold start."""
    slow = server(evidence, "slow")
    if len(seen) < 2 or slow is None or slow.ready_s is None or not seen[1].ok:
        return failed("; ".join(brief(one) for one in seen))
    timing = f"{seen[1].elapsed_ms:.0f} ms after a start of {slow.ready_s:.1f} s"
    if seen[1].elapsed_ms > 500 * slow.ready_s:
        return failed("the second request takes more than half of a cold start", timing=timing)
    return passed("the second request takes at most half of a cold start", timing=timing)


@on("bad.", what="the bad battery")
def errors_keep_their_status(_evidence: Evidence, seen: Sequence[Exchange]) -> Finding:
    """B5: no 4xx of the program's own arrives as a 500 (a broad except that swallows HTTPException)."""
    swallowed = [one for one in seen if one.status == 500 and re.search(r"\b4(00|13|15|22): ", one.body)]
    return failed(brief(swallowed[0])) if swallowed else passed("no 4xx arrived as a 500")


# ---- production


@on("large", what="a 25 MiB upload")
def bounds_an_upload(evidence: Evidence, seen: Sequence[Exchange]) -> Finding:
    """P1: a 25 MiB upload gets 4xx or 2xx in 10 s, and resident memory grows by less than 150 MiB."""
    large = seen[0]
    if large.status is None or large.status >= 500:
        return failed(brief(large))
    memory = evidence.facts.get("memory") or {}
    if memory.get("before_bytes") is None or memory.get("peak_bytes") is None:
        return unmeasured("this engine does not tell resident memory")
    grown = memory["peak_bytes"] - memory["before_bytes"]
    timing = f"{grown / _MIB:.0f} MiB in {large.elapsed_ms:.0f} ms"
    if grown >= 150 * _MIB:
        return failed(f"{large}, and memory grew by 150 MiB or more", timing=timing)
    return passed(f"{large}, memory grew by less than 150 MiB", timing=timing)


@on("bomb", what="a decompression bomb")
def refuses_a_bomb(evidence: Evidence, seen: Sequence[Exchange]) -> Finding:
    """P2: a decompression bomb gets a 4xx and the process survives."""
    main = server(evidence, "main")
    if main is not None and not main.alive_after:
        return failed(f"{brief(seen[0])}, and the process did not survive")
    return all_meet(seen, lambda one: one.status in REFUSALS, str(seen[0]))


@on("slow.flood.predict", what="sixteen parallel predictions")
def healthy_under_load(evidence: Evidence, _flood: Sequence[Exchange]) -> Finding:
    """P3: health answers in under 1 s while 16 predictions run; median of three."""
    seen = named(evidence, "slow.flood.health")
    if not seen:
        return failed("there is no health operation to ask")
    return _timed(seen, 1000.0, "health beside sixteen predictions")


@on("term.", what="a request in flight at SIGTERM")
def ends_gracefully(evidence: Evidence, seen: Sequence[Exchange]) -> Finding:
    """P4: at SIGTERM the request in flight completes, and the process exits within 10 s."""
    term = evidence.facts.get("term") or {}
    if not seen[0].ok:
        return failed(f"the request in flight was lost: {brief(seen[0])}")
    exit_s = term.get("exit_s")
    if exit_s is None or exit_s > 10:
        return failed("it had not exited 10 s after SIGTERM")
    return passed("the request in flight completed and the process exited", timing=_seconds(exit_s))


_LEAK = re.compile(
    r"Traceback \(most recent|File \\?\"[^\"]+\", line \d+|object at 0x[0-9a-f]+"
    r"|/(?:usr|work|opt|home|tmp)/[\w./-]+"
    r"|\b(?:[A-Z]\w*(?:Error|Exception))\b\(?|cannot identify image file"
)


@on("good.", "kind.", "bad.", "odd.", "bomb", "large", what="error responses")
def leaks_nothing(_evidence: Evidence, seen: Sequence[Exchange]) -> Finding:
    """P5: no body shows an exception, a traceback, an object's address or a path of the server's disk."""
    for one in seen:
        found = _LEAK.search(one.body)
        if found:
            return failed(f"{one.name} → {one.status} shows {found[0][:60]!r}")
    return passed(f"nothing inside shows in {len(seen)} responses")


_REQUEST_LINE = re.compile(r"(?:predict|classif|infer|detect|request|POST|GET)", re.IGNORECASE)


def shows_its_requests(evidence: Evidence) -> Finding:
    """P9: a line a request in the log beyond the server's own access log, a timing header, or metrics."""
    missing = why_silent(evidence)
    if missing:
        return missing
    metrics = evidence.exchanges.get("metrics")
    if metrics is not None and metrics.ok and metrics.body.strip():
        return passed(f"{metrics}")
    good = evidence.exchanges.get("good.0")
    timing = good and next(
        (n for n, _ in good.headers if re.search(r"time|duration|request-id", n, re.I)), None
    )
    if timing:
        return passed(f"every response carries {timing}")
    main = server(evidence, "main")
    own = [line for line in (main.log_tail if main else "").splitlines() if _own_request_line(line)]
    if own:
        return passed("it logs its requests itself")
    return failed("no metrics operation, no timing header, and no log line of its own about a request")


def _own_request_line(line: str) -> bool:
    """A log line about a request that is not uvicorn's access log, whose lines quote the request."""
    return bool(_REQUEST_LINE.search(line)) and not re.search(r'^INFO:\s+[\d.]+:\d+ - "', line)


@on("slow.load.eight", what="eight parallel predictions")
def scales_to_eight(evidence: Evidence, seen: Sequence[Exchange]) -> Finding:
    """P10: no error at concurrency 8, and its p95 is at most 20 times the p50 of single requests."""
    wrong = [one for one in seen if not one.ok]
    if wrong:
        return failed(f"{len(wrong)} of {len(seen)} failed: {brief(wrong[0])}")
    singles = [one.elapsed_ms for one in named(evidence, "slow.first.") if one.ok][1:]
    if not singles:
        return why_missing(evidence, "single predictions")
    batches: dict[str, list[float]] = {}
    for one in seen:
        batches.setdefault(one.name.split(".")[3], []).append(one.elapsed_ms)
    ratios = [_p95(times) / median(singles) for times in batches.values()]
    timing = f"p95 / p50 of single requests: {', '.join(f'{ratio:.1f}' for ratio in ratios)}"
    return _three(
        [ratio <= 20 for ratio in ratios], "eight at once take at most 20 times a single one", timing
    )


# ---- helpers


def _right(evidence: Evidence, seen: Exchange) -> bool:
    oracle, labels = evidence.facts["oracle"], evidence.facts["labels"]
    return seen.ok and agrees(read_prediction(seen.body, labels), _truth(oracle, seen.name), labels)


def _truth(oracle: dict[str, dict[str, object]], name: str) -> dict[str, object]:
    """The oracle's answer for an exchange: parallel requests alternate between the first pair."""
    kind, _, number = name.partition(".")
    return oracle[f"good.{int(number) % 2}"] if kind == "parallel" else oracle[name]


def _disagreement(evidence: Evidence, seen: Exchange) -> str:
    if not seen.ok:
        return brief(seen)
    truth = _truth(evidence.facts["oracle"], seen.name)
    read = read_prediction(seen.body, evidence.facts["labels"])
    if read.label != truth["label"]:
        return f"{seen.name}: said {read.label}, the model says {truth['label']}"
    return f"{seen.name}: label {read.label} is right, its score is not the model's"


def _timed(seen: Sequence[Exchange], limit_ms: float, what: str) -> Finding:
    """Whether the median of repeated calls was in time; repeats that disagree are flaky."""
    met = [one.ok and one.elapsed_ms < limit_ms for one in seen]
    timing = ", ".join(f"{one.elapsed_ms:.0f}" for one in seen) + " ms"
    return _three(met, f"{what} is answered in under {limit_ms:.0f} ms", timing)


def _three(met: Sequence[bool], what: str, timing: str) -> Finding:
    if all(met):
        return passed(what, timing=timing)
    if any(met):
        return flaky(what, timing=timing)
    return failed(f"not so: {what}", timing=timing)


def _p95(values: Sequence[float]) -> float:
    """The 95th percentile by nearest rank."""
    return sorted(values)[-(-95 * len(values) // 100) - 1]


def _seconds(value: float | None) -> str | None:
    return None if value is None else f"{value:.1f} s"
