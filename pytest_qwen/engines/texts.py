"""Prompts of a given length: random token ids where the server takes them, else random words, calibrated."""

from __future__ import annotations

import random
from dataclasses import dataclass

# Frequent English words: with the space before them each is one token in the vocabularies of today's models.
_WORDS = (  # noqa: SIM905
    "the of and to in is that for it as was with be by on not he his but at are this have from or had an "
    "they which one you were all her she there would their we him been has when who will no more if out "
    "so up said what its about than into them can only other time new some could these two may first then "
    "do any like my now over such our man me even most made after also did many off before must well back "
    "through years much where your way down should because long each just state those people too little "
    "good world make very year still see own work men day get here old life both between being under "
    "never know same last another while us might great go come since against right came take used himself "
    "few house use place three around small home found thought went say part once general high upon "
    "school every does got united left number until always away something fact water though less public "
    "put think almost hand enough far took head yet system "
).split()
# Ids that stand for plain pieces of text in every vocabulary of a size: the first few hundred may be
# control tokens and bytes, the top may be special or unused.
_LOWEST, _TOP_SHARE, _COMMON_VOCABULARY = 1000, 0.9, 32_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """How many tokens the server counts: `overhead` for no words (its template), `per_word` for each."""

    overhead: float = 0.0
    per_word: float = 1.0

    def words_for(self, tokens: int) -> int:
        """How many words make a prompt of that many tokens; one at least."""
        return max(1, round((tokens - self.overhead) / self.per_word))


def calibrated(few: tuple[int, int], many: tuple[int, int]) -> Calibration:
    """The straight line through two measured pairs of words and tokens."""
    per_word = (many[1] - few[1]) / (many[0] - few[0])
    if per_word <= 0:
        return Calibration()
    return Calibration(overhead=few[1] - per_word * few[0], per_word=per_word)


def words(count: int, key: object) -> str:
    """So many random words, the same for the same key."""
    drawn = random.Random(f"{key}")  # noqa: S311 - not cryptography
    return " ".join(drawn.choices(_WORDS, k=count))


def token_ids(count: int, key: object, vocabulary: int | None = None) -> list[int]:
    """So many random token ids, the same for the same key, from a vocabulary of that size."""
    size = vocabulary or _COMMON_VOCABULARY
    low = min(_LOWEST, size // 4)
    high = max(low + 1, int(size * _TOP_SHARE))
    drawn = random.Random(f"{key}")  # noqa: S311 - not cryptography
    return drawn.choices(range(low, high), k=count)


def varied(length: int, spread: float, kind: str, draw: random.Random) -> int:
    """A length around `length`, one at least: "uniform" by that share to either side, or "lognormal"."""
    if spread == 0:
        return length
    factor = 1 + draw.uniform(-spread, spread) if kind == "uniform" else draw.lognormvariate(0.0, spread)
    return max(1, round(length * factor))
