"""The bytes of a mock server's answers, and its tokens: a token is a word with the white space before it."""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_WORD = re.compile(r"\s*\S+")
_VOCABULARY = 30_000
_WORDS = 9973  # a prime, so that every step leads through all of them
_BLOCK = 16
DONE = b"data: [DONE]\n\n"
STREAM_TYPE = "text/event-stream; charset=utf-8"


def words_of(text: str) -> list[str]:
    """The tokens of a text: "two words" gives "two" and " words"."""
    return _WORD.findall(text)


def ids_of(words: Sequence[str]) -> list[int]:
    """Token ids: equal words have equal ids, in any process."""
    return [zlib.crc32(word.encode()) % _VOCABULARY for word in words]


def prompt_ids(body: Mapping[str, Any], *, chat: bool) -> list[int]:
    """The prompt's token ids: a chat's template adds four tokens a message. Raises ValueError in words."""
    if not chat:
        prompt = body.get("prompt")
        if isinstance(prompt, str):
            return ids_of(words_of(prompt))
        if isinstance(prompt, list) and prompt and all(type(one) is int for one in prompt):
            return list(prompt)
        raise ValueError("'prompt' must be one text or one list of token ids")
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise ValueError("'messages' must be a list of messages")
    ids: list[int] = []
    for message in messages:
        ids += [1, 2, 3, 4, *ids_of(words_of(_said(message)))]
    return ids


def _said(message: Any) -> str:
    """A message's text; it may come in parts."""
    content = message.get("content") if isinstance(message, dict) else None
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    if not isinstance(parts, list) or not all(
        isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)
        for part in parts
    ):
        raise ValueError("each message needs a 'role' and a 'content' that is text or parts of text")
    return "".join(part["text"] for part in parts)


class PrefixCache:
    """Remembers the prompts' starts in blocks of 16 tokens, as vLLM's automatic prefix caching does."""

    def __init__(self) -> None:
        """`asked` and `hit` count tokens."""
        self._blocks: set[bytes] = set()
        self.asked = self.hit = 0

    def cached(self, ids: Sequence[int]) -> int:
        """How many leading tokens were seen before; they are remembered from now on.

        The last token is always computed, without it there would be nothing to sample from, and so is the
        block that it is in.
        """
        found, chain, broken = 0, b"", False
        for start in range(0, len(ids) - len(ids) % _BLOCK, _BLOCK):
            block = repr(ids[start : start + _BLOCK]).encode()
            chain = hashlib.blake2b(chain + block, digest_size=16).digest()
            broken = broken or chain not in self._blocks
            found += _BLOCK if not broken and start + _BLOCK < len(ids) else 0
            self._blocks.add(chain)
        self.asked += len(ids)
        self.hit += found
        return found


def answer_words(ids: Sequence[int], count: int, text: str) -> list[str]:
    """`count` words: those of `text`, and then made-up ones that follow from the prompt alone."""
    made = zlib.crc32(repr(ids).encode())
    start, step = made % _WORDS, 1 + made // _WORDS % (_WORDS - 1)
    given = words_of(text)[:count]
    return given + [f" w{(start + number * step) % _WORDS}" for number in range(count - len(given))]


def cut_at_stop(words: list[str], stop: Sequence[str]) -> list[str] | None:
    """The words before the first of `stop`, None when none of them is there."""
    whole = "".join(words)
    places = [place for one in stop if one and (place := whole.find(one)) >= 0]
    return words_of(whole[: min(places)]) if places else None


@dataclass(slots=True, kw_only=True)
class Shape:
    """How one answer's events look: a chat's or a completion's, with its constant parts made once."""

    number: int
    model: str
    chat: bool
    _head: bytes = field(init=False)

    def __post_init__(self) -> None:
        """Make the part before the text: a chunk a token is sent thousands of times a second."""
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        base = {"id": f"mock-{self.number}", "object": kind, "created": 0, "model": self.model}
        self._head = b"data: " + json.dumps(base).encode()[:-1] + b', "choices": '

    def text(self, text: str, usage: Mapping[str, Any] | None = None) -> bytes:
        """An event with text in it."""
        body = f'"delta": {{"content": {json.dumps(text)}}}' if self.chat else f'"text": {json.dumps(text)}'
        choice = f'[{{"index": 0, {body}, "finish_reason": null}}]'
        return self._head + choice.encode() + self._tail(usage)

    def empty(self) -> bytes:
        """The first event of many servers: who speaks, and no text."""
        body = '"delta": {"role": "assistant", "content": ""}' if self.chat else '"text": ""'
        return self._head + f'[{{"index": 0, {body}, "finish_reason": null}}]'.encode() + self._tail(None)

    def finish(self, reason: str) -> bytes:
        """The event that says why the answer ended."""
        body = '"delta": {}' if self.chat else '"text": ""'
        choice = f'[{{"index": 0, {body}, "finish_reason": "{reason}"}}]'
        return self._head + choice.encode() + self._tail(None)

    def usage(self, usage: Mapping[str, Any]) -> bytes:
        """The event that counts the tokens."""
        return self._head + b"[]" + self._tail(usage)

    def whole(self, text: str, reason: str, usage: Mapping[str, Any] | None) -> bytes:
        """The answer in one piece, for a request that does not stream."""
        said: dict[str, Any] = (
            {"message": {"role": "assistant", "content": text}} if self.chat else {"text": text}
        )
        body: dict[str, Any] = {
            "id": f"mock-{self.number}",
            "object": "chat.completion" if self.chat else "text_completion",
            "created": 0,
            "model": self.model,
            "choices": [{"index": 0, **said, "finish_reason": reason}],
        }
        return json.dumps(body | ({"usage": usage} if usage else {})).encode()

    @staticmethod
    def _tail(usage: Mapping[str, Any] | None) -> bytes:
        return (b', "usage": ' + json.dumps(usage).encode() if usage else b"") + b"}\n\n"


def usage_block(prompt: int, output: int, cached: int | None) -> dict[str, Any]:
    """The server's own count of tokens; `cached` None for a server without a prefix cache."""
    counts: dict[str, Any] = {
        "prompt_tokens": prompt,
        "completion_tokens": output,
        "total_tokens": prompt + output,
    }
    return counts if cached is None else counts | {"prompt_tokens_details": {"cached_tokens": cached}}


def error_body(message: str, kind: str, status: int) -> bytes:
    """An error as OpenAI's API and its likes tell it."""
    return json.dumps({"error": {"message": message, "type": kind, "param": None, "code": status}}).encode()


def head_of(status: int, reason: str, kind: str, *, length: int | None, extra: Sequence[str] = ()) -> bytes:
    """The head of an HTTP answer: of `length` bytes, or chunked."""
    size = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    lines = [f"HTTP/1.1 {status} {reason}", f"Content-Type: {kind}", size, "Server: mock", *extra]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def digest_of(text: str) -> str:
    """What stands for an answer's text, made as `Stream.digest` is: a client's stream is found by it."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def http_chunk(data: bytes) -> bytes:
    """A piece of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)
