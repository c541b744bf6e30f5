"""The endpoint engine: conformance, what it finds out, whose fault a failure is, and a key that is never shown."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict

import pytest
from scripted_server import (
    HEAD,
    Asked,
    Raw,
    Script,
    answer,
    chunk,
    delta,
    event,
    finish,
    plain,
    serving,
    stream,
    text_chunk,
    usage,
)

from pytest_qwen.engines import SERVED_MODEL
from pytest_qwen.engines.base import Engine, Loaded, LoadSpec, Message, Pair, Request, Trace
from pytest_qwen.engines.endpoint import EndpointEngine
from pytest_qwen.errors import EngineFault, Misuse, ModelUnusable, QwenError, Unavailable
from pytest_qwen.testing import EngineConformance, MockServer

FIXED = Request(prompt_tokens=8, output_tokens=6, ignore_eos=True)
KEY = "sk-do-not-show-me"


def spec(url: str, model: str = "tiny", **options: str) -> LoadSpec:
    return LoadSpec(engine="endpoint", model=model, options=tuple(sorted({"url": url, **options}.items())))


def used(
    script: Callable[[Asked], Raw], request: Request = FIXED, *, model: str = "tiny", **options: str
) -> tuple[Loaded, Trace]:
    """Load and run once."""
    engine = EndpointEngine()
    with serving(script) as url:
        try:
            return engine.load(spec(url, model, **options)), engine.run(request)
        finally:
            engine.close()


def error(script: Callable[[Asked], Raw], **more: str) -> QwenError:
    with pytest.raises(QwenError) as caught:
        used(script, **more)
    return caught.value


def from_then_on(bad: Raw) -> Script:
    """In order until the tiny request at load is answered; then bad."""
    calls: list[Asked] = []

    def complete(asked: Asked) -> Raw:
        calls.append(asked)
        return answer(asked) if len(calls) == 1 else bad

    return Script(complete=complete)


class TestEndpoint(EngineConformance):
    served = True

    @classmethod
    def setup_class(cls) -> None:
        cls.server = MockServer(ttft_ms=2, gap_ms=1)
        cls.server.__enter__()
        super().setup_class()

    @classmethod
    def teardown_class(cls) -> None:
        super().teardown_class()
        cls.server.close()

    @classmethod
    def make_engine(cls) -> Engine:
        return EndpointEngine()

    @classmethod
    def spec(cls) -> LoadSpec:
        return spec(cls.server.url, SERVED_MODEL)


# what is found out


def test_the_kind_of_server_decides_how_it_is_asked() -> None:
    script = Script(routes={"/version": plain({"version": "0.24.0"})})
    loaded, trace = used(script, model=SERVED_MODEL)
    assert loaded.versions == {"vllm": "0.24.0"}
    assert "model tiny" in loaded.applied
    sent = script.asked[-1].json
    assert (len(sent["prompt"]), sent["ignore_eos"], sent["min_tokens"]) == (8, True, 6)
    assert (trace.prompt_tokens, trace.output_tokens, trace.finish_reason) == (8, 6, "length")


def test_a_strict_server_is_asked_in_the_plain_way() -> None:
    def complete(asked: Asked) -> Raw:
        unknown = asked.json.keys() & {"ignore_eos", "min_tokens", "stream_options"}
        if unknown:
            return plain({"error": {"message": f"Unrecognized request argument: {unknown}"}}, 400)
        return stream(text_chunk("a "), text_chunk("b"), finish("stop"))

    loaded, trace = used(Script(complete=complete))
    assert "answers are as long as the model makes them" in loaded.applied
    assert "the server does not count tokens" in loaded.applied
    assert trace.texts == ("a b",)
    assert (trace.streams[0].state, trace.output_tokens) == ("no-usage", 0)


def test_a_server_without_token_ids_gets_words_of_the_asked_length() -> None:
    def complete(asked: Asked) -> Raw:
        (message,) = asked.json["messages"]
        tokens = 10 + 2 * len(message["content"].split())  # a template of ten, two tokens a word
        return stream(
            *[delta(content="w")] * asked.json["max_tokens"],
            finish(),
            usage(tokens, asked.json["max_tokens"]),
        )

    models = {"data": [{"id": "tiny", "owned_by": "library"}]}
    _, trace = used(Script(models=models, complete=complete), Request(prompt_tokens=50, output_tokens=3))
    assert trace.prompt_tokens == 50


def test_an_unlisted_name_of_ollama_is_found_with_its_tag() -> None:
    script = Script(models={"data": [{"id": "tiny:latest", "owned_by": "library"}]})
    assert "model tiny:latest" in used(script)[0].applied


def test_chunks_without_text_are_no_tokens() -> None:
    def complete(asked: Asked) -> Raw:
        call = {"index": 0, "function": {"name": "f", "arguments": "{}"}}
        return stream(
            {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]},
            delta(reasoning_content="hm "),
            delta(content="yes "),
            delta(tool_calls=[call]),
            finish("tool_calls"),
            usage(4, 9),
        )

    _, trace = used(Script(complete=complete), Request(messages=(Message(role="user", content="a"),)))
    (one,) = trace.streams
    assert len(one.chunk_ms) == 3
    assert trace.texts == ("hm yes f{}",)
    assert (one.ttft_ms, one.last_ms) == (one.chunk_ms[0], one.chunk_ms[-1])
    assert (one.output_tokens, one.one_token_a_chunk, one.finish_reason) == (9, False, "tool_calls")


def test_counts_of_other_forms_are_read() -> None:
    timings = {"timings": {"prompt_n": 3, "cache_n": 5, "predicted_n": 2}}
    llama = Script(complete=lambda _asked: stream(text_chunk("a"), finish(), timings))
    (one,) = used(llama)[1].streams
    assert (one.state, one.prompt_tokens, one.cached_tokens, one.output_tokens) == ("ok", 8, 5, 2)
    cached = {
        "usage": {"prompt_tokens": 8, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 6}}
    }
    vllm = Script(complete=lambda _asked: stream(text_chunk("a"), finish(), cached))
    assert used(vllm)[1].streams[0].cached_tokens == 6


def test_several_events_in_one_packet_have_its_time() -> None:
    packet = b"".join(event(text_chunk(f"w{n}")) for n in range(3)) + event(finish()) + event(usage(8, 3))
    script = Script(
        complete=lambda _asked: Raw([HEAD, chunk(packet), chunk(event(b"[DONE]")) + b"0\r\n\r\n"])
    )
    (one,) = used(script)[1].streams
    assert len(one.chunk_ms) == 3
    assert len(set(one.chunk_ms)) == 1


def test_tokens_are_counted_by_the_server() -> None:
    engine = EndpointEngine()
    with serving(Script(routes={"/tokenize": plain({"count": 5, "tokens": [1, 2, 3, 4, 5]})})) as url:
        engine.load(spec(url))
        assert engine.count_tokens("one two") == 5
        with pytest.raises(Unavailable, match="no token ids"):
            engine.encode("a")
        with pytest.raises(Unavailable, match="does not rate"):
            engine.score([Pair(context=(1,), continuation=(2,))])
        engine.close()
    with serving(Script(models={"data": [{"id": "tiny", "owned_by": "library"}]})) as url:
        engine = EndpointEngine()
        engine.load(spec(url))
        with pytest.raises(Unavailable, match="does not count tokens"):
            engine.count_tokens("one")
        engine.close()


def test_extra_fields_go_into_the_body() -> None:
    script = Script()
    used(script, body='{"chat_template_kwargs": {"enable_thinking": false}}')
    assert script.asked[-1].json["chat_template_kwargs"] == {"enable_thinking": False}


def test_an_error_of_the_listener_is_raised_when_the_answer_is_there() -> None:
    def listen(_text: str) -> None:
        raise KeyError("mine")

    engine = EndpointEngine()
    with serving(Script()) as url:
        engine.load(spec(url))
        with pytest.raises(KeyError, match="mine"):
            engine.run(FIXED, listen)
        assert engine.run(FIXED).output_tokens == 6
        engine.close()


def test_sleep_and_wake_take_their_time() -> None:
    with MockServer(ttft_ms=1, gap_ms=1, sleep_s=0.05, wake_s=0.02) as server:
        engine = EndpointEngine()
        engine.load(spec(server.url, SERVED_MODEL))
        assert 0.05 <= engine.sleep(1) < 5
        assert 0.02 <= engine.wake() < 5
        assert engine.run(FIXED).output_tokens == 6
        engine.close()


def test_a_server_that_cannot_sleep_says_so() -> None:
    engine = EndpointEngine()
    with serving(Script()) as url:
        engine.load(spec(url))
        with pytest.raises(Unavailable, match="does not offer to sleep"):
            engine.sleep()
        engine.close()


def test_a_server_that_fails_once_at_load_is_asked_again_in_the_same_way() -> None:
    calls: list[Asked] = []

    def complete(asked: Asked) -> Raw:
        calls.append(asked)
        return plain({"error": "x"}, 500) if len(calls) == 1 else answer(asked)

    loaded, _ = used(Script(complete=complete))
    assert "completions API, random prompts of token ids" in loaded.applied
    assert len(calls) == 3  # the failed one, its repetition, the measured one


# whose fault it is

REFUSED_MODEL = plain({"error": {"message": "The model `tiny` does not exist."}}, 404)
HALF = Raw([HEAD, chunk(event(text_chunk("a"))), b"0\r\n\r\n"])


@pytest.mark.parametrize(
    ("script", "kind", "words"),
    [
        (
            Script(models=plain(b"<html>", kind="text/html")),
            Misuse,
            "no OpenAI-compatible API answers at this URL",
        ),
        (Script(models=plain(b"<html>", 404, kind="text/html")), Misuse, "HTTP 404: with a web page"),
        (
            Script(models=plain(b"", 302, more="Location: https://a.b/\r\n")),
            Misuse,
            "redirects to https://a.b/",
        ),
        (lambda _asked: Raw([b"220 smtp\r\n"], "close"), Misuse, "220 smtp"),
        (Script(models=plain({}, 401)), Misuse, "export PYTEST_QWEN_API_KEY=…"),
        (Script(models=plain({"error": "busy"}, 503)), EngineFault, "HTTP 503: busy"),
        (Script(models={"data": [{"id": "other"}]}), ModelUnusable, "valid: other"),
        (Script(complete=lambda _asked: REFUSED_MODEL), ModelUnusable, "valid: tiny"),
        (Script(complete=lambda _asked: plain({"detail": "Not Found"}, 404)), Misuse, "HTTP 404: Not Found"),
        (
            Script(complete=lambda _asked: plain({"error": {"message": "boom"}}, 500)),
            EngineFault,
            "HTTP 500: boom",
        ),
        (
            from_then_on(plain({"error": "slow down"}, 429, more="Retry-After: 9\r\n")),
            EngineFault,
            "retry after 9",
        ),
        (from_then_on(plain(b"<html>", 502, kind="text/html")), EngineFault, "HTTP 502: with a web page"),
        (from_then_on(plain({"message": "too long"}, 400)), EngineFault, "refused the request"),
        (
            from_then_on(plain(b"<html>", kind="text/html")),
            EngineFault,
            "answered with a web page, not with a stream",
        ),
        (from_then_on(plain({"choices": []})), EngineFault, "application/json, not with a stream"),
        (from_then_on(plain({"error": {"message": "oops"}})), EngineFault, "an error with status 200: oops"),
        (from_then_on(HALF), EngineFault, "without a finish reason or [DONE], after 1 chunks"),
        (
            from_then_on(Raw([HEAD, chunk(event(text_chunk("a")))], "close")),
            EngineFault,
            "in the middle of the answer",
        ),
        (from_then_on(stream(b"{nope")), EngineFault, "an event is no JSON object: b'{nope'"),
        (
            from_then_on(Raw([HEAD, chunk(b"<html>\n"), b"0\r\n\r\n"])),
            EngineFault,
            "a line of the stream is b'<html>'",
        ),
        (
            from_then_on(stream({"error": {"message": "out of memory"}})),
            EngineFault,
            "an error in the stream: out of",
        ),
    ],
)
def test_each_failure_has_one_clear_message_and_the_right_fault(
    script: Callable[[Asked], Raw], kind: type[QwenError], words: str
) -> None:
    found = error(script)
    assert type(found) is kind
    assert words in str(found)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://127.0.0.1:1", "nothing listens there (connection refused)"),
        ("http://no-such-host.invalid", "no such host"),
    ],
)
def test_what_cannot_be_reached_is_unavailable(url: str, words: str) -> None:
    with pytest.raises(Unavailable) as caught:
        EndpointEngine().load(spec(url))
    assert words in str(caught.value)


def test_two_models_and_none_named() -> None:
    models = {"data": [{"id": "a"}, {"id": "b"}, {"id": "adapter", "parent": "a"}]}
    found = error(Script(models=models), model=SERVED_MODEL)
    assert isinstance(found, Misuse)
    assert "valid: a, b, adapter" in str(found)
    assert "--qwen-model" in str(found)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"apii": "chat"}, "did you mean 'api'?"),
        ({"api": "chats"}, "the option 'api' is wrong"),
        ({"api": "chat", "prompts": "tokens"}, "takes no prompts of token ids that way"),
        ({"dialect": "vlm"}, "no such kind of server"),
        ({"body": "{"}, "is no JSON"),
        ({"url": ""}, "needs a URL"),
    ],
)
def test_wrong_options_are_misuse(options: dict[str, str], words: str) -> None:
    with serving(Script()) as url, pytest.raises(Misuse) as caught:
        EndpointEngine().load(spec(**{"url": url, **options}))
    assert words in str(caught.value)


def test_a_request_that_failed_ends_nothing() -> None:
    calls: list[Asked] = []

    def complete(asked: Asked) -> Raw:
        calls.append(asked)
        return plain({"error": "x"}, 500) if len(calls) == 2 else answer(asked)

    engine = EndpointEngine()
    with serving(Script(complete=complete)) as url:
        engine.load(spec(url))
        with pytest.raises(EngineFault):
            engine.run(FIXED)
        assert engine.run(FIXED).output_tokens == 6
        engine.close()


# the key


def test_the_key_is_sent_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", f" {KEY}\n")
    script = Script()
    loaded, trace = used(script, key_env="MY_KEY")
    assert {asked.headers["authorization"] for asked in script.asked} == {f"Bearer {KEY}"}
    assert KEY not in json.dumps([asdict(loaded), asdict(trace)], default=str)
    assert KEY not in repr(spec("http://h", key_env="MY_KEY"))


@pytest.mark.parametrize("status", [401, 403, 400, 500])
def test_a_key_that_the_server_repeats_is_not_passed_on(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    told = plain({"error": {"message": f"Incorrect API key provided: {KEY}"}}, status)
    for script in (Script(models=told), from_then_on(told)):
        found = error(script, key_env="MY_KEY")
        assert KEY not in str(found)
        assert "***" in str(found)


def test_a_key_that_no_header_can_hold_is_refused_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", f"{KEY}\r\nX: y")
    found = error(Script(), key_env="MY_KEY")
    assert isinstance(found, Misuse)
    assert KEY not in str(found)
