"""Read a table of studies: CSV or Parquet with a column `study`.

Relative paths start at the table's folder. Where known: `study_id`, `label`, `group` (what is never split, a patient),
and `split`: `train`, `val`, `test`, or nothing. Further columns are left alone. CSV text stays as it is written.
"""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from histo.class_names import check_groups, check_names, whole_numbers
from histo.csv_table import read_csv
from histo.errors import UsageError
from histo.regular_file import require_regular

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
MANIFEST_EXTENSIONS = (".csv", ".parquet")
_MOST_BYTES = 2**32
"""Of a table, which is read whole."""
_COLUMNS = ("study", "study_id", "label", "group", "split")


@dataclass(frozen=True)
class ManifestRow:
    """One study as the table lists it; None where it says nothing."""

    path: Path
    study_id: str
    label: str | None
    group: str | None
    split: Split | None


def read_manifest(path: Path, flag: str) -> list[ManifestRow]:
    """Read a table; rows count from 1, the first one under the header.

    Raises:
        UsageError: If a column or a value is missing or wrong.
    """
    where = f"{flag} {path}"
    table = _read(where, path)
    _check_columns(where, table.column_names)
    columns = {name: _texts(where, table, name) for name in _COLUMNS}
    columns |= {name: _whole_again(columns[name]) for name in ("label", "group")}
    check_names(where, [label for label in columns["label"] if label is not None])
    check_groups(where, columns["group"])
    rows: dict[str, int] = {}
    found = []
    for number, values in enumerate(zip(*columns.values(), strict=True), start=1):
        row = _row(f"{where}: row {number}", path.parent, dict(zip(_COLUMNS, values, strict=True)))
        if row.study_id in rows:
            raise UsageError(f"{where}: rows {rows[row.study_id]} and {number} are the same study, {row.study_id}")
        rows[row.study_id] = number
        found.append(row)
    return found


def _read(where: str, path: Path) -> pa.Table:
    try:
        if path.suffix.lower() == ".parquet":
            require_regular(path, _MOST_BYTES)
            return pq.read_table(path, columns=[name for name in pq.read_schema(path).names if name in _COLUMNS])
        return read_csv(path, _COLUMNS)
    except (OSError, ValueError, pa.ArrowException) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise UsageError(
            f"{where}: not a readable table of studies ({' '.join((reason or str(error)).split())})"
        ) from None


def _check_columns(where: str, names: list[str]) -> None:
    for name in _COLUMNS:
        if names.count(name) > 1:
            raise UsageError(f"{where}: two columns {name}")
        near = [other for other in names if other.strip().lower() == name and name not in names]
        if near:
            raise UsageError(f"{where}: column {near[0]!r}; name it {name}")
    if "study" not in names:
        raise UsageError(f"{where}: no column study (a folder or a file); its columns: {', '.join(names)}")


def _texts(where: str, table: pa.Table, name: str) -> list[str | None]:
    if name not in table.column_names:
        return [None] * len(table)
    column = table[name]
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kind = column.type
    if not (
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_integer(kind)
        or pa.types.is_null(kind)
        or (pa.types.is_floating(kind) and name in ("label", "group"))
    ):
        raise UsageError(f"{where}: {name} is {kind}; expected text")
    return [text or None for text in column.cast(pa.string()).to_pylist()]


def _whole_again(values: list[str | None]) -> list[str | None]:
    """Return values as they are; whole numbers that pandas has written as floats are whole numbers again."""
    if whole_numbers([value for value in values if value is not None]) is None:
        return values
    return [None if value is None else str(int(float(value))) for value in values]


def _row(where: str, folder: Path, values: dict[str, str | None]) -> ManifestRow:
    study, split = values["study"], values["split"]
    if study is None:
        raise UsageError(f"{where} names no study")
    known: dict[str | None, Split | None] = {None: None, **{name: name for name in SPLITS}}
    if split not in known:
        raise UsageError(f"{where} has split {split!r}; expected train, val, test, or nothing")
    path = folder / Path(study).expanduser()
    study_id = values["study_id"] or _study_id(path, folder)
    return ManifestRow(path, study_id, values["label"], values["group"], known[split])


def _study_id(path: Path, folder: Path) -> str:
    """Name a study by its path below the table's folder; one that lies elsewhere by its whole path."""
    named = path.relative_to(folder) if path.is_relative_to(folder) else path
    return PurePosixPath(*[part for part in named.parts if part not in ("/", "..", ".")]).as_posix()
