"""Attacks through what a server answers: the real probe in a container beside a hostile server."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterable, Mapping

from pytest_qwen.escaping import escaped, printable
from pytest_qwen.exchanges import Call, Exchange
from pytest_qwen.openapi import read_document
from pytest_qwen.sandbox.attacks.canary import Canary, found, mib
from pytest_qwen.sandbox.attacks.running import Served, listed, served
from pytest_qwen.sandbox.base import MIB, Sandbox

_PROBE_BYTES = 200 * MIB
_BODY_BYTES = MIB + (16 << 10)  # the piece that goes over the limit is still counted
_LATE_S = 1.0
_DOCUMENT_S = 2.0
_FORGED = ("forged", "5 passed")


def _calls(paths: Iterable[str], deadline_s: float = 10.0) -> list[Call]:
    return [Call(name=path, method="GET", path=path, deadline_s=deadline_s) for path in paths]


def _wrong(seen: Mapping[str, Exchange], expected: Mapping[str, tuple[str, ...]]) -> tuple[bool, str]:
    """Exchanges that did not fail in one of the expected ways."""
    wrong = [
        str(seen[path])
        for path, failures in expected.items()
        if (seen[path].failure or "").partition(":")[0] not in failures
    ]
    return bool(wrong), f"unexpected: {listed(wrong)}"


def _fat(both: Served) -> tuple[bool, str]:
    used = both.beside.resident_bytes() or 0
    return used > _PROBE_BYTES, f"the probe uses {mib(used)}"


def kill_the_probe(sandbox: Sandbox, canary: Canary) -> str | None:
    """The probe outlives every signal; neither sees the other's processes."""
    with served(sandbox, 12) as both:
        time.sleep(0.6)
        answer = both.probe.batch(_calls(["/"]))["/"]
        guests, probes = canary.processes(both.guest), canary.processes(both.beside)
        mode = canary.inspect(both.beside)["HostConfig"]
        alive = both.beside.state().running
    told = json.loads(answer.body) if answer.ok else {"seen": [], "traced": []}
    shared = [
        name for name in ("PidMode", "IpcMode", "UTSMode") if str(mode.get(name)).startswith("container")
    ]
    return found(
        (not alive or not answer.ok, f"the probe does not answer any more: {answer}"),
        (answer.ok and not told["seen"], "the attack saw no process at all"),
        (bool(told["traced"]), f"it traced {listed(told['traced'])}"),
        (len(told["seen"]) > len(guests), f"it saw {len(told['seen'])} processes and has {len(guests)}"),
        (bool(set(guests) & set(probes)), "both containers have a process in common"),
        (bool(shared), f"they share {listed(shared)}"),
    )


def shared_network(sandbox: Sandbox, _canary: Canary) -> str | None:
    """The probe listens on nothing, and resets do not harm it."""
    with served(sandbox, 13) as both:
        resets = both.probe.batch(
            [dataclasses.replace(call, path="/reset") for call in _calls(map(str, range(60)))]
        )
        scan = both.probe.batch(_calls(["/scan"], 30.0))["/scan"]
        ports = both.probe.listeners()
    told = json.loads(scan.body) if scan.ok else {"listening": [], "abstract": []}
    others = [port for port in told["listening"] if port != both.probe.port]
    survived = {(one.failure or "").partition(":")[0] for one in resets.values()}
    return found(
        (not scan.ok, f"after the resets the probe got {scan}"),
        (bool(survived - {"reset", "closed"}), f"resets were told as {listed(sorted(survived))}"),
        (both.probe.port not in told["listening"] and scan.ok, "the attack did not even find itself"),
        (bool(others), f"it found the listening ports {listed(others)}"),
        (bool(told["abstract"]), f"it found the sockets {listed(told['abstract'])}"),
        (ports != (both.probe.port,), f"{listed(ports)} are listened on"),
    )


def slow_answers(sandbox: Sandbox, _canary: Canary) -> str | None:
    """Every exchange ends with its deadline."""
    expected = {
        "/drip": ("deadline",), "/drip-head": ("deadline",), "/silent": ("deadline",),
        "/interim": ("deadline", "headers too large"), "/endless": ("body too large",), "/half": ("closed",),
    }  # fmt: skip
    with served(sandbox, 14) as both:
        seen = both.probe.batch(_calls(expected, 2.0))
        fat = _fat(both)
    late = [str(one) for one in seen.values() if one.elapsed_ms > (2.0 + _LATE_S) * 1000]
    return found(_wrong(seen, expected), (bool(late), f"over their deadline: {listed(late)}"), fat)


def giant_headers(sandbox: Sandbox, _canary: Canary) -> str | None:
    """Headers end at their limit, in the probe's memory too."""
    expected = dict.fromkeys(("/giant", "/cookies", "/endless"), ("headers too large",))
    with served(sandbox, 15) as both:
        seen = both.probe.batch(_calls(expected))
        fat = _fat(both)
    return found(_wrong(seen, expected), fat)


def redirects(sandbox: Sandbox, canary: Canary) -> str | None:
    """A redirect is an answer like any other: nothing follows it."""
    heard = len(canary.hits)
    hosts = [f"http://{address}:{canary.port}/" for address in canary.addresses()]
    targets = {f"/host{number}": host for number, host in enumerate(hosts)}
    targets |= {"/metadata": "http://169.254.169.254/latest/", "/file": f"file://{canary.file}"}
    targets |= {"/self": "/followed", "/absolute": "http://127.0.0.1:8000/followed", "/loop": "/loop"}
    with served(sandbox, 16, json.dumps(targets)) as both:
        seen = both.probe.batch(_calls(targets))
        paths = json.loads(both.probe.batch(_calls(["/paths"]))["/paths"].body)
    other = [str(one) for one in seen.values() if one.status != 307 or one.ok]
    return found(
        (bool(other), f"redirects are told as {listed(other)}"),
        (sorted(paths) != sorted(targets), f"the server was asked for {listed(paths)}"),
        (len(canary.hits) > heard, f"the canary listener heard {listed(canary.hits[heard:])}"),
        (any(canary.token in one.body for one in seen.values()), "the canary file was read"),
    )


def compression_bombs(sandbox: Sandbox, _canary: Canary) -> str | None:
    """Nothing is unpacked, and no more than a limit is read."""
    paths = ("/gzip", "/deflate", "/twice", "/br", "/plain")
    with served(sandbox, 17) as both:
        seen = both.probe.batch(_calls(paths))
        fat = _fat(both)
    large = [f"{path}: {mib(seen[path].body_bytes)}" for path in paths if seen[path].body_bytes > _BODY_BYTES]
    encoded = [one.header("content-encoding") for one in seen.values() if one.status == 200]
    return found(
        (bool(large), f"too much was read: {listed(large)}"),
        (encoded.count(None) != 1, "the attack's encodings did not arrive"),
        _wrong(seen, {"/plain": ("body too large",)}),
        fat,
    )


def framing(sandbox: Sandbox, _canary: Canary) -> str | None:
    """Lies about lengths are errors, and no second answer is ever taken for the next call's."""
    expected = {
        "/huge": ("closed", "body too large"), "/absurd": ("protocol",), "/negative": ("protocol",),
        "/words": ("protocol",), "/double": ("protocol",), "/both": ("protocol",),
        "/chunk": ("protocol", "body too large", "closed"), "/smuggled": ("",), "/next": ("",),
    }  # fmt: skip
    with served(sandbox, 18) as both:
        seen = both.probe.batch(_calls(expected), at_once=1)
    fed = [str(one) for one in seen.values() if "forged" in one.body or "forged" in str(one.headers)]
    mine = {seen[path].body for path in ("/smuggled", "/next")}
    return found(
        _wrong(seen, expected),
        (bool(fed), f"forged answers were taken: {listed(fed)}"),
        (mine != {"mine"}, f"honest answers were read as {listed(sorted(mine))}"),
    )


def hostile_openapi(sandbox: Sandbox, canary: Canary) -> str | None:
    """Each document is read or refused within two seconds, and nothing is fetched for it."""
    heard = len(canary.hits)
    paths = (
        "/huge", "/deep", "/wide", "/operations", "/circle", "/recursive", "/laughs", "/elsewhere",
        "/no-json", "/number",
    )  # fmt: skip
    elsewhere = [f"http://{address}:{canary.port}/" for address in canary.addresses()]
    elsewhere += [f"file://{canary.file}", str(canary.file), f"../../../../../..{canary.file}#/"]
    with served(sandbox, 19, json.dumps(elsewhere)) as both:
        seen = both.probe.batch(_calls(paths), keep_bytes=4 * MIB)
    lost = [str(one) for one in seen.values() if not one.ok]
    complaints = [f"{path}: {wrong}" for path in paths if (wrong := _misread(seen[path].body, canary))]
    return found(
        (bool(lost), f"the attack's documents did not come: {listed(lost)}"),
        (bool(complaints), listed(complaints)),
        (len(canary.hits) > heard, f"the canary listener heard {listed(canary.hits[heard:])}"),
    )


def _misread(text: str, canary: Canary) -> str:
    """What is wrong with how a document was read; "" when nothing is."""
    begun_s = time.monotonic()
    try:
        read = read_document(text)
    except Exception as error:  # whatever it is, it would have ended a rating
        return f"reading it ended with {type(error).__name__}"
    if time.monotonic() - begun_s > _DOCUMENT_S:
        return f"reading it took longer than {_DOCUMENT_S:g} s"
    return "the canary file was read for it" if canary.token in repr(read) else ""


def forged_results(sandbox: Sandbox, _canary: Canary) -> str | None:
    """What it writes changes no result, nothing of it reaches a reader as more than text, and the probe gives
    no sign of what it is."""
    with served(sandbox, 25) as both:
        seen = both.probe.batch(_calls(["/one", "/clean-head"]))
        asked = both.probe.batch(_calls(["/requests"]))["/requests"]
        ports = both.probe.listeners()
        log = both.guest.log()
    clean = seen["/clean-head"]
    believed = [str(one) for one in seen.values() if one.ok or one.status == 200]
    shown = [
        *(
            escaped(text)
            for one in seen.values()
            for text in (one.body, str(one), *dict(one.headers).values())
        ),
        *printable(log.head + log.tail).split("\n"),
    ]
    raw = [text for text in shown if not text.isprintable() or text.lstrip().startswith("::") or "##" in text]
    signs = [word for word in ("python", "pytest", "qwen", "httpx", "probe") if word in asked.body.lower()]
    return found(
        (bool(believed), f"forged results were believed: {listed(believed)}"),
        (clean.status != 500 or _FORGED[1] not in clean.body, f"its real answer is told as {clean}"),
        (ports != (both.probe.port,), f"forged ports were believed: {listed(ports)}"),
        (not any(_FORGED[0] in text for text in shown), "the attack wrote nothing"),
        (bool(raw), f"shown as it came: {listed([ascii(text[:60]) for text in raw])}"),
        (not asked.ok or bool(signs), f"the server can tell its client by {listed(signs)} ({asked})"),
    )
