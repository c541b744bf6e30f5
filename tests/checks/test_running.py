"""Checks of a running server, each with evidence that passes and evidence that fails."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from making import answered, evidence, exchange, right, server

from pytest_qwen.checks import running
from pytest_qwen.checks.reading import lasting
from pytest_qwen.exchanges import Exchange
from pytest_qwen.observations import Evidence
from pytest_qwen.scorecards import CheckOutcome, Finding

PASS, FAIL, UNMEASURED, INFRA = (
    CheckOutcome.PASS,
    CheckOutcome.FAIL,
    CheckOutcome.UNMEASURED,
    CheckOutcome.INFRA_ERROR,
)
GOOD = [right(name) for name in ("good.0", "good.1", "hidden.0", "hidden.1")]
INVERTED = [answered(one.name, "nsfw" if "normal" in one.body else "normal", 0.9) for one in GOOD]
BAD = [exchange(f"bad.{kind}", 422, "no") for kind in ("text", "zero", "missing")]


def slow(name: str, started_ms: float, elapsed_ms: float) -> Exchange:
    return exchange(f"slow.{name}", started_ms=started_ms, elapsed_ms=elapsed_ms)


BUSY = [slow(f"block.predict.{i}", 0.0, 1600.0) for i in range(4)]
FLOOD = [slow(f"flood.predict.{i}", 0.0, 6000.0) for i in range(16)]
SINGLES = [slow(f"first.{i}", 0.0, 900.0 if i == 0 else 400.0) for i in range(4)]


def eight(elapsed_ms: float, status: int = 200) -> list[Exchange]:
    return [
        exchange(f"slow.load.eight.{t}.{i}", status, elapsed_ms=elapsed_ms)
        for t in range(3)
        for i in range(8)
    ]


def beside(what: str, *times: float) -> list[Exchange]:
    return [slow(f"{what}.{i}", 200.0 * i, elapsed) for i, elapsed in enumerate(times)]


CASES: list[tuple[Callable[[Evidence], Finding], str, Evidence, CheckOutcome]] = [
    (running.starts, "ready and steady", evidence(), PASS),
    (running.starts, "died at once", evidence(servers={"main": server(ready=False, ended="exited", exit_code=0)}), FAIL),
    (running.starts, "died after its first answer", evidence(servers={"main": server(steady=False, ended="exited")}), FAIL),
    (running.starts, "lacks a package", evidence(servers={"main": server(ready=False, missing_import="redis")}), FAIL),
    (running.starts, "the engine broke", evidence(servers={}, infra_errors=("engine gone",)), INFRA),
    (running.answers_an_image, "JSON", evidence(right("good.0")), PASS),
    (running.answers_an_image, "500", evidence(exchange("good.0", 500, "name 'image_url' is not defined")), FAIL),
    (running.answers_an_image, "a page", evidence(exchange("good.0", 200, "<html>")), FAIL),
    (running.answers_an_image, "never asked", evidence(), FAIL),
    (running.answers_an_image, "cannot be asked", evidence(facts={"cannot_ask": "by URL only"}), UNMEASURED),
    (running.agrees_with_the_oracle, "right", evidence(*GOOD), PASS),
    (running.agrees_with_the_oracle, "inverted labels", evidence(*INVERTED), FAIL),
    (running.agrees_with_the_oracle, "hard-coded", evidence(*(answered(one.name, "normal", 0.9) for one in GOOD)), FAIL),
    (running.takes_every_kind, "all", evidence(exchange("kind.jpeg"), exchange("kind.webp")), PASS),
    (running.takes_every_kind, "half", evidence(exchange("kind.jpeg"), exchange("kind.webp", 500)), FAIL),
    (running.answers_the_same_again, "same", evidence(right("good.0"), answered("again", "normal", 0.9)), PASS),
    (running.answers_the_same_again, "other score", evidence(right("good.0"), answered("again", "normal", 0.8)), FAIL),
    (running.never_breaks_on_bad_input, "4xx", evidence(*BAD), PASS),
    (running.never_breaks_on_bad_input, "one 500", evidence(*BAD, exchange("bad.empty", 500)), FAIL),
    (running.never_breaks_on_bad_input, "one without an answer", evidence(*BAD, exchange("odd.nopart", None)), FAIL),
    (running.refuses_bad_input, "4xx", evidence(*BAD), PASS),
    (running.refuses_bad_input, "200 for a text file", evidence(*BAD, exchange("bad.type", 200)), FAIL),
    (running.refuses_bad_input, "a good request in the battery is not asked to be refused", evidence(*BAD, exchange("odd.nopart", 200)), PASS),
    (running.answers_in_parallel, "right", evidence(*(right(f"parallel.{i}") for i in range(8))), PASS),
    (running.answers_in_parallel, "mixed up", evidence(*(answered(f"parallel.{i}", "normal", 0.9) for i in range(8))), FAIL),
    (running.survives_the_battery, "alive", evidence(exchange("after.0"), exchange("after.1")), PASS),
    (running.survives_the_battery, "restarted", evidence(exchange("after.0"), servers={"main": server(alive_after=False)}), FAIL),
    (running.tells_label_and_score, "both", evidence(right("good.0")), PASS),
    (running.tells_label_and_score, "no score", evidence(exchange("good.0", 200, {"label": "nsfw"})), FAIL),
    (running.health_answers, "200", evidence(exchange("health")), PASS),
    (running.health_answers, "late", evidence(exchange("health", elapsed_ms=2500.0)), FAIL),
    (running.health_answers, "none", evidence(), FAIL),
    (running.handles_a_missing_model, "exits with a message", evidence(servers={"empty": server(ready=False, ended="exited", exit_code=3, log_tail="no model")}), PASS),
    (running.handles_a_missing_model, "exits with 0", evidence(servers={"empty": server(ready=False, ended="exited", exit_code=0, log_tail="bye")}), FAIL),
    (running.handles_a_missing_model, "says 503", evidence(exchange("empty.health", 503), servers={"empty": server()}), PASS),
    (running.handles_a_missing_model, "serves nonsense", evidence(exchange("empty.predict", 500), servers={"empty": server()}), FAIL),
    (running.loop_stays_free, "free", evidence(*BUSY, *beside("block.openapi", 20, 30, 25)), PASS),
    (running.loop_stays_free, "blocked", evidence(*BUSY, *beside("block.openapi", 1500, 1300, 1100)), FAIL),
    (running.loop_stays_free, "the runs disagree", evidence(*BUSY, *beside("block.openapi", 20, 1300, 25)), UNMEASURED),
    (running.loop_stays_free, "nothing was asked in time", evidence(*BUSY, slow("block.openapi.0", 2000.0, 9.0)), UNMEASURED),
    (running.model_is_kept, "kept", evidence(*SINGLES, servers={"slow": server()}), PASS),
    (running.model_is_kept, "loaded each time", evidence(slow("first.0", 0, 4000), slow("first.1", 0, 3900), servers={"slow": server()}), FAIL),
    (running.errors_keep_their_status, "4xx", evidence(*BAD), PASS),
    (running.errors_keep_their_status, "swallowed", evidence(exchange("bad.text", 500, {"detail": "400: not an image"})), FAIL),
    (running.bounds_an_upload, "413", evidence(exchange("large", 413), facts={"memory": {"before_bytes": 1, "peak_bytes": 2}}), PASS),
    (running.bounds_an_upload, "memory", evidence(exchange("large", 200), facts={"memory": {"before_bytes": 0, "peak_bytes": 200 << 20}}), FAIL),
    (running.bounds_an_upload, "memory unknown", evidence(exchange("large", 200), facts={"memory": {"before_bytes": None, "peak_bytes": None}}), UNMEASURED),
    (running.bounds_an_upload, "broken", evidence(exchange("large", 500)), FAIL),
    (running.refuses_a_bomb, "400", evidence(exchange("bomb", 400)), PASS),
    (running.refuses_a_bomb, "500", evidence(exchange("bomb", 500)), FAIL),
    (running.refuses_a_bomb, "died", evidence(exchange("bomb", 400), servers={"main": server(alive_after=False)}), FAIL),
    (running.healthy_under_load, "in time", evidence(*FLOOD, *beside("flood.health", 90, 80, 70)), PASS),
    (running.healthy_under_load, "late", evidence(*FLOOD, *beside("flood.health", 5000, 4000, 3000)), FAIL),
    (running.healthy_under_load, "no health", evidence(*FLOOD), FAIL),
    (running.ends_gracefully, "completes", evidence(exchange("term.request"), facts={"term": {"exit_s": 0.5, "exit_code": 0}}), PASS),
    (running.ends_gracefully, "loses the request", evidence(exchange("term.request", None), facts={"term": {"exit_s": 0.1}}), FAIL),
    (running.ends_gracefully, "stays", evidence(exchange("term.request"), facts={"term": {"exit_s": None}}), FAIL),
    (running.leaks_nothing, "clean", evidence(*GOOD, *BAD), PASS),
    (running.leaks_nothing, "a path", evidence(exchange("bad.text", 500, "No such file: /work/model.bin")), FAIL),
    (running.leaks_nothing, "an exception", evidence(exchange("bad.text", 400, "UnidentifiedImageError: cannot identify image file <_io.BytesIO object at 0x7f3a>")), FAIL),
    (running.shows_its_requests, "metrics", evidence(exchange("metrics", 200, "requests_total 3")), PASS),
    (running.shows_its_requests, "a header", evidence(exchange("good.0", 200, "{}", headers=(("X-Process-Time", "0.1"),))), PASS),
    (running.shows_its_requests, "its own log line", evidence(servers={"main": server(log_tail="2026 INFO app predict took 12 ms")}), PASS),
    (running.shows_its_requests, "uvicorn's alone", evidence(servers={"main": server(log_tail='INFO:     127.0.0.1:5 - "POST /predict HTTP/1.1" 200 OK')}), FAIL),
    (running.scales_to_eight, "eightfold", evidence(*SINGLES, *eight(3300.0)), PASS),
    (running.scales_to_eight, "collapses", evidence(*SINGLES, *eight(9000.0)), FAIL),
    (running.scales_to_eight, "errors", evidence(*SINGLES, *eight(3300.0, 503)), FAIL),
]  # fmt: skip


@pytest.mark.parametrize(
    ("check", "case", "given", "outcome"), CASES, ids=[f"{c.__name__}: {name}" for c, name, _, _ in CASES]
)
def test_check(
    check: Callable[[Evidence], Finding], case: str, given: Evidence, outcome: CheckOutcome
) -> None:
    found = check(given)
    assert found.outcome == outcome, found.evidence
    assert found.evidence


def test_every_check_says_what_broke_when_it_was_the_harness() -> None:
    broken = evidence(servers={}, infra_errors=("the engine is gone",))
    checks = {check for check, *_ in CASES}
    assert {check(broken).outcome for check in checks} == {INFRA}


def test_a_share_of_the_kinds_counts() -> None:
    kinds = [exchange(f"kind.{i}", 200 if i else 500) for i in range(7)]
    assert running.takes_every_kind(evidence(*kinds)).share == pytest.approx(6 / 7)


def test_evidence_tells_no_times() -> None:
    """Two runs of the same answer differ in milliseconds; their evidence must not."""
    first = evidence(*BUSY, *beside("block.openapi", 20, 30, 25))
    second = evidence(*BUSY, *beside("block.openapi", 21, 35, 22))
    assert running.loop_stays_free(first).evidence == running.loop_stays_free(second).evidence
    assert running.loop_stays_free(first).timing != running.loop_stays_free(second).timing


def test_a_forged_line_in_a_body_is_shown_cut() -> None:
    long = exchange("good.0", 500, "x" * 5000)
    assert len(running.answers_an_image(evidence(replace(long))).evidence) < 200


def test_what_passes_is_made_alike() -> None:
    said = "Traceback: object at 0x7fb2c1d3, id 3f2a9c1e-77aa, took 0.0123 s at 2026-01-02T10:11:12.345"
    assert lasting(said) == "Traceback: object at #, id #, took # s at #T#"
