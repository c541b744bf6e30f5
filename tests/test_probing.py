"""The probe sends what it is told and survives every server; its host believes no reply that is not its own."""

import base64
import email
import email.policy
import gzip
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hostile_http import Handler, Peer, Pipe, Server

from pytest_qwen.exchanges import Call, Exchange
from pytest_qwen.probing import Probe, multipart, open_probe, probe_job
from pytest_qwen.sandbox.base import MIB, SandboxFault

NONCE = "a-nonce-of-this-run"
SHORT_S = 0.3
CAP = MIB + (16 << 10)  # one piece of what is read may go over the limit


@pytest.fixture(scope="module")
def pipe() -> Iterator[Pipe]:
    pipe = Pipe(NONCE)
    yield pipe
    pipe.close()


@pytest.fixture(scope="module")
def module_probe(pipe: Pipe) -> Probe:
    return Probe(pipe, nonce=NONCE)  # type: ignore[arg-type]


@pytest.fixture
def serve(module_probe: Probe) -> Iterator[Callable[..., Server]]:
    """Starts servers; the probe's port is that of the latest one."""
    servers = []

    def start(handle: Handler, **options: Any) -> Server:
        servers.append(Server(handle, **options))
        module_probe.port = servers[-1].port
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def probe(module_probe: Probe) -> Probe:
    return module_probe


def get(name: str = "one", path: str = "/", deadline_s: float = 5.0, **more: Any) -> Call:
    return Call(name=name, method="GET", path=path, deadline_s=deadline_s, **more)


def post(name: str = "one", *body: bytes | int, deadline_s: float = 5.0, **more: Any) -> Call:
    return Call(name=name, method="POST", path="/predict", body=body, deadline_s=deadline_s, **more)


def one(probe: Probe, call: Call, **options: Any) -> Exchange:
    return probe.batch([call], **options)[call.name]


# ---- what is sent


def test_one_exchange(probe: Probe, serve: Callable[..., Server]) -> None:
    server = serve(lambda peer: peer.answer(b'{"label": "nsfw"}', "X-Time: 3", "Set-Cookie: a=b"))
    seen = one(probe, get(path="/health?x=1"))
    assert (seen.status, seen.failure, seen.ok) == (200, None, True)
    assert (seen.body, seen.body_bytes) == ('{"label": "nsfw"}', 17)
    assert (seen.header("x-time"), seen.header("set-cookie")) == ("3", "a=b")
    assert 0 <= seen.started_ms < 1000
    assert 0 < seen.elapsed_ms < 5000
    assert str(seen) == "GET /health?x=1 → 200"
    assert server.peers[0].head.startswith(b"GET /health?x=1 HTTP/1.1\r\n")


def test_what_a_request_carries(serve: Callable[..., Server]) -> None:
    server = serve(lambda peer: (peer.read_body(), peer.answer()))  # type: ignore[func-returns-value]
    proxied = {"http_proxy": "http://127.0.0.1:9", "ALL_PROXY": "http://127.0.0.1:9"}
    pipe = Pipe(NONCE, seed=3, env=proxied)
    forbidden = tuple(
        (name, "evil")
        for name in ("Host", "connection", "Accept-Encoding", "Content-Length", "Transfer-Encoding", "Expect")
    )
    try:
        probe = Probe(pipe, nonce=NONCE, port=server.port)  # type: ignore[arg-type]
        call = post("p", b"abc", 3, headers=(*forbidden, ("X-Mine", "é"), ("accept", "text/html")))
        assert one(probe, call).ok
    finally:
        pipe.close()
    seen = server.peers[0]
    headers = seen.headers()
    assert len(seen.header_lines()) == len(headers)
    assert "evil" not in headers.values()
    assert headers["host"] == f"localhost:{server.port}"
    assert (headers["connection"], headers["accept-encoding"]) == ("close", "identity")
    assert (headers["content-length"], headers["accept"]) == ("6", "text/html")
    assert headers["x-mine"].encode("latin-1").decode() == "é"
    assert headers["user-agent"].startswith("Mozilla/5.0")
    assert not {"authorization", "cookie", "proxy-connection"} & headers.keys()
    assert seen.body == b"abc\0\0\0"


def test_the_order_of_headers_follows_the_seed(serve: Callable[..., Server]) -> None:
    server = serve(lambda peer: peer.answer())
    orders = []
    for seed in (1, 1, 2):
        pipe = Pipe(NONCE, seed=seed)
        probe = Probe(pipe, nonce=NONCE, port=server.port)  # type: ignore[arg-type]
        one(probe, get())
        pipe.close()
        orders.append([name for name, _ in server.peers[-1].header_lines()])
    assert orders[0] == orders[1] != orders[2]


def test_a_body_without_length_is_sent_as_zero_bytes_long(probe: Probe, serve: Callable[..., Server]) -> None:
    server = serve(lambda peer: peer.answer())
    probe.batch([post(), get("two")], at_once=1)
    assert server.peers[0].headers()["content-length"] == "0"
    assert "content-length" not in server.peers[1].headers()


def test_a_path_that_no_request_line_can_hold_is_encoded(probe: Probe, serve: Callable[..., Server]) -> None:
    server = serve(lambda peer: peer.answer())
    assert one(probe, get(path="/é x\r\nEvil: yes\ud800?a=%20")).ok
    assert server.peers[0].head.startswith(b"GET /%C3%A9%20x%0D%0AEvil:%20yes?")


@pytest.mark.parametrize(
    "header", [("X-A", "b\r\nEvil: yes"), ("Bad Name", "x"), ("ü", "x"), ("X", "\ud800")]
)
def test_a_request_that_cannot_be_sent_is_not(
    probe: Probe, serve: Callable[..., Server], header: tuple[str, str]
) -> None:
    server = serve(lambda peer: peer.answer())
    seen = one(probe, get(headers=(header,)))
    assert (seen.status, str(seen.failure).partition(" cannot")[0]) == (None, "protocol: this request")
    assert server.peers == []


def test_calls_at_once_and_one_after_the_other(probe: Probe, serve: Callable[..., Server]) -> None:
    at_once, most, lock = 0, 0, threading.Lock()

    def count(peer: Peer) -> None:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        time.sleep(0.05)
        with lock:
            at_once -= 1
        peer.answer()

    serve(count)
    calls = [get(f"c{n}") for n in range(6)]
    seen = probe.batch(calls, at_once=2)
    assert list(seen) == [call.name for call in calls]
    assert all(one.ok for one in seen.values())
    assert most <= 2
    all_here = threading.Barrier(6)

    def meet(peer: Peer) -> None:
        all_here.wait(5)
        peer.answer()

    serve(meet)
    assert all(one.ok for one in probe.batch(calls).values())


def test_a_delay_counts_from_the_start_of_the_batch(probe: Probe, serve: Callable[..., Server]) -> None:
    serve(lambda peer: peer.answer())
    seen = probe.batch([get("now"), get("later", delay_s=0.2, deadline_s=0.1)])
    assert seen["now"].started_ms < seen["later"].started_ms
    assert seen["later"].started_ms >= 200
    assert seen["later"].ok


def test_something_else_can_be_done_while_a_batch_is_under_way(
    probe: Probe, serve: Callable[..., Server]
) -> None:
    go = threading.Event()

    def hold(peer: Peer) -> None:
        go.wait(5)
        peer.answer()

    serve(hold)
    probe.begin([get()])
    with pytest.raises(RuntimeError, match="under way"):
        probe.listeners()
    go.set()
    assert probe.finish()["one"].ok
    with pytest.raises(RuntimeError, match="no batch"):
        probe.finish()


def test_calls_of_one_name_are_refused(probe: Probe) -> None:
    with pytest.raises(ValueError, match="names of their own"):
        probe.begin([get(), get()])
    assert probe.batch([]) == {}


# ---- readiness and listening ports


def test_any_status_line_means_ready(probe: Probe, serve: Callable[..., Server]) -> None:
    serve(lambda peer: peer.send(b"HTTP/1.1 503 Busy\r\nContent-Length: 100\r\n\r\n"))
    assert probe.ready(5.0).ready


def test_ready_waits_for_the_first_answer(probe: Probe, serve: Callable[..., Server]) -> None:
    def refuse_thrice(peer: Peer) -> None:
        if len(server.peers) > 3:
            peer.answer()

    server = serve(refuse_thrice)
    found = probe.ready(10.0, path="/docs")
    assert found.ready
    assert 0.3 < found.seconds < 10  # three pauses
    assert len(server.peers) == 4
    assert server.peers[-1].head.startswith(b"GET /docs ")


def test_not_ready_in_time(probe: Probe, serve: Callable[..., Server]) -> None:
    serve(lambda peer: peer.send(b"hello"))
    assert not probe.ready(0.2).ready
    probe.port = 1
    assert not probe.ready(0.2).ready


def test_listening_ports(probe: Probe, serve: Callable[..., Server]) -> None:
    server = serve(lambda peer: peer.answer())
    assert server.port in probe.listeners()
    server.close()
    assert server.port not in probe.listeners()


# ---- slow, endless and broken answers

HEAD = b"HTTP/1.1 200 OK\r\n"


def drip_body(peer: Peer) -> None:
    peer.send(HEAD + b"Content-Length: 1000000\r\n\r\n")
    peer.for_ever(b"x", 0.02)


def drip_head(peer: Peer) -> None:
    peer.send(HEAD)
    peer.for_ever(b"X: y\r\n", 0.02)


def slow_1xx(peer: Peer) -> None:
    peer.for_ever(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", 0.02)


def slow_chunks(peer: Peer) -> None:
    peer.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    peer.for_ever(b"1\r\nx\r\n", 0.02)


@pytest.mark.parametrize(
    ("handle", "status"),
    [(drip_body, 200), (drip_head, None), (slow_1xx, None), (slow_chunks, 200), (Peer.wait, None)],
)
def test_nothing_extends_a_deadline(
    probe: Probe, serve: Callable[..., Server], handle: Handler, status: int | None
) -> None:
    serve(handle)
    seen = one(probe, get(deadline_s=SHORT_S))
    assert (seen.failure, seen.status) == ("deadline", status)
    assert SHORT_S * 1000 <= seen.elapsed_ms < (SHORT_S + 1) * 1000
    assert str(seen) == "GET / → deadline"
    assert seen.body_bytes == len(seen.body)


def test_a_server_that_never_reads_a_large_upload(probe: Probe, serve: Callable[..., Server]) -> None:
    serve(Peer.wait, reads_head=False)
    seen = one(probe, post("one", 64 * MIB, deadline_s=SHORT_S))
    assert seen.failure == "deadline"


def endless_body(peer: Peer) -> None:
    peer.send(HEAD + b"\r\n")
    peer.for_ever(b"x" * 65536)


def endless_chunks(peer: Peer) -> None:
    peer.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    peer.for_ever(b"2000\r\n" + b"x" * 0x2000 + b"\r\n")


def announced(peer: Peer) -> None:
    peer.send(HEAD + b"Content-Length: 99999999999999\r\n\r\n")
    peer.for_ever(b"x" * 65536)


@pytest.mark.parametrize("handle", [endless_body, endless_chunks, announced])
def test_a_body_without_end_is_left_at_one_mebibyte(
    probe: Probe, serve: Callable[..., Server], handle: Handler
) -> None:
    serve(handle)
    seen = one(probe, get())
    assert seen.failure == "body too large: more than 1048576 bytes"
    assert (seen.status, len(seen.body)) == (200, 256 << 10)
    assert MIB < seen.body_bytes <= CAP


def test_chunks_that_are_mostly_framing_are_left_too(probe: Probe, serve: Callable[..., Server]) -> None:
    def handle(peer: Peer) -> None:
        peer.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        peer.for_ever((b"1;" + b"e" * 1000 + b"\r\nx\r\n") * 100)

    serve(handle)
    seen = one(probe, get())
    assert str(seen.failure).startswith("body too large")
    assert seen.body_bytes < 2000


def fast_1xx(peer: Peer) -> None:
    peer.for_ever(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000)


def endless_headers(peer: Peer) -> None:
    peer.send(HEAD)
    peer.for_ever(b"X-More: y\r\n" * 1000)


def giant_header(peer: Peer) -> None:
    peer.send(HEAD + b"X: ")
    peer.for_ever(b"y" * 65536)


def many_cookies(peer: Peer) -> None:
    peer.send(HEAD + b"Set-Cookie: a=b\r\n" * 100_000 + b"Content-Length: 0\r\n\r\n")


def endless_status_line(peer: Peer) -> None:
    peer.send(b"HTTP/1.1 200 ")
    peer.for_ever(b"O" * 65536)


@pytest.mark.parametrize(
    "handle", [fast_1xx, endless_headers, giant_header, many_cookies, endless_status_line]
)
def test_headers_beyond_64_kib(probe: Probe, serve: Callable[..., Server], handle: Handler) -> None:
    serve(handle)
    seen = one(probe, get())
    assert str(seen.failure).startswith("headers too large")
    assert (seen.status, seen.headers) == (None, ())


def test_the_first_headers_are_kept(probe: Probe, serve: Callable[..., Server]) -> None:
    serve(lambda peer: peer.answer(b"", *(f"X-{n}: y" for n in range(150))))
    seen = one(probe, get())
    assert seen.ok
    assert len(seen.headers) == 100
    serve(lambda peer: peer.answer(b"", *(f"X-{n}: {'y' * 5000}" for n in range(10))))
    assert len(one(probe, get()).headers) == 4  # 16 KiB


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 30 + b"\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0x5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"f" * 30 + b"\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n bad: folded\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n",
        b"HTTP/9 200 OK\r\n\r\n",
        b"<html>no status line</html>\r\n\r\n",
        b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\r\n\r\n",
        b"\x1b[2J::error::owned\r\n\r\n",
    ],
)
def test_what_is_no_answer_by_the_protocol(probe: Probe, serve: Callable[..., Server], answer: bytes) -> None:
    server = serve(lambda peer: (peer.send(answer), peer.wait()))  # type: ignore[func-returns-value]
    seen = one(probe, get())
    assert str(seen.failure).startswith("protocol: ")
    assert not seen.ok
    assert str(seen.failure).isprintable()
    assert len(str(seen.failure)) <= 200
    assert len(server.peers) == 1


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        (b"", "closed"),
        (b"HTTP/1.1 200", "closed"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello", "closed"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "closed"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", "closed"),
    ],
)
def test_an_answer_that_stops_early(
    probe: Probe, serve: Callable[..., Server], answer: bytes, failure: str
) -> None:
    serve(lambda peer: peer.send(answer))
    seen = one(probe, get())
    assert str(seen.failure).partition(":")[0] == failure
    assert not seen.ok


def test_an_answer_that_ends_with_the_connection(probe: Probe, serve: Callable[..., Server]) -> None:
    serve(lambda peer: peer.send(HEAD + b"\r\nto the end"))
    seen = one(probe, get())
    assert (seen.ok, seen.body) == (True, "to the end")


def test_nothing_listens(probe: Probe) -> None:
    probe.port = 1
    assert one(probe, get()).failure == "refused"


def test_a_storm_of_resets(probe: Probe, serve: Callable[..., Server]) -> None:
    serve(Peer.reset)
    calls = [*(get(f"g{n}") for n in range(100)), *(post(f"p{n}", 4 * MIB) for n in range(28))]
    seen = probe.batch(calls)
    assert {str(one.failure).partition(":")[0] for one in seen.values()} == {"reset"}
    serve(lambda peer: peer.answer())
    assert one(probe, get()).ok


@pytest.mark.parametrize("resets", [False, True])
def test_an_early_answer_to_a_large_upload_counts(
    probe: Probe, serve: Callable[..., Server], resets: bool
) -> None:
    def refuse(peer: Peer) -> None:
        peer.answer(b'{"detail": "too large"}', status="413 Content Too Large")
        if resets:
            time.sleep(0.1)
            peer.reset()

    serve(refuse)
    seen = one(probe, post("one", 25 * MIB))
    assert (seen.status, seen.failure, seen.body) == (413, None, '{"detail": "too large"}')


# ---- answers that lead elsewhere


def test_no_redirect_is_followed(probe: Probe, serve: Callable[..., Server]) -> None:
    canary = serve(lambda peer: peer.answer())
    targets = [f"http://127.0.0.1:{canary.port}/", "file:///etc/passwd", "http://169.254.169.254/latest", "/"]

    def redirect(peer: Peer) -> None:
        number = int(peer.head.split()[1].rpartition(b"/")[2])
        peer.answer(
            b"", f"Location: {targets[number]}", f"Refresh: 0; url={targets[number]}", status="307 Go"
        )

    server = serve(redirect)
    seen = probe.batch([get(f"r{n}", path=f"/{n}") for n in range(len(targets))])
    assert [one.status for one in seen.values()] == [307] * len(targets)
    assert [one.header("location") for one in seen.values()] == targets
    assert len(server.peers) == len(targets)
    assert canary.peers == []


def test_a_compressed_bomb_is_not_opened(probe: Probe, serve: Callable[..., Server]) -> None:
    bomb = gzip.compress(bytes(50 * MIB))
    serve(lambda peer: peer.answer(bomb, "Content-Encoding: gzip"))
    seen = one(probe, get())
    assert seen.ok
    assert seen.body_bytes == len(bomb) < MIB
    assert seen.body.startswith("\x1f\\x8b")


def test_a_forged_second_answer_is_never_read(probe: Probe, serve: Callable[..., Server]) -> None:
    forged = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"
    server = serve(lambda peer: peer.send(b"HTTP/1.1 500 No\r\nContent-Length: 4\r\n\r\nreal" + forged * 3))
    seen = probe.batch([get("first"), get("second")], at_once=1)
    assert [(one.status, one.body) for one in seen.values()] == [(500, "real")] * 2
    assert len(server.peers) == 2


def test_the_call_after_a_violation_is_not_touched_by_it(probe: Probe, serve: Callable[..., Server]) -> None:
    def turn(peer: Peer) -> None:
        bad = len(server.peers) % 2
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: -4\r\n\r\n") if bad else peer.answer(b"good")

    server = serve(turn)
    seen = probe.batch([get(f"c{n}") for n in range(6)], at_once=1)
    assert [one.body for one in seen.values()] == ["", "good"] * 3


# ---- what is kept


def test_more_is_kept_where_it_is_asked_for(probe: Probe, serve: Callable[..., Server]) -> None:
    text = b"0123456789abcdef" * (MIB // 16) * 2
    serve(lambda peer: peer.answer(text))
    assert one(probe, get(), keep_bytes=2 * MIB).body.encode() == text
    assert str(one(probe, get()).failure).startswith("body too large")


def test_bytes_that_are_no_text_are_spelled_out(probe: Probe, serve: Callable[..., Server]) -> None:
    serve(lambda peer: peer.answer(b"caf\xc3\xa9 \xff\x00", "X-Latin: caf\xe9"))
    seen = one(probe, get())
    assert (seen.body, seen.header("x-latin")) == ("café \\xff\x00", "café")


def test_memory_stays_small_whatever_64_servers_send(
    probe: Probe, serve: Callable[..., Server], pipe: Pipe
) -> None:
    def worst(peer: Peer) -> None:
        kind = int(peer.head.split()[1].rpartition(b"/")[2]) % 3
        (endless_body, many_cookies, endless_chunks)[kind](peer)

    serve(worst)
    seen = probe.batch([get(f"c{n}", path=f"/{n}") for n in range(192)], keep_bytes=MIB)
    assert sum(len(one.body) for one in seen.values()) == 16 * MIB
    assert all(one.failure for one in seen.values())
    assert pipe.peak_bytes() < 200 * MIB


# ---- the probe's own end, and what its host believes


def test_the_probe_ends_with_its_input(serve: Callable[..., Server]) -> None:
    server = serve(Peer.wait)
    pipe = Pipe(NONCE)
    Probe(pipe, nonce=NONCE, port=server.port).begin([get(deadline_s=60)])  # type: ignore[arg-type]
    while not server.peers:
        time.sleep(0.01)
    pipe.close()
    assert pipe.process.returncode == 0


class Scripted:
    """A conversation whose other side says what it was given."""

    def __init__(self, *lines: bytes) -> None:
        self.lines = list(lines)
        self.closed = False

    def send(self, line: bytes) -> None:
        pass

    def receive(self, timeout_s: float, *, most_bytes: int = 0) -> bytes:
        return self.lines.pop(0)

    def close(self) -> None:
        self.closed = True


RAW = {
    "name": "one", "status": 200, "headers": [["a", "b"]], "body": base64.b64encode(b"x").decode(),
    "body_bytes": 1, "failure": None, "started_ms": 0.5, "elapsed_ms": 2,
}  # fmt: skip


def reply(**more: Any) -> bytes:
    return json.dumps({"nonce": NONCE, "id": 1, "exchanges": [RAW]} | more).encode()


def told(*lines: bytes) -> Probe:
    return Probe(Scripted(*lines), nonce=NONCE)  # type: ignore[arg-type]


def test_a_good_reply_is_believed() -> None:
    assert one(told(reply()), get()).body == "x"


def test_the_detail_of_a_failure_is_escaped() -> None:
    seen = one(told(reply(exchanges=[RAW | {"failure": "protocol: \x1b[2J\n" + "x" * 500}])), get())
    assert seen.failure is not None
    assert seen.failure.startswith(r"protocol: \x1b[2J\nxx")
    assert len(seen.failure) == 200


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"[" * 100_000,
        b"\xff\xfe",
        b"[]",
        b"{}",
        reply(nonce="another"),
        reply(nonce=["x"]),
        reply(id=2),
        reply(exchanges=None),
        reply(exchanges=[]),
        reply(exchanges=[RAW, RAW]),
        reply(exchanges=["text"]),
        reply(error="MemoryError: \x1b[31m"),
        *(
            reply(exchanges=[RAW | change])
            for change in (
                {"name": "two"},
                {"status": "200"},
                {"status": 20},
                {"status": True},
                {"status": None},
                {"failure": "because"},
                {"failure": 3},
                {"headers": [["a"]]},
                {"headers": [["a", 1]]},
                {"headers": None},
                {"body": "not base64!"},
                {"body": None},
                {"body_bytes": "1"},
                {"elapsed_ms": None},
            )
        ),
        json.dumps({"nonce": NONCE, "id": 1, "exchanges": [{"name": "one"}]}).encode(),
    ],
)
def test_a_reply_that_is_not_the_probes_is_the_sandboxs_fault(line: bytes) -> None:
    with pytest.raises(SandboxFault, match="the probe beside the server is broken") as caught:
        one(told(line), get())
    assert str(caught.value).isprintable()


def test_other_replies_of_a_wrong_form() -> None:
    with pytest.raises(SandboxFault):
        told(reply(ready="yes", seconds=1)).ready(1)
    with pytest.raises(SandboxFault):
        told(reply(ready=True)).ready(1)
    with pytest.raises(SandboxFault):
        told(reply(ports=["x"])).listeners()


def test_the_script_answers_nonsense_with_an_error(pipe: Pipe) -> None:
    for line in (b"{", b'{"op": "exec", "id": 7}', b'{"op": "batch", "id": 8}', b"\xff"):
        pipe.send(line)
        answer = json.loads(pipe.receive(5))
        assert answer["nonce"] == NONCE
        assert "error" in answer


def test_closing_ends_the_conversation() -> None:
    conversation = Scripted()
    Probe(conversation, nonce=NONCE).close()  # type: ignore[arg-type]
    assert conversation.closed


def test_the_job_needs_nothing_but_the_script() -> None:
    job = probe_job("n0nce", seed=5)
    assert job.argv == ("python3", "-I", "probe.py", "n0nce", "5")
    assert job.role == "probe"
    assert (job.limits.memory_bytes, job.limits.pids) == (256 * MIB, 64)
    assert b"pytest_qwen" not in job.files["probe.py"]
    compile(job.files["probe.py"], "probe.py", "exec")


def test_a_probe_is_opened_beside_a_container_with_a_nonce_of_its_own() -> None:
    class Recorder:
        def talk(self, job: Any, *, beside: Any) -> Scripted:
            nonces.append(job.argv[3])
            assert (beside, job.argv[4]) == ("guest", "7")
            return Scripted(reply(nonce=nonces[-1]))

    nonces: list[str] = []
    for _ in range(2):
        opened = open_probe(Recorder(), "guest", port=81, seed=7)  # type: ignore[arg-type]
        assert opened.port == 81
        assert one(opened, get()).ok
    assert len(set(nonces)) == 2


# ---- forms


def parts_of(
    headers: tuple[tuple[str, str], ...], body: tuple[bytes | int, ...]
) -> list[email.message.Message]:
    whole = b"".join(bytes(piece) if isinstance(piece, int) else piece for piece in body)
    head = "".join(f"{name}: {value}\r\n" for name, value in headers).encode()
    message = email.message_from_bytes(head + b"\r\n" + whole, policy=email.policy.HTTP)
    return list(message.iter_parts())


def test_a_form_as_a_browser_sends_it() -> None:
    parts = parts_of(*multipart("file", "a.png", "image/png", b"\x89PNG\r\n--x", fields={"top_k": "3"}))
    assert [part.get_param("name", header="content-disposition") for part in parts] == ["top_k", "file"]
    assert parts[0].get_content().strip() == "3"
    assert (parts[1].get_filename(), parts[1].get_content_type()) == ("a.png", "image/png")
    assert parts[1].get_payload(decode=True) == b"\x89PNG\r\n--x"


def test_a_large_file_need_not_be_made() -> None:
    headers, body = multipart("file", "a.png", "image/png", (b"start", 1000))
    assert 1000 in body
    assert parts_of(headers, body)[0].get_payload(decode=True) == b"start" + bytes(1000)
    assert headers == multipart("file", "a.png", "image/png", (b"start", 1000))[0]


def test_forms_that_lack_something() -> None:
    part = parts_of(*multipart("file", None, None, b"data"))[0]
    assert part.get_filename() is None
    assert "content-type" not in part
    assert parts_of(*multipart("file", "a.png", "image/png", b""))[0].get_payload(decode=True) == b""
    headers, body = multipart(None, "a.png", "image/png", b"data")
    assert b"".join(body).startswith(b"------WebKit")  # type: ignore[arg-type]
    assert b"data" not in b"".join(body)  # type: ignore[arg-type]
    headers, body = multipart("file", "a.png", "image/png", b"data", empty=True)
    assert "multipart/form-data; boundary=" in headers[0][1]
    assert body == ()


def test_names_cannot_leave_their_quotes() -> None:
    _, body = multipart('f"\r\nX: y', 'a"\r\n.png', "image/png", b"data")
    assert b'name="f%22%0D%0AX: y"; filename="a%22%0D%0A.png"\r\n' in body[0]  # type: ignore[operator]
