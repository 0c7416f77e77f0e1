"""Split table, `split.parquet`: every case, its split or fold, its hash."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from histo import tables
from histo.errors import UsageError
from histo.learn.data.inspection import Inspection
from histo.learn.data.listing import Split
from histo.learn.data.source import Source
from histo.remote.location import AnyPath

FILE = "split.parquet"


def write_cases(run: AnyPath, source: Source, found: Inspection, splits: Sequence[Split | None]) -> None:
    """Write the table of a training run."""
    _write(run, tables.CASES, source, found, {"split": splits})


def write_folds(out: AnyPath, source: Source, found: Inspection, folds: Sequence[int | None]) -> None:
    """Write the table of a cross-validation, with each case's fold in the place of its split."""
    _write(out, tables.FOLDS, source, found, {"fold": folds})


def _write(
    run: AnyPath,
    columns: Sequence[tables.Column],
    source: Source,
    found: Inspection,
    assigned: Mapping[str, Sequence[Split | int | None]],
) -> None:
    values: dict[str, Sequence[Any]] = {
        "case_id": [case.case_id for case in source.cases],
        "source": [case.source for case in source.cases],
        "label": [source.classes[case.label] for case in source.cases],
        "group": [case.group for case in source.cases],
        "content_hash": found.content_hashes,
        "error": found.errors,
        **assigned,
    }
    layout = tables.schema(columns)
    tables.write_table(run / FILE, pa.table({name: list(values[name]) for name in layout.names}, schema=layout))


def read_splits(run: AnyPath, source: Source) -> tuple[Split | None, ...]:
    """Read the split of every case of a run's source.

    Raises:
        UsageError: If the source holds other cases than when the run began.
    """
    written = read_columns(run, "case_id", "split")
    _same(run, written["case_id"], [case.case_id for case in source.cases], source)
    return tuple(written["split"])


def read_folds(out: AnyPath, source: Source) -> tuple[int | None, ...]:
    """Read the fold of every case of a cross-validation.

    Raises:
        UsageError: If the source holds other cases than when it began.
    """
    written = read_columns(out, "case_id", "fold")
    _same(out, written["case_id"], [case.case_id for case in source.cases], source)
    return tuple(written["fold"])


def check_unchanged(run: AnyPath, source: Source, found: Inspection) -> None:
    """Make sure that all images are what they were when the run began.

    Raises:
        UsageError: If one is not.
    """
    written = read_columns(run, "content_hash")
    _same(run, written["content_hash"], list(found.content_hashes), source)


def read_columns(run: AnyPath, *columns: str) -> dict[str, list[Any]]:
    """Read some columns of the table.

    Raises:
        UsageError: If they cannot be read.
    """
    with _told(run), tables.open_table(run / FILE) as file:
        missing = set(columns) - set(file.schema_arrow.names)
        if missing:
            raise pa.ArrowInvalid(f"no column {min(missing)}")
        found: dict[str, list[Any]] = file.read(list(columns)).to_pydict()
    return found


def has_columns(run: AnyPath, *columns: str) -> bool:
    """Whether the table has some columns.

    Raises:
        UsageError: If it cannot be read.
    """
    with _told(run), tables.open_table(run / FILE) as file:
        return set(columns) <= set(file.schema_arrow.names)


@contextmanager
def _told(run: AnyPath) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise UsageError(
            f"{run / FILE}: cannot be read ({reason}); put back a copy of it, or give another folder"
        ) from None


def _same(run: AnyPath, before: list[str | None], now: list[str | None], source: Source) -> None:
    if before == now:
        return
    pairs = zip(before, now, source.cases, strict=False)
    first = next(
        (case.case_id for old, new, case in pairs if old != new), f"{len(now)} {source.noun}, {len(before)} before"
    )
    raise UsageError(f"{run}: the {source.noun} are not those that the run began with ({first}); give another --out")
