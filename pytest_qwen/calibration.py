"""The calibration table: how far unchanged code scatters, and what that means for the bounds of a test."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_qwen.bounds import Bound
from pytest_qwen.deciding import values_for
from pytest_qwen.evidence import Measurement
from pytest_qwen.metrics import fraction_of_rounds
from pytest_qwen.statistics import calibrate


def calibration_text(bounds: Sequence[Bound], measured: Sequence[Measurement], *, alpha: float) -> str:
    """One paragraph a bound: spread within and between processes, false-fail rate, smallest visible change.

    `measured` has one measurement a fresh process.
    """
    paragraphs = []
    for bound in bounds:
        processes = [values_for(bound, one.rounds) for one in measured]
        processes = [values for values in processes if values]
        if bound.judged != "sequential" or len(processes) < 2:
            paragraphs.append(f"{bound}: calibration needs rounds from at least two processes")
            continue
        found = calibrate(
            processes,
            direction=bound.direction,
            limit=bound.limit,
            fraction=fraction_of_rounds(bound, measured[0].rounds),
            alpha=alpha,
        )
        paragraphs.append(
            f"{bound}\n"
            f"  {len(processes)} processes of {min(map(len, processes))} rounds or more; "
            f"spread within a process {found.within_cv:.2%}, between processes {found.between_cv:.2%}\n"
            f"  this bound falsely fails {found.false_fail_rate:.1%} of unchanged runs; "
            f"the smallest change that one run can see is {found.smallest_change:.1%}\n"
            f"  a bound that falsely fails at most {alpha:.1%}: {found.proposed_limit:.4g} {bound.unit}"
        )
    return "\n".join(paragraphs)
