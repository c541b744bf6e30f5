"""Every published table, recomputed: claims that cannot be so are recorded, never silently believed."""

from collections.abc import Callable

import pytest

from pytest_qwen.beside import Published
from pytest_qwen.claims import Finding, findings
from pytest_qwen.physics import ceiling, fit, mbu
from pytest_qwen.published import Table, load_tables
from pytest_qwen.recomputed import recomputed
from pytest_qwen.standing import figures, problems_of

TABLES = load_tables()


def _record(found: tuple[Finding, ...], record_property: Callable[[str, object], None]) -> None:
    """The classification and each finding, into the report and the captured output (shown with -rP)."""
    kinds = {finding.kind for finding in found}
    worst = "impossible" if "impossible" in kinds else "inconsistent" if kinds else "consistent"
    record_property("classification", worst)
    for finding in found:
        record_property("finding", str(finding))
        print(finding)  # noqa: T201 - what the reader of this suite came for


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.label)
def test_a_published_table_is_recomputed(
    table: Table, record_property: Callable[[str, object], None]
) -> None:
    """Asserted is our own arithmetic; a wrong article is a finding and does not turn the suite red."""
    for row in table.rows:
        if row.setup is None:
            continue
        top, memory = ceiling(row.setup), fit(row.setup)
        assert top is not None, f"no ceiling for {row.name}"
        assert memory is not None, f"no memory plan for {row.name}"
        at_ceiling = mbu(top.bytes_per_step, 1000 / top.tokens_per_sec, top.bandwidth_bytes_per_sec)
        assert at_ceiling == pytest.approx(1)
        assert memory.total_bytes == pytest.approx(sum(amount for _, amount in memory.lines))
        assert top.bytes_per_step <= row.setup.weights_bytes
    _record(findings([table]), record_property)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.label)
def test_a_published_table_stands_beside_ours(table: Table, published: Published) -> None:
    """What follows from a row's own inputs, and what physics forbids: nothing is measured for either."""
    for row in table.rows:
        ours = recomputed(row)
        for figure in figures(row):
            impossible = any(kind == "impossible" for kind, _ in problems_of(row, figure))
            if figure in ours or impossible:
                computed = figure in ours
                published(
                    table.document, table.name, row.name, computed=computed, **{figure: ours.get(figure)}
                )


def test_tables_are_compared_with_each_other(record_property: Callable[[str, object], None]) -> None:
    alone = {finding for table in TABLES for finding in findings([table])}
    together = findings(TABLES)
    assert alone <= set(together)
    _record(tuple(finding for finding in together if finding not in alone), record_property)
