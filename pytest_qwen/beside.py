"""What a test sets beside its measurements: published figures, and laws fitted to its points."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from pytest_qwen.errors import Misuse, explain
from pytest_qwen.laws import Law, Point, fit_power, fit_sum
from pytest_qwen.published import Table, load_documents
from pytest_qwen.standing import Ours, Standing, find_row, standing_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """What one test has set beside its measurements so far."""

    standings: list[Standing] = field(default_factory=list)
    laws: list[Law] = field(default_factory=list)


class Published:
    """The `published` fixture: a measured figure beside a published one. It never fails a test.

    `gpu` is the alias of the card of this run, "cpu", or the name of a card that is not in the catalogue.
    `kept` takes every standing, in order.
    """

    def __init__(self, gpu: str, kept: list[Standing]) -> None:
        self._gpu = gpu
        self._kept = kept

    @cached_property
    def _documents(self) -> Mapping[str, tuple[Table, ...]]:
        return load_documents()

    def __call__(
        self,
        document: str,
        table: str,
        row: str,
        *,
        against: str | None = None,
        count: int = 1,
        computed: bool = False,
        why: str = "",
        **figures: float | None,
    ) -> tuple[Standing, ...]:
        """Set figures beside those of a published row, named by document, table and row.

        A figure is a field of the row, by its name there, in its unit; None says that it could not be
        measured, and `why` says why not, or why it differs. `against` names another row of the table: the
        figures are then ratios of this row to that one. `count` is the number of cards that were used.
        `computed` says that the values were computed from the row's own inputs. Raises Misuse for a name that
        is not published and a value that is no number.
        """
        if not figures:
            raise Misuse(
                explain("published(...) without a figure", asked=row, choices=["tokens_per_sec=41.2"])
            )
        one = find_row(self._documents, document, table, row)
        other = None if against is None else find_row(self._documents, document, table, against)
        found = tuple(
            standing_of(
                one,
                figure,
                Ours(value=_number(figure, value), gpu=self._gpu, count=count, computed=computed, why=why),
                against=other,
            )
            for figure, value in figures.items()
        )
        self._kept.extend(found)
        return found


def _number(figure: str, value: object) -> float | None:
    """The value as a float. Raises Misuse for what is no finite number."""
    if value is None:
        return None
    try:
        number = math.nan if isinstance(value, (bool, str)) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        slip = "None stands for what could not be measured"
        raise Misuse(explain("a measured figure is not a number", asked=f"{figure}={value!r}", slip=slip))
    return number


class Laws:
    """The `law` fixture: fits a law to points and keeps it for the report, in `kept`."""

    def __init__(self, kept: list[Law]) -> None:
        self._kept = kept

    def __call__(self, subject: str, points: Iterable[Point], terms: Sequence[str], *, unit: str) -> Law:
        """Fit a sum of terms, such as ("1", "batch*tokens"); see `laws.fit_sum`."""
        return self._keep(fit_sum(subject, points, terms, unit=unit))

    def power(self, subject: str, points: Iterable[Point], of: str, *, unit: str) -> Law:
        """Fit a power of one quantity, such as "tokens"; see `laws.fit_power`."""
        return self._keep(fit_power(subject, points, of, unit=unit))

    def _keep(self, found: Law) -> Law:
        self._kept.append(found)
        return found
