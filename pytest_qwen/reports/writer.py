"""The report folder: a journal while the run goes on, whole files at its end, one message when it cannot."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_qwen.errors import Misuse, Unavailable, explain
from pytest_qwen.quality_records import rated_of
from pytest_qwen.records import JOURNAL_NAME, RUN_NAME, RunHeader, RunRecord
from pytest_qwen.reports.csv_ import csv_text
from pytest_qwen.reports.json_ import journal_line, run_text
from pytest_qwen.reports.laws_ import laws_section
from pytest_qwen.reports.loads_ import load_rows, loads_section, searches_of, searches_section
from pytest_qwen.reports.markdown import answer_pages, report_text
from pytest_qwen.reports.published_ import published_section
from pytest_qwen.reports.star_pages import star_pages, stars_section
from pytest_qwen.reports.star_rows import stars_csv

CSV_NAME = "summary.csv"
REPORT_NAME = "report.md"
STARS_NAME = "stars.csv"
# Enough to need a block of its own, so that a full disk shows at once.
_PROBE = b"\0" * 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What a run left in its folder, and what it could not leave there: one message at most."""

    paths: tuple[Path, ...]
    problems: tuple[str, ...] = ()


class Writer:
    """One run's report folder. Under xdist only the controller has one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._journal = folder / JOURNAL_NAME
        self._journaled = 0
        self._failed: dict[str, OSError] = {}

    def prepare(self) -> None:
        """Make the folder and try to write there, before any time is spent on measuring.

        Raises Misuse when the path is no folder, Unavailable when the machine does not let us write there.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(self.folder / ".pytest-qwen-probe", _PROBE)
            (self.folder / ".pytest-qwen-probe").unlink()
        except (FileExistsError, NotADirectoryError) as error:
            slip = "the path, or a part of it, names a file"
            raise Misuse(self._cannot(error, slip, "name a folder")) from error
        except OSError as error:
            slip = "no permission there, or no space left"
            raise Unavailable(self._cannot(error, slip, "name a folder that you may write to")) from error

    def append(self, record: RunRecord) -> None:
        """Put one record into the journal, on the disk; the first of a run replaces an older run's journal.

        A failure is kept for `finish`; a line that was written in part is taken back.
        """
        try:
            self._add_line(journal_line(record).encode())
        except OSError as error:
            self._failed.setdefault(JOURNAL_NAME, error)
        else:
            self._journaled += 1

    def _add_line(self, line: bytes) -> None:
        start = self._journal.stat().st_size if self._journaled else 0
        try:
            with self._journal.open("ab") as file:
                file.truncate(start)
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            with contextlib.suppress(OSError):
                os.truncate(self._journal, start)
                if not start:
                    self._journal.unlink()
            raise

    def finish(self, records: Sequence[RunRecord], header: RunHeader) -> Written:
        """Write every file whole or not at all; the journal goes once the run file is there.

        Never raises for the disk's sake: what failed is in `problems`.
        """
        paths = []
        for name, text in self._files(records, header):
            try:
                write_atomically(self.folder / name, text.encode("utf-8", "backslashreplace"))
                paths.append(self.folder / name)
            except OSError as error:
                self._failed[name] = error
        if RUN_NAME in self._failed:
            paths += [self._journal] if self._journaled else []
        else:
            self._failed.pop(JOURNAL_NAME, None)  # the run file has everything
            with contextlib.suppress(OSError):
                self._journal.unlink(missing_ok=True)
        return Written(paths=tuple(paths), problems=self._problems(paths))

    def _files(self, records: Sequence[RunRecord], header: RunHeader) -> Iterator[tuple[str, str]]:
        yield RUN_NAME, run_text(records, header)
        yield CSV_NAME, csv_text(records)
        rated = [one for record in records for one in rated_of(record)]
        stars = f"\n## Stars\n\n{stars_section([card for _, card in rated])}\n" if rated else ""
        yield REPORT_NAME, report_text(records, header) + _loads(records) + stars + _beside(records)
        yield from answer_pages(records)
        if rated:
            yield STARS_NAME, stars_csv(card for _, card in rated)
            yield from star_pages(rated)

    def _problems(self, paths: Sequence[Path]) -> tuple[str, ...]:
        if not self._failed:
            return ()
        reasons = dict.fromkeys(error.strerror or str(error) for error in self._failed.values())
        kept = [
            f"{JOURNAL_NAME} ({self._journaled} records)" if p == self._journal else p.name for p in paths
        ]
        problem = explain(
            f"the report in {self.folder} is incomplete: {'; '.join(reasons)}",
            found=f"not written: {', '.join(self._failed)}; kept: {', '.join(kept) or 'nothing'}",
            next_step="make room or give permission; --qwen-replay reads whatever records were kept",
        )
        return (problem,)

    def _cannot(self, error: OSError, slip: str, next_step: str) -> str:
        return explain(
            "the report folder cannot be written",
            asked=f"--qwen-report={self.folder}",
            found=f"{error.strerror or error} ({error.filename})" if error.filename else str(error),
            slip=slip,
            next_step=next_step,
        )


def _loads(records: Sequence[RunRecord]) -> str:
    """Loads as their clients saw them, and searches for the highest, where there are any."""
    rows, searches = load_rows(records), searches_of(records)
    parts = [f"\n## Loads\n\n{loads_section(rows)}\n"] if rows else []
    parts += [f"\n## Highest loads\n\n{searches_section(searches)}\n"] if searches else []
    return "".join(parts)


def _beside(records: Sequence[RunRecord]) -> str:
    """Published figures beside ours, and fitted laws, where there are any."""
    standings = [one for record in records for one in record.standings]
    laws = [law for record in records for law in record.laws]
    parts = [f"\n## Published figures beside ours\n\n{published_section(standings)}\n"] if standings else []
    parts += [f"\n## Fitted laws\n\n{laws_section(laws)}\n"] if laws else []
    return "".join(parts)


def write_atomically(path: Path, content: bytes) -> None:
    """Replace the file by the content, or leave it as it was. Raises OSError; leaves nothing half-written."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
