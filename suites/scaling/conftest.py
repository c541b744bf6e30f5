"""What the scaling suites share: peak memory, and the time of a step."""

from collections.abc import Callable

import pytest

from pytest_qwen.evidence import Measurement
from pytest_qwen.statistics import percentile


@pytest.fixture
def peak_gb() -> Callable[[Measurement], float]:
    """Peak GB that tensors took in a measurement; where the allocator does not tell, of the whole process."""

    def peak(measured: Measurement) -> float:
        return measured.observed.get("allocated_gb", measured.observed["vram_gb"])

    return peak


@pytest.fixture
def step_ms() -> Callable[[Measurement], float]:
    """The median time of a decode step; without a single clean round there is nothing to fit, so it skips."""

    def median(measured: Measurement) -> float:
        steps = measured.values("tpot_ms")
        if not steps:
            why = {text for seen in measured.rounds for text in seen.violations}
            pytest.skip(f"no clean round: {'; '.join(sorted(why))}")
        return percentile(steps, 0.5)

    return median
