"""Prompts of a given length, bodies in the words of each kind of server, URLs."""

from __future__ import annotations

import json
import random

import pytest

from pytest_qwen.engines.addresses import address_of
from pytest_qwen.engines.asking import Lengths, Manner, ask, extra_fields
from pytest_qwen.engines.base import Message, Request
from pytest_qwen.engines.dialects import DIALECTS, by_owner, fixed_fields, tells, version_in
from pytest_qwen.engines.texts import Calibration, calibrated, token_ids, varied, words
from pytest_qwen.errors import Misuse

FIXED = Request(prompt_tokens=20, output_tokens=7, ignore_eos=True)


def manner(kind: str = "vllm", **more: object) -> Manner:
    return Manner(model="m", dialect=DIALECTS[kind], **more)


def body(asking: Manner, request: Request, key: object = 1, **more: object) -> dict:
    return json.loads(ask(asking, request, key, **more).body)


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("vllm", {"ignore_eos": True, "min_tokens": 7}),
        ("sglang", {"ignore_eos": True, "min_tokens": 7}),
        ("tensorrt-llm", {"ignore_eos": True, "min_tokens": 7}),
        ("llama-cpp", {"ignore_eos": True}),
        ("transformers", {"generation_config": '{"max_new_tokens": 7, "min_new_tokens": 7}'}),
        ("tgi", {}),
        ("ollama", {}),
        ("unknown", {}),
    ],
)
def test_each_server_has_its_own_words_for_a_fixed_length(kind: str, fields: dict) -> None:
    assert fixed_fields(DIALECTS[kind], 7) == fields
    sent = body(manner(kind), FIXED)
    assert fields.items() <= sent.items()
    assert not fields.keys() & body(manner(kind), Request(prompt="a", output_tokens=7)).keys()


def test_token_ids_are_as_many_as_asked_and_fresh() -> None:
    asking = manner(prompts="tokens", route="completions", vocabulary=5000)
    first, again, other = (body(asking, FIXED, key)["prompt"] for key in (1, 1, 2))
    assert len(first) == 20
    assert first == again != other
    assert all(0 <= one < 5000 for one in first)


def test_a_shared_prefix_is_shared_and_nothing_else() -> None:
    asking = manner(prompts="tokens", route="completions")
    lengths = Lengths(prompt=20, output=7, shared=12)
    first, other = (body(asking, FIXED, key, lengths=lengths)["prompt"] for key in (1, 2))
    assert first[:12] == other[:12]
    assert first[12:] != other[12:]
    assert len(first) == len(other) == 20


def test_measured_prompts_are_kept_out_of_the_prefix_cache_where_that_can_be_said() -> None:
    assert body(manner(), FIXED, salt="s")["cache_salt"] == "s"
    assert body(manner("llama-cpp"), FIXED, salt="s")["cache_prompt"] is False
    assert body(manner("ollama"), FIXED, salt="s") == body(manner("ollama"), FIXED)
    assert "cache_salt" not in body(manner(), FIXED)
    assert "cache_salt" not in body(manner(fixes=False), FIXED, salt="s")


def test_words_follow_the_calibration() -> None:
    asking = manner(prompts="text", route="chat", words={"chat": Calibration(overhead=8, per_word=1.5)})
    (message,) = body(asking, FIXED)["messages"]
    assert len(message["content"].split()) == 8
    assert calibrated((16, 32), (64, 104)) == Calibration(overhead=8, per_word=1.5)
    assert calibrated((16, 32), (64, 32)) == Calibration()
    assert words(5, "x") == words(5, "x") != words(5, "y")


def test_a_conversation_goes_on_with_what_was_said() -> None:
    asking = manner(prompts="text", route="chat")
    first = ask(asking, FIXED, 1)
    said = (*first.messages, Message(role="assistant", content="yes"))
    turns = body(asking, FIXED, 2, history=said)["messages"]
    assert [turn["role"] for turn in turns] == ["user", "assistant", "user"]
    assert turns[0]["content"] == first.messages[0].content


def test_text_goes_through_the_template_unless_it_shall_not() -> None:
    assert ask(manner(), Request(prompt="a"), 0).path == "/v1/chat/completions"
    assert ask(manner(), Request(prompt="a", template=False), 0).path == "/v1/completions"
    assert (
        body(manner(only="completions"), Request(messages=(Message(role="user", content="a"),)))["prompt"]
        == "a"
    )


def test_sampling_and_extra_fields_are_sent() -> None:
    request = Request(prompt="a", temperature=0.5, top_p=0.9, seed=3, stop=("x",))
    sent = body(manner(extra={"chat_template_kwargs": {"enable_thinking": False}}), request)
    assert (sent["temperature"], sent["top_p"], sent["seed"], sent["stop"]) == (0.5, 0.9, 3, ["x"])
    assert sent["chat_template_kwargs"] == {"enable_thinking": False}
    assert sent["stream_options"] == {"include_usage": True}
    assert "stream_options" not in body(manner(counts=False), request)


@pytest.mark.parametrize("text", ["{", "[1]", '{"model": "x"}'])
def test_wrong_extra_fields_are_refused(text: str) -> None:
    with pytest.raises(Misuse, match="the option 'body'"):
        extra_fields(text)


def test_lengths_vary_as_asked() -> None:
    draw = random.Random(1)
    uniform = [varied(100, 0.2, "uniform", draw) for _ in range(500)]
    log = [varied(100, 0.5, "lognormal", draw) for _ in range(500)]
    assert (min(uniform), max(uniform)) == (80, 120)
    assert 85 < sorted(log)[250] < 115
    assert max(log) > 200
    assert varied(1, 0.9, "uniform", draw) == 1
    assert len(token_ids(3, "x", 8)) == 3


@pytest.mark.parametrize(
    ("models", "server", "kind"),
    [
        ([{"owned_by": "vllm"}], "uvicorn", "vllm"),
        ([{"owned_by": "sglang"}], "", "sglang"),
        ([{"owned_by": "library"}], "", "ollama"),
        ([{"owned_by": "me"}], "llama.cpp", "llama-cpp"),
    ],
)
def test_servers_show_their_kind(models: list, server: str, kind: str) -> None:
    found = by_owner(models, server)
    assert found is not None
    assert found.name == kind


def test_a_route_tells_by_its_fields() -> None:
    assert by_owner([{"owned_by": "acme"}], "nginx") is None
    assert tells(b'{"build_info": "b1"}', "build_info")
    assert tells(b'{"paths": {"/load_model": {}}}', "/load_model")
    assert not tells(b"<html>", "version")
    assert version_in(b'{"version": "0.12"}', "version") == "0.12"
    assert version_in(b"[]", "version") == ""


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://host:8000", "http://host:8000/v1"),
        ("http://host:8000/v1/", "http://host:8000/v1"),
        ("https://api.example.com/openai/v1/chat/completions", "https://api.example.com/openai/v1"),
        ("http://[::1]:8000", "http://[::1]:8000/v1"),
        ("https://host:443", "https://host/v1"),
    ],
)
def test_urls_have_one_form(text: str, url: str) -> None:
    assert address_of(text).url == url


@pytest.mark.parametrize(
    "text",
    ["host:8000", "ftp://host", "http://", "http://host:99999", "http://ho st", "http://h/v1?key=abc", ""],
)
def test_what_is_no_url_is_refused(text: str) -> None:
    with pytest.raises(Misuse, match="URL"):
        address_of(text)


def test_a_password_in_a_url_is_refused_and_not_repeated() -> None:
    for text in ("https://user:hunter2@host/v1", "user:hunter2@host:99999", "ftp://user:hunter2@host"):
        with pytest.raises(Misuse) as caught:
            address_of(text)
        assert "hunter2" not in str(caught.value)
