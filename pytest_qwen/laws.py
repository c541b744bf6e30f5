"""Laws fitted to measured points by least squares: sums of terms, and powers of one quantity."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pytest_qwen.errors import Misuse, explain

# One measurement: the quantities that were varied, by name, and what was seen.
Point = tuple[Mapping[str, float], float]
# Forms that inference follows: the KV cache grows with every token of every sequence; a decode step reads the
# weights once, works for each sequence, and reads each sequence's KV cache.
MEMORY = ("1", "batch*tokens")
STEP = ("1", "batch", "batch*context")
# Below this share of a column's length, what is left of it is rounding: the terms cannot be told apart.
_RANK = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """One term: a product of quantities ("1", "batch", "batch*tokens"), its coefficient and its unit."""

    of: str
    coefficient: float
    unit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Law:
    """What a fit gave.

    A `sum` is the sum of coefficient x term. A `power` is the first coefficient times the quantity of the
    second term to the power of the second coefficient. `r2` is the share of the variance that the law
    explains (of the logarithms for a power), None when nothing varied. `residuals` are seen less fitted, in
    `unit`, in the order of the points; `worst_percent` is the largest of them as a share of what was seen.
    """

    subject: str
    unit: str
    form: Literal["sum", "power"]
    terms: tuple[Term, ...]
    n: int
    r2: float | None
    residuals: tuple[float, ...]
    worst_percent: float

    def at(self, **quantities: float) -> float:
        """The fitted value for these quantities, in `unit`. Raises KeyError for one that is missing."""
        return _value(self.form, self.terms, quantities)

    def coefficient(self, of: str) -> float:
        """The coefficient of a term, for a power the exponent of its quantity. Raises KeyError."""
        return {term.of: term.coefficient for term in self.terms}[of]

    @property
    def formula(self) -> str:
        """ "15.41 GB + 0.0001835 GB x batch*tokens" or "2e-07 GB x tokens^1.98"."""
        if self.form == "power":
            scale, power = self.terms
            return f"{scale.coefficient:.4g} {self.unit} x {power.of}^{power.coefficient:.3f}"
        parts = [f"{t.coefficient:.4g} {self.unit}{'' if t.of == '1' else f' x {t.of}'}" for t in self.terms]
        return " + ".join(parts).replace("+ -", "- ")

    def __str__(self) -> str:
        fit = "" if self.r2 is None else f"R² {self.r2:.5f}, "
        return f"{self.subject} = {self.formula} ({fit}n {self.n}, worst residual {self.worst_percent:.1f} %)"


def fit_sum(subject: str, points: Iterable[Point], terms: Sequence[str], *, unit: str) -> Law:
    """The sum of terms with the least squared residuals: `fit_sum("memory", points, MEMORY, unit="GB")`.

    A term is "1" or quantities joined by "*". Raises Misuse for no term, fewer points than terms, terms
    that the points cannot tell apart, a quantity that a point lacks and values that are not finite.
    """
    seen = _checked(subject, points, terms)
    rows = [[_product(term, where) for term in terms] for where, _ in seen]
    found = _least_squares(rows, [value for _, value in seen])
    if found is None:
        raise Misuse(_indistinct(subject, terms, seen))
    units = [unit if term == "1" else f"{unit} per {term}" for term in terms]
    fitted = tuple(
        Term(of=term, coefficient=c, unit=u) for term, c, u in zip(terms, found, units, strict=True)
    )
    return _law(subject, "sum", fitted, seen, unit)


def fit_power(subject: str, points: Iterable[Point], of: str, *, unit: str) -> Law:
    """The power law scale x of^exponent: the straight line through the logarithms.

    Raises Misuse for fewer than two points, values that are not positive, and a quantity that does not vary.
    """
    seen = _checked(subject, points, ("1", of))
    pairs = [(_product(of, where), value) for where, value in seen]
    if any(x <= 0 or y <= 0 for x, y in pairs):
        raise Misuse(
            explain(
                f"{subject}: a power law needs positive values",
                found=", ".join(f"({x:g}, {y:g})" for x, y in pairs if x <= 0 or y <= 0),
                slip="what does not grow was subtracted from a value that has nothing above it",
            )
        )
    found = _least_squares([[1.0, math.log(x)] for x, _ in pairs], [math.log(y) for _, y in pairs])
    if found is None:
        raise Misuse(_indistinct(subject, (of,), seen))
    scale = Term(of="scale", coefficient=math.exp(found[0]), unit=f"{unit} per {of}^exponent")
    return _law(subject, "power", (scale, Term(of=of, coefficient=found[1], unit="exponent")), seen, unit)


def _law(
    subject: str, form: Literal["sum", "power"], terms: tuple[Term, ...], seen: Sequence[Point], unit: str
) -> Law:
    fitted = [_value(form, terms, where) for where, _ in seen]
    values = [value for _, value in seen]
    residuals = tuple(value - guess for value, guess in zip(values, fitted, strict=True))
    shares = [abs(r / v) for r, v in zip(residuals, values, strict=True) if v]
    if form == "power":
        values, fitted = [math.log(v) for v in values], [math.log(f) for f in fitted]
    return Law(
        subject=subject,
        unit=unit,
        form=form,
        terms=terms,
        n=len(seen),
        r2=_r2(values, fitted),
        residuals=residuals,
        worst_percent=100 * max(shares, default=0.0),
    )


def _r2(values: Sequence[float], fitted: Sequence[float]) -> float | None:
    """1 - squared residuals / squared distances from the mean."""
    mean = math.fsum(values) / len(values)
    spread = math.fsum((value - mean) ** 2 for value in values)
    left = math.fsum((value - guess) ** 2 for value, guess in zip(values, fitted, strict=True))
    return None if spread == 0 else 1 - left / spread


def _value(form: str, terms: Sequence[Term], where: Mapping[str, float]) -> float:
    if form == "power":
        scale, power = terms
        return float(scale.coefficient * _product(power.of, where) ** power.coefficient)
    return math.fsum(term.coefficient * _product(term.of, where) for term in terms)


def _product(term: str, where: Mapping[str, float]) -> float:
    return 1.0 if term == "1" else math.prod(where[name] for name in term.split("*"))


def _checked(subject: str, points: Iterable[Point], terms: Sequence[str]) -> list[Point]:
    """The points: enough for the terms, with every quantity of them, and finite. Raises Misuse."""
    seen = list(points)
    if not terms:
        raise Misuse(explain(f"{subject}: a law without a term", slip='such as ("1", "tokens")'))
    if len(seen) < len(terms):
        raise Misuse(
            explain(
                f"{subject}: too few points for a fit",
                asked=f"{len(terms)} coefficients",
                found=f"{len(seen)} points",
            )
        )
    wanted = {name for term in terms if term != "1" for name in term.split("*")}
    lacking = next((where for where, _ in seen if not wanted <= where.keys()), None)
    if lacking is not None:
        raise Misuse(
            explain(
                f"{subject}: a point lacks a quantity", asked=str(sorted(wanted)), found=str(dict(lacking))
            )
        )
    numbers = [number for where, value in seen for number in (*where.values(), value)]
    if not all(math.isfinite(number) for number in numbers):
        raise Misuse(explain(f"{subject}: a point is not finite", found=str(seen)))
    return seen


def _indistinct(subject: str, terms: Sequence[str], seen: Sequence[Point]) -> str:
    return explain(
        f"{subject}: the points cannot tell the terms of the law apart",
        asked=" + ".join(terms),
        found="; ".join(str(dict(where)) for where, _ in seen),
        slip="a quantity has the same value in every point, or two grow together",
    )


def _least_squares(rows: Sequence[Sequence[float]], values: Sequence[float]) -> list[float] | None:
    """The coefficients, None when a column depends on those before it.

    Modified Gram-Schmidt on columns of unit length (Björck 1967): the terms' sizes differ by ten orders of
    magnitude, which normal equations would square.
    """
    columns = [list(column) for column in zip(*rows, strict=True)]
    lengths = [math.hypot(*column) for column in columns]
    if not all(lengths):
        return None
    basis = [[x / length for x in column] for column, length in zip(columns, lengths, strict=True)]
    upper = [[0.0] * len(basis) for _ in basis]
    target, rotated = list(values), []
    for i, column in enumerate(basis):
        upper[i][i] = math.hypot(*column)
        if upper[i][i] < _RANK:
            return None
        unit = [x / upper[i][i] for x in column]
        for j in range(i + 1, len(basis)):
            upper[i][j] = _dot(unit, basis[j])
            basis[j] = [x - upper[i][j] * u for x, u in zip(basis[j], unit, strict=True)]
        rotated.append(_dot(unit, target))
        target = [t - rotated[i] * u for t, u in zip(target, unit, strict=True)]
    found = [0.0] * len(basis)
    for i in reversed(range(len(basis))):
        known = math.fsum(upper[i][j] * found[j] for j in range(i + 1, len(basis)))
        found[i] = (rotated[i] - known) / upper[i][i]
    return [value / length for value, length in zip(found, lengths, strict=True)]


def _dot(a: Sequence[float], b: Sequence[float]) -> float:
    return math.fsum(x * y for x, y in zip(a, b, strict=True))
