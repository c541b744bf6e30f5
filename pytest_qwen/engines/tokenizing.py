"""Text to tokens and back: the model's own tokenizer with its chat template, or bytes for dummy weights."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Protocol

from pytest_qwen.engines.base import Message, Request
from pytest_qwen.errors import Misuse, explain

_DRAWN_FROM = (
    256  # random prompts avoid the first ids: control bytes and, in many vocabularies, special tokens
)


class Tokenizing(Protocol):
    """What an engine needs of a tokenizer."""

    name: str
    eos_ids: tuple[int, ...]

    def encode(self, text: str) -> list[int]:
        """Token ids of the text as it is."""

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of the conversation, ready for the assistant's turn."""

    def encode_prompt(self, text: str) -> list[int]:
        """Token ids of one user prompt: through the chat template for an instruct model, else as it is."""

    def decode(self, ids: Sequence[int]) -> str:
        """Text of the ids without special tokens."""


class ByteTokenizer:
    """One token a byte; for dummy weights, whose text means nothing but must round-trip and have a length."""

    name = "bytes"
    eos_ids: tuple[int, ...] = ()

    def encode(self, text: str) -> list[int]:
        """One id a byte of the UTF-8 text; never empty, since a model needs a prompt."""
        return list(text.encode()) or [0]

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """Role and content, a line each."""
        return self.encode("\n".join(f"{m.role}: {m.content}" for m in messages) + "\nassistant:")

    def encode_prompt(self, text: str) -> list[int]:
        """The text as it is."""
        return self.encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        """Printable ASCII for any id of any vocabulary."""
        return "".join(chr(32 + i % 95) for i in ids)


class HubTokenizer:
    """A tokenizer of the transformers library with the model's chat template."""

    def __init__(self, tokenizer: Any, eos_ids: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self.name = type(tokenizer).__name__
        self.eos_ids = tuple(eos_ids)
        self.instruct = _is_instruct(tokenizer)

    def encode(self, text: str) -> list[int]:
        """Token ids of the text as it is."""
        return list(self._tokenizer(text)["input_ids"])

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of the rendered chat template, with the assistant's turn opened."""
        turns = [{"role": m.role, "content": m.content} for m in messages]
        if not self._tokenizer.chat_template:
            return self.encode("\n".join(turn["content"] for turn in turns))
        rendered = self._tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        return list(self._tokenizer(rendered, add_special_tokens=False)["input_ids"])

    def encode_prompt(self, text: str) -> list[int]:
        """Through the chat template for an instruct model, as it is for a base model."""
        return self.encode_chat((Message(role="user", content=text),)) if self.instruct else self.encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of the ids without special tokens."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))


def _is_instruct(tokenizer: Any) -> bool:
    """Whether the model was trained on its chat template: its end token ends the template's turns.

    Base models of some families ship the instruct models' template, but keep a different end token.
    """
    if not tokenizer.chat_template or not tokenizer.eos_token:
        return False
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    return tokenizer.eos_token in tokenizer.apply_chat_template(turns, tokenize=False)


def prompt_ids(request: Request, tokenizer: Tokenizing, vocab: int) -> list[list[int]]:
    """The batch of prompts of a request, as ids.

    Random prompts differ between the sequences of a batch; a text is repeated for each sequence. Raises
    Misuse unless the request has exactly one kind of prompt.
    """
    given = [name for name in ("prompt", "messages", "prompt_tokens") if getattr(request, name) is not None]
    if len(given) != 1:
        raise Misuse(
            explain(
                "a request needs exactly one kind of prompt",
                found=", ".join(given) or "none",
                choices=("prompt", "messages", "prompt_tokens"),
            )
        )
    if request.prompt_tokens is not None:
        return [
            _random_ids(request.prompt_tokens, vocab, (request.seed, row))
            for row in range(request.batch_size)
        ]
    ids = (
        tokenizer.encode_chat(request.messages)
        if request.messages is not None
        else (tokenizer.encode_prompt if request.template else tokenizer.encode)(request.prompt or "")
    )
    return [[token % vocab for token in ids]] * request.batch_size


def _random_ids(count: int, vocab: int, seed: tuple[int, int]) -> list[int]:

    low = _DRAWN_FROM if vocab > 2 * _DRAWN_FROM else 0
    high = max(low + 1, int(vocab * 0.95))  # the top of many vocabularies is special or unused ids
    drawn = random.Random(f"{seed}")  # noqa: S311 - not cryptography
    return [drawn.randrange(low, high) for _ in range(count)]
