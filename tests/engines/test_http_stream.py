"""The HTTP client against servers that send what they should not: times, states, reuse, nothing retried."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from scripted_server import HEAD, Asked, Raw, chunk, event, plain, serving

from pytest_qwen.engines.addresses import address_of
from pytest_qwen.engines.http_exchange import Exchange
from pytest_qwen.engines.http_stream import HttpClient


def fetched(
    script: Callable[[Asked], Raw], *, times: int = 1, key: str = "", silence_s: float = 60.0
) -> list[Exchange]:
    """The same request so many times in a row."""

    async def all_of_it(url: str) -> list[Exchange]:
        client = HttpClient(address_of(url), key=key, silence_s=silence_s)
        try:
            return [await client.fetch("POST", "/v1/x", b"{}") for _ in range(times)]
        finally:
            client.close()
            await asyncio.sleep(0)

    with serving(script) as url:
        return asyncio.run(all_of_it(url))


def state(script: Callable[[Asked], Raw], **more: float) -> tuple[str, str]:
    (exchange,) = fetched(script, **more)
    assert exchange.failure is not None
    return exchange.failure


def test_a_connection_is_used_again_and_times_are_in_order() -> None:
    first, second = fetched(lambda _asked: plain({"a": 1}), times=2)
    assert (first.used_before, second.used_before) == (False, True)
    assert first.sent_ns < first.end_ns <= second.sent_ns < second.end_ns
    assert first.body == b'{"a": 1}'


def test_a_server_that_closes_gets_a_new_connection_each_time() -> None:
    closing = plain({}, more="Connection: close\r\n")
    exchanges = fetched(lambda _asked: Raw(closing.pieces, "close"), times=2)
    assert [one.failure for one in exchanges] == [None, None]
    assert not exchanges[1].used_before


def test_the_key_is_sent_as_a_bearer_token_and_without_one_nothing() -> None:
    seen: list[Asked] = []

    def script(asked: Asked) -> Raw:
        seen.append(asked)
        return plain({})

    fetched(script, key="sk-1")
    fetched(script)
    assert seen[0].headers["authorization"] == "Bearer sk-1"
    assert "authorization" not in seen[1].headers
    assert seen[0].headers["accept-encoding"] == "identity"


def test_a_failed_request_is_not_sent_again() -> None:
    seen: list[Asked] = []

    def script(asked: Asked) -> Raw:
        seen.append(asked)
        return Raw([], "close")

    assert state(script) == ("cut", "the connection was closed before an answer came")
    assert len(seen) == 1


def test_redirects_are_not_followed() -> None:
    (exchange,) = fetched(lambda _asked: plain(b"", 302, more="Location: http://127.0.0.1:1/\r\n"))
    assert (exchange.framer.status, exchange.failure) == (302, None)


@pytest.mark.parametrize(
    ("raw", "expected", "words"),
    [
        (Raw([HEAD, chunk(event(b"a"))], "close"), "cut", "closed in the middle of the answer, after"),
        (Raw([HEAD + chunk(event(b"a"))], "reset"), "cut", "reset"),
        (Raw([b"220 ftp ready\r\n"], "close"), "malformed", "220 ftp ready"),
        (Raw([HEAD, b"zz\r\n", b"\r\n"], "close"), "malformed", "a chunk's size is b'zz'"),
        (Raw([HEAD + b"0\r\n\r\n" + b"HTTP/1.1"], "close"), "malformed", "follows its last chunk"),
    ],
)
def test_broken_answers_have_their_state_and_words(raw: Raw, expected: str, words: str) -> None:
    found, detail = state(lambda _asked: raw)
    assert found == expected
    assert words in detail


def test_silence_ends_a_request_and_keeps_what_came() -> None:
    (exchange,) = fetched(lambda _asked: Raw([HEAD, chunk(event(b"a"))], "hold"), silence_s=0.1)
    assert exchange.failure is not None
    assert exchange.failure[0] == "silent"
    assert "nothing came for 0.1 s, after" in exchange.failure[1]
    assert exchange.body == event(b"a")


def test_silence_from_the_start_is_silence_too() -> None:
    assert state(lambda _asked: Raw([], "hold"), silence_s=0.1) == ("silent", "nothing came for 0.1 s")


def reached(url: str) -> tuple[str, str]:
    async def ask() -> tuple[str, str]:
        exchange = await HttpClient(address_of(url)).fetch("GET", "/v1/models")
        assert exchange.failure is not None
        return exchange.failure

    return asyncio.run(ask())


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for 127.0.0.1, valid until 2126; made once with openssl."""
    return Path(__file__).parents[1] / "data" / "self-signed.pem"


def test_a_self_signed_certificate_is_not_trusted(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    with serving(lambda _asked: plain({}), tls) as url:
        found, words = reached(url)
        assert (found, "its certificate is not trusted (self-signed certificate)" in words) == (
            "unreachable",
            True,
        )


def test_a_certificate_that_the_user_trusts_is(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)

    async def ask(url: str) -> Exchange:
        client = HttpClient(address_of(url))
        try:
            return await client.fetch("GET", "/v1/models")
        finally:
            client.close()
            await asyncio.sleep(0.01)  # TLS connections end in the loop

    with serving(lambda _asked: plain({"data": []}), tls) as url:
        exchange = asyncio.run(ask(url))
    assert (exchange.failure, exchange.body) == (None, b'{"data": []}')


def test_tls_on_a_plain_port_and_nothing_on_a_port() -> None:
    with serving(lambda _asked: plain({})) as url:
        found, words = reached(url.replace("http:", "https:"))
    assert found == "unreachable"
    assert "is it http:// rather than https://?" in words
    assert reached(url) == (
        "unreachable",
        f"{url.removeprefix('http://')}: nothing listens there (connection refused)",
    )
