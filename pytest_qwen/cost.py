"""What tokens cost: rented or bought hardware against an API or a subscription. Formulas only."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pytest_qwen import physics
from pytest_qwen.errors import Misuse, explain

DAYS_A_MONTH = 30
HOURS_A_MONTH = 720
HOURS_A_YEAR = 8760
_SECONDS_AN_HOUR = 3600


def usd_per_mtok(usd_per_hour: float, tokens_per_sec: float) -> float:
    """USD for a million tokens: price of an hour / tokens of an hour x 1e6.

    The rate decides which tokens: that of output tokens, or of prompt and output together. Raises Misuse
    for a price or rate that is not above 0.
    """
    _above_zero(usd_per_hour=usd_per_hour, tokens_per_sec=tokens_per_sec)
    return physics.usd_per_mtok(usd_per_hour, tokens_per_sec)


def blended_usd_per_mtok(input_usd: float, output_usd: float, *, inputs_per_output: float) -> float:
    """One rate for both kinds of tokens: (r x input + output) / (r + 1) for r prompt tokens an output token.

    Raises Misuse for rates that are not above 0, or a negative ratio.
    """
    _above_zero(input_usd=input_usd, output_usd=output_usd)
    if inputs_per_output < 0:
        raise _senseless("inputs_per_output", inputs_per_output, "0 or more")
    return (inputs_per_output * input_usd + output_usd) / (inputs_per_output + 1)


def usd_a_month(tokens_a_day: float, usd_per_mtok_: float, *, days: float = DAYS_A_MONTH) -> float:
    """What a workload costs: tokens a day x days / 1e6 x rate."""
    _above_zero(usd_per_mtok=usd_per_mtok_, days=days)
    return tokens_a_day * days / 1e6 * usd_per_mtok_


def electricity_usd(watts: float, hours: float, usd_per_kwh: float) -> float:
    """Energy x price: W / 1000 x h x USD/kWh."""
    _above_zero(watts=watts, hours=hours, usd_per_kwh=usd_per_kwh)
    return watts / 1000 * hours * usd_per_kwh


@dataclass(frozen=True, slots=True, kw_only=True)
class Owned:
    """Bought hardware: `usd` written off evenly over `months`, and what it costs each month besides.

    `usd_a_month_besides` is colocation, electricity or work; a month's share of the price comes on top.
    """

    usd: float
    months: float
    usd_a_month_besides: float = 0.0

    @property
    def usd_a_month(self) -> float:
        """Write-off and running costs of a month. Raises Misuse for a price or time that is not above 0."""
        _above_zero(usd=self.usd, months=self.months)
        return self.usd / self.months + self.usd_a_month_besides


def mtok_a_month(tokens_per_sec: float, *, utilization: float = 1.0, hours: float = HOURS_A_MONTH) -> float:
    """Million tokens that hardware can make in a month at a rate, busy for a share of the hours.

    Raises Misuse for a utilisation outside 0-1.
    """
    if not 0 < utilization <= 1:
        raise _senseless("utilization", utilization, "above 0 and at most 1")
    _above_zero(tokens_per_sec=tokens_per_sec, hours=hours)
    return tokens_per_sec * hours * _SECONDS_AN_HOUR * utilization / 1e6


def break_even_mtok(usd_a_month_: float, api_usd_per_mtok: float) -> float:
    """Million tokens a month from which hardware of a fixed price is cheaper than an API."""
    _above_zero(usd_a_month=usd_a_month_, api_usd_per_mtok=api_usd_per_mtok)
    return usd_a_month_ / api_usd_per_mtok


def break_even_seats(usd_a_month_: float, subscription_usd_a_month: float) -> int:
    """Users from which hardware of a fixed price is no dearer than a subscription for each of them."""
    _above_zero(usd_a_month=usd_a_month_, subscription_usd_a_month=subscription_usd_a_month)
    return math.ceil(usd_a_month_ / subscription_usd_a_month)


def payback_months(usd: float, saved_usd_a_month: float) -> float | None:
    """Months until a purchase has paid for itself; None when it never does."""
    _above_zero(usd=usd)
    return usd / saved_usd_a_month if saved_usd_a_month > 0 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossing:
    """One workload priced both ways. `units` of hardware are what the workload needs.

    `times` says how many times cheaper the winner is; "even" within 1 %.
    """

    tokens_a_day: float
    api_usd_a_month: float
    own_usd_a_month: float
    units: int

    @property
    def winner(self) -> str:
        """ "api", "own" or "even"."""
        if math.isclose(self.api_usd_a_month, self.own_usd_a_month, rel_tol=0.01):
            return "even"
        return "api" if self.api_usd_a_month < self.own_usd_a_month else "own"

    @property
    def times(self) -> float:
        """The dearer over the cheaper."""
        low, high = sorted((self.api_usd_a_month, self.own_usd_a_month))
        return high / low


def crossover(
    tokens_a_day: Iterable[float],
    *,
    api_usd_per_mtok: float,
    unit_usd_a_month: float,
    unit_mtok_a_month: float | None = None,
    days: float = DAYS_A_MONTH,
) -> tuple[Crossing, ...]:
    """A table of workloads, an API against hardware that comes in units of a fixed monthly price.

    `unit_mtok_a_month` is what one unit can make; None takes one unit for any workload, which holds only
    until it is busy.
    """
    _above_zero(unit_usd_a_month=unit_usd_a_month)
    found = []
    for tokens in tokens_a_day:
        made = tokens * days / 1e6
        units = 1 if unit_mtok_a_month is None else max(1, math.ceil(made / unit_mtok_a_month))
        found.append(
            Crossing(
                tokens_a_day=tokens,
                api_usd_a_month=usd_a_month(tokens, api_usd_per_mtok, days=days),
                own_usd_a_month=units * unit_usd_a_month,
                units=units,
            )
        )
    return tuple(found)


def render(crossings: Sequence[Crossing]) -> str:
    """The table as text, a line a workload."""
    head = f"{'Mtok a day':>11} {'API USD/month':>14} {'own USD/month':>14} {'units':>6}  winner"
    lines = [
        f"{one.tokens_a_day / 1e6:>11g} {one.api_usd_a_month:>14,.2f} {one.own_usd_a_month:>14,.2f} "
        f"{one.units:>6}  {one.winner if one.winner == 'even' else f'{one.winner} ({one.times:.2g}x)'}"
        for one in crossings
    ]
    return "\n".join([head, *lines])


def _above_zero(**values: float) -> None:
    for name, value in values.items():
        if not 0 < value < math.inf:
            raise _senseless(name, value, "above 0")


def _senseless(name: str, value: float, valid: str) -> Misuse:
    return Misuse(explain(f"no cost follows from {name} = {value!r}", asked=f"a number {valid}"))
