"""`pytest-qwen plan`: what fits a card, how fast and at what cost it can be, and which model to choose."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pytest_qwen import cost, data
from pytest_qwen.capacity import Capacity, Precision, capacity, native_dtype, recommend
from pytest_qwen.configurations import shape_from_config
from pytest_qwen.errors import Misuse, closest, explain
from pytest_qwen.gpus import CATALOGUE, CPU, GpuSpec, lookup
from pytest_qwen.models import DTYPE_BYTES, ModelShape
from pytest_qwen.physics import Setup
from pytest_qwen.prices import PriceBook, checked_price
from pytest_qwen.reports.text import columns

_PRECISIONS = "none,int8,int4"
_UNKNOWN = "-"
_INPUTS_PER_OUTPUT = 2.0  # the usual blend of API rates: two prompt tokens for each token of the answer
_TRIED = 5  # APIs and subscriptions that are compared with, at most


def add(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument(
        "model",
        nargs="?",
        metavar="MODEL",
        help="a shipped model id (see `pytest-qwen models`), a model's folder or a config.json; "
        "without it the shipped models that fit are listed, best first",
    )
    parser.add_argument(
        "--gpu", default="", metavar="NAMES", help="cards, as in l4,h100 (default: every card)"
    )
    parser.add_argument(
        "--quantization",
        default=_PRECISIONS,
        metavar="NAMES",
        help=f"precisions, as in int4,bf16; 'none' is the dtype (default: {_PRECISIONS})",
    )
    parser.add_argument("--dtype", help="bfloat16, float16 or float32 (default: the card's own)")
    parser.add_argument(
        "--kv-cache", metavar="NAME", help="number format of the KV cache (default: the dtype)"
    )
    parser.add_argument(
        "--context", type=_whole, default=2048, metavar="N", help="tokens a sequence holds (2048)"
    )
    parser.add_argument(
        "--output", type=_whole, default=128, metavar="N", help="how many of them are the answer (128)"
    )
    parser.add_argument("--batch", type=_whole, default=1, metavar="N", help="sequences at a time (1)")
    parser.add_argument("--count", type=_whole, default=1, metavar="N", help="cards that share the model (1)")
    parser.add_argument(
        "--chunk",
        type=_whole,
        metavar="N",
        help="prompt tokens that the engine takes at a time (default: the whole prompts)",
    )
    parser.add_argument("--price", type=float, metavar="USD", help="an hour of all cards together")
    parser.add_argument("--prices", type=Path, metavar="FILE", help="TOML file with your prices")
    form = parser.add_mutually_exclusive_group()
    form.add_argument(
        "--explain", action="store_true", help="also memory line by line, arithmetic and break-even"
    )
    form.add_argument("--json", action="store_true", help="everything as JSON")
    parser.set_defaults(command=run)


def _whole(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number above 0")
    return number


def run(options: argparse.Namespace) -> str:
    """The plan as text. Raises Misuse for whatever makes no sense."""
    if options.output >= options.context:
        raise Misuse(
            explain(
                f"an answer of {options.output} tokens leaves no room for a prompt",
                asked=f"--context={options.context} --output={options.output}",
                next_step="--output counts within --context: make it smaller",
            )
        )
    if options.price is not None:
        checked_price(options.price, "--price")
    if options.dtype is not None and options.dtype not in DTYPE_BYTES:
        raise _not_a("dtype", options.dtype, DTYPE_BYTES)
    asked = _Asked(options)
    return asked.one_model() if options.model else asked.recommendation()


class _Asked:
    """What the command line asks for, in values."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.prices: PriceBook = data.load_prices(options.prices)
        self.cards = [self._priced(name) for name in _split(options.gpu, "--gpu") or CATALOGUE]
        names = _split(options.quantization or _PRECISIONS, "--quantization")
        self.precisions = [Precision() if name == "none" else Precision.named(name) for name in names]

    def _priced(self, name: str) -> GpuSpec:
        """The card with its price of the book. Raises Misuse for an unknown card, and for a CPU."""
        spec = lookup(name)
        if spec is CPU:
            raise Misuse(explain("a CPU cannot be planned for: it has no data sheet here", asked="--gpu=cpu"))
        price = self.prices.cards.get(spec.alias)
        return replace(spec, price_per_hour_usd=price.usd_per_hour) if price else spec

    def setup(self, shape: ModelShape, card: GpuSpec, precision: Precision) -> Setup:
        """The set-up of one row."""
        options = self.options
        return Setup(
            shape=shape,
            gpu=card,
            dtype=precision.dtype or options.dtype or native_dtype(card.compute_capability),
            quantization=precision.quantization,
            kv_dtype=options.kv_cache,
            prompt_tokens=options.context - options.output,
            output_tokens=options.output,
            batch=options.batch,
            count=options.count,
            chunk_tokens=options.chunk,
        )

    def one_model(self) -> str:
        """A row a card and precision."""
        shape = _shape(self.options.model)
        found = [
            capacity(self.setup(shape, card, precision), price_per_hour_usd=self.options.price)
            for card in self.cards
            for precision in self.precisions
        ]
        if self.options.json:
            return _json({"model": shape.model_id, "rows": [one.as_dict() for one in found]})
        parts = [self._title(shape.model_id), _table(found)]
        if self.options.explain:
            parts += [self._explained(one) for one in found]
        return "\n".join(parts)

    def recommendation(self) -> str:
        """For each card the shipped models that fit, best first."""
        ids = [model for model in data.known_models() if not model.startswith("embedded/")]
        shapes = [shape for model in ids if (shape := data.find_shape(model)) is not None]
        by_card = {
            card: recommend(
                shapes,
                self.precisions,
                lambda shape, precision, card=card: self.setup(shape, card, precision),  # type: ignore[misc]
                price_per_hour_usd=self.options.price,
            )
            for card in self.cards
        }
        if self.options.json:
            rows = {card.alias: [one.as_dict() for one in found] for card, found in by_card.items()}
            return _json({"recommended": rows})
        parts = [
            self._title("shipped models that fit, more parameters first, each in the most bits that fit")
        ]
        for card, found in by_card.items():
            parts.append(f"\n{card.name}")
            parts.append(_table(found, models=True) if found else "  none of them fits")
            if self.options.explain:
                parts += [self._explained(one) for one in found]
        return "\n".join(parts)

    def _title(self, subject: str) -> str:
        o = self.options
        cards = f", {o.count} cards" if o.count > 1 else ""
        return f"{subject}: {o.batch} x {o.context} tokens ({o.output} of them the answer){cards}"

    def _explained(self, one: Capacity) -> str:
        """Memory, arithmetic and break-even of one row."""
        lines = [f"\n{one.setup.label}: {one.verdict}"]
        if one.fit is not None:
            lines.append(one.fit.explain("memory of one card"))
        if one.ceiling is not None:
            lines.append(f"ceiling: {one.ceiling.arithmetic}")
        if one.rate is not None and one.rate.bound_by == "compute":
            rate = one.setup.most_flops_per_sec or 0
            lines.append(
                f"the matrix units, at no more than {rate / 1e12:,.0f} TFLOP/s, hold it to {_rate(one)} tok/s"
            )
        if one.full_rate is not None and one.largest_batch:
            lines.append(
                f"largest batch, {one.largest_batch}: at most "
                f"{one.full_rate.system_tokens_per_sec:,.0f} tok/s, by {one.full_rate.bound_by}"
            )
        return "\n".join([*lines, *self._break_even(one)])

    def _break_even(self, one: Capacity) -> Iterable[str]:
        """From how many tokens a month the cards are cheaper than APIs, or users than subscriptions."""
        if one.price_per_hour_usd is None or one.full_rate is None:
            return
        month = one.price_per_hour_usd * cost.HOURS_A_MONTH
        able = cost.mtok_a_month(one.full_rate.system_tokens_per_sec)
        hours = cost.HOURS_A_MONTH
        yield f"cost: {month:,.0f} USD a month of {hours} h; at most {able:,.0f} Mtok of answers in it"
        for name, api in list(self.prices.apis.items())[:_TRIED]:
            blended = cost.blended_usd_per_mtok(
                api.input_usd_per_mtok, api.output_usd_per_mtok, inputs_per_output=_INPUTS_PER_OUTPUT
            )
            needed = cost.break_even_mtok(month, blended)
            line = f"  cheaper than {name} ({blended:.2f} USD/Mtok at 2:1) from {needed:,.0f} Mtok a month"
            yield line + (", more than it can do" if needed > able * (_INPUTS_PER_OUTPUT + 1) else "")
        for name, seat in list(self.prices.subscriptions.items())[:_TRIED]:
            users = cost.break_even_seats(month, seat.usd_per_month)
            yield f"  cheaper than {name} ({seat.usd_per_month:g} USD a month) from {users} users"


def _shape(model: str) -> ModelShape:
    """The shape of a model id, folder or file. Raises Misuse for what is none, or a wrong configuration."""
    config = data.find_config(model)
    if config is None:
        known = data.known_models()
        meant = closest(model, known)
        raise Misuse(
            explain(
                f"there is no configuration of {model!r} at hand",
                asked=model,
                slip=f"did you mean {meant!r}?" if meant else None,
                next_step="name a folder with the model's config.json, or the file itself",
                choices=known,
            )
        )
    return shape_from_config(config, model)


def _split(text: str, option: str) -> list[str]:
    """The names in a list with commas. Raises Misuse for an empty one among them."""
    names = [name.strip() for name in text.split(",")] if text else []
    if not all(names):
        raise Misuse(explain(f"{option}: an empty name in the list", asked=f"{option}={text}"))
    return list(dict.fromkeys(names))


def _not_a(what: str, name: str, choices: Iterable[str]) -> Misuse:
    meant = closest(name, choices)
    slip = f"did you mean {meant!r}?" if meant else None
    return Misuse(explain(f"{name!r} is no {what}", asked=name, slip=slip, choices=choices))


def _table(found: Iterable[Capacity], *, models: bool = False) -> str:
    head = ("model" if models else "card", "precision", "outlook", "GB needed", "GB there", "most sequences",
            "longest context", "tok/s each", "tok/s all", "USD/Mtok")  # fmt: skip
    rows = [
        (
            one.setup.shape.model_id if models else one.setup.cards,
            one.precision,
            one.verdict,
            _gb(one.fit.total_bytes if one.fit else None),
            _gb(one.fit.available_bytes if one.fit else None),
            _count(one.largest_batch),
            _count(one.longest_context),
            f"{one.rate.tokens_per_sec:.1f}" if one.rate else _UNKNOWN,
            _rate(one),
            _UNKNOWN if one.usd_per_mtok is None else f"{one.usd_per_mtok:.2f}",
        )
        for one in found
    ]
    return columns(head, rows, words=3)


def _rate(one: Capacity) -> str:
    return f"{one.rate.system_tokens_per_sec:.1f}" if one.rate else _UNKNOWN


def _gb(amount: float | None) -> str:
    return _UNKNOWN if amount is None else f"{amount / 1e9:.1f}"


def _count(number: int | None) -> str:
    return _UNKNOWN if number is None else str(number)


def _json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=2)
