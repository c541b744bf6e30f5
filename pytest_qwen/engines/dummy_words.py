"""The vocabulary of models with random weights: byte-level BPE in which most words are one token.

Every tokenizer of the GPT-2 kind reads it alike. Words are syllables of plain letters, each found by merging
from left to right; other text falls into printable characters, and what has none is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, product

BEGIN, END = "<|im_start|>", "<|im_end|>"
# As Qwen's, without a system prompt: `transformers serve` looks for where the assistant's turn starts, and
# sends the whole prompt back as the first piece of its answer where it does not find it.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

_SPACE, _LINE_END = "Ġ", "Ċ"  # as byte-level vocabularies write them
_CHARACTERS = (_LINE_END, _SPACE, *map(chr, range(33, 127)))
_SYLLABLES = tuple(first + second for first, second in product("bcdfghjklmnpqrstvwxyz", "aeiou"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """Tokens by id, and the pairs that are merged, the first one first."""

    tokens: tuple[str, ...]
    merges: tuple[tuple[str, str], ...]


def vocabulary(size: int, *, begin: int, end: int) -> Vocabulary:
    """`size` tokens with the marks of begin and end at these ids."""
    marks = {begin: BEGIN, end: END}
    made = tuple(islice(_pieces(), size - len(marks)))
    plain = (token for token, _ in made)
    return Vocabulary(
        tokens=tuple(marks.get(index) or next(plain) for index in range(size)),
        merges=tuple(pair for _, pair in made if pair is not None),
    )


def _pieces() -> Iterator[tuple[str, tuple[str, str] | None]]:
    """Tokens without end, each with the pair that makes it: characters, syllables, ever longer words."""
    yield from ((character, None) for character in _CHARACTERS)
    yield from ((syllable, (syllable[0], syllable[1])) for syllable in _SYLLABLES)
    words = [_SPACE]
    while True:
        longer = [(word, syllable) for word, syllable in product(words, _SYLLABLES)]
        yield from ((word + syllable, (word, syllable)) for word, syllable in longer)
        words = [word + syllable for word, syllable in longer]
