"""What things cost: cards by the hour, APIs, subscriptions, hardware and electricity, as read from TOML."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, ClassVar, TypeVar

from pytest_qwen import gpus
from pytest_qwen.errors import Misuse, closest, explain


@dataclass(frozen=True, slots=True, kw_only=True)
class Priced:
    """Base of every price: where it is from, and the day it held."""

    section: ClassVar[str]
    source: str = ""
    as_of: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CardPrice(Priced):
    """Renting one card."""

    section: ClassVar[str] = "cards"
    usd_per_hour: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiPrice(Priced):
    """An API's rates for a million tokens."""

    section: ClassVar[str] = "apis"
    input_usd_per_mtok: float
    output_usd_per_mtok: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionPrice(Priced):
    """A subscription of one user."""

    section: ClassVar[str] = "subscriptions"
    usd_per_month: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HardwarePrice(Priced):
    """Hardware to buy: its price, and what it draws under load."""

    section: ClassVar[str] = "hardware"
    usd: float
    watts: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ElectricityPrice(Priced):
    """Electricity of one place."""

    section: ClassVar[str] = "electricity"
    usd_per_kwh: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceBook:
    """Prices by name; cards by the catalogue's alias."""

    cards: Mapping[str, CardPrice] = field(default_factory=dict)
    apis: Mapping[str, ApiPrice] = field(default_factory=dict)
    subscriptions: Mapping[str, SubscriptionPrice] = field(default_factory=dict)
    hardware: Mapping[str, HardwarePrice] = field(default_factory=dict)
    electricity: Mapping[str, ElectricityPrice] = field(default_factory=dict)

    def over(self, other: PriceBook) -> PriceBook:
        """These prices, and those of `other` that have no price here."""
        return PriceBook(
            **{f.name: {**getattr(other, f.name), **getattr(self, f.name)} for f in fields(self)}
        )


SECTIONS = tuple(f.name for f in fields(PriceBook))
_Kind = TypeVar("_Kind", bound=Priced)


def parse_prices(text: str, name: str) -> PriceBook:
    """The prices in a TOML text; `name` is the file's, for messages.

    Raises Misuse for what is no TOML, a section, card or field that does not exist, and a price that is
    missing or not above 0.
    """
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Misuse(
            explain(
                f"{name} is not TOML",
                found=str(error),
                next_step="such as: [cards.l4] and usd_per_hour = 0.70",
            )
        ) from None
    for section, entries in content.items():
        if section not in SECTIONS:
            raise _unknown("section", section, SECTIONS, name)
        if not isinstance(entries, dict):
            raise _wrong(name, section, f"is {entries!r}, not a table of prices")
    cards = {}
    for card, price in _read(CardPrice, content, name).items():
        try:
            alias = gpus.lookup(card).alias
        except Misuse as error:
            raise Misuse(f"{name}: {error}") from None
        cards[alias] = price
    return PriceBook(
        cards=cards,
        apis=_read(ApiPrice, content, name),
        subscriptions=_read(SubscriptionPrice, content, name),
        hardware=_read(HardwarePrice, content, name),
        electricity=_read(ElectricityPrice, content, name),
    )


def checked_price(value: Any, where: str) -> float:
    """A price as a float. Raises Misuse for one that is not a number above 0; `where` says whose it is."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise Misuse(
            explain(
                f"{where}: {value!r} is not a price above 0",
                slip="a price of zero makes every token free and every comparison empty"
                if value == 0
                else None,
                next_step="leave the price out where it is not known",
            )
        )
    return float(value)


def _read(kind: type[_Kind], content: Mapping[str, Any], name: str) -> dict[str, _Kind]:
    section = kind.section
    return {
        str(label): _entry(kind, entry, f"{section}.{label}", name)
        for label, entry in content.get(section, {}).items()
    }


def _entry(kind: type[_Kind], entry: Any, where: str, name: str) -> _Kind:
    """One price. Raises Misuse for unknown, missing and senseless fields."""
    known = {f.name: f.default for f in fields(kind)}
    if not isinstance(entry, dict):
        raise _wrong(name, where, f"is {entry!r}, not a table", choices=known)
    for key, value in entry.items():
        if key not in known:
            raise _unknown(f"field of {where}", key, known, name)
        if known[key] is MISSING:
            checked_price(value, f"{name}: {where}.{key}")
        elif not isinstance(value, str):
            raise _wrong(name, f"{where}.{key}", f"is {value!r}, not a text")
    missing = [key for key, default in known.items() if default is MISSING and key not in entry]
    if missing:
        raise _wrong(name, where, f"does not say {', '.join(missing)}")
    return kind(**entry)


def _unknown(what: str, found: str, choices: Mapping[str, Any] | tuple[str, ...], name: str) -> Misuse:
    meant = closest(found, choices)
    slip = f"did you mean {meant!r}?" if meant else None
    return Misuse(explain(f"{name}: there is no {what} {found!r}", slip=slip, choices=choices))


def _wrong(name: str, where: str, problem: str, choices: Mapping[str, Any] | None = None) -> Misuse:
    return Misuse(explain(f"{name}: {where} {problem}", choices=choices))
