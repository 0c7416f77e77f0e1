"""`split.parquet`: every case of a training run, its split, and what its image contains."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from histo import tables
from histo.errors import UsageError
from histo.learn.listing import Split
from histo.learn.source import Source
from histo.learn.survey import Survey

FILE = "split.parquet"


def write_cases(run: Path, source: Source, found: Survey, splits: Sequence[Split | None]) -> None:
    """Write the table."""
    rows = [
        {
            "case_id": case.case_id,
            "source": case.source,
            "label": source.classes[case.label],
            "group": case.group,
            "split": split,
            "content_hash": content,
            "error": error,
        }
        for case, split, content, error in zip(source.cases, splits, found.content_hashes, found.errors, strict=True)
    ]
    tables.write_table(run / FILE, tables.rows_table(rows, tables.schema(tables.CASES)))


def read_splits(run: Path, source: Source) -> tuple[Split | None, ...]:
    """Read the split of every case of a run's source.

    Raises:
        UsageError: If the source holds other cases than when the run began.
    """
    written = _read(run, "case_id", "split")
    _same(run, written["case_id"], [case.case_id for case in source.cases], source)
    return tuple(written["split"])


def check_unchanged(run: Path, source: Source, found: Survey) -> None:
    """Make sure that all images are what they were when the run began.

    Raises:
        UsageError: If one is not.
    """
    written = _read(run, "content_hash")
    _same(run, written["content_hash"], list(found.content_hashes), source)


def _read(run: Path, *columns: str) -> dict[str, list[Any]]:
    try:
        found: dict[str, list[Any]] = pq.read_table(run / FILE, columns=list(columns)).to_pydict()
    except (OSError, pa.ArrowException) as error:
        raise UsageError(f"{run / FILE}: cannot be read ({error}); give another --out") from None
    return found


def _same(run: Path, before: list[str | None], now: list[str | None], source: Source) -> None:
    if before == now:
        return
    pairs = zip(before, now, source.cases, strict=False)
    first = next((case.case_id for old, new, case in pairs if old != new), f"{len(now)} images, {len(before)} before")
    raise UsageError(f"{run}: the images are not those that the run began with ({first}); give another --out")
