"""List the images of a CSV or Parquet manifest, or of a Parquet folder.

Columns: `path` (relative ones start at the table's folder) or `image` (the bytes of an image file, Parquet only);
`label`, a name, or a whole number from 0 (which may be written as a float, as pandas does); where known `group`, a unit
that is never split, and `split`: `train`, `val`, `test`, or nothing. Further columns are left alone.

CSV text is never guessed at: a group `007` and a label `001` stay text. Labels are numbers only if every one of them is
written as a whole number without leading zeros, `1` or `1.0`. In Parquet the column's type decides.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from histo.class_names import whole_numbers
from histo.csv_table import read_csv
from histo.errors import UsageError
from histo.learn.data.images import Content
from histo.learn.data.listing import SPLITS, Listing, Split
from histo.learn.data.tile_table import IN_INDEX, INDEX, TableFooter, TableImages, TableIndex, read_footer, read_index
from histo.learn.data.volume_images import images_of
from histo.regular_file import require_regular
from histo.store import cell_text

_READ = ("path", "label", "group", "split")
_TILES_READ = ("case_id", "label", "group", "split", "source", "content_hash", "size_px")
_ALIKE = frozenset((*_READ, *_TILES_READ, "image"))
"""Columns that every part of a table has, or none."""


@dataclass(frozen=True)
class _Table:
    """A table without its images.

    Attributes:
        where: What messages call it.
        path: Its file, or the folder of its files.
        files: Its files.
        counts: Rows of each of them.
        names: All columns that it has.
        columns: Those that are read.
        footer: What a tile table says of itself.
        mpp: Resolution of its tiles, if it says so (µm/px).
    """

    where: str
    path: Path
    files: tuple[Path, ...]
    counts: tuple[int, ...]
    names: tuple[str, ...]
    columns: pa.Table
    footer: TableFooter | None
    mpp: float | None = None

    def texts(self, name: str) -> list[str | None]:
        """Return a column of text, nulls where a value is empty or the column missing."""
        if name not in self.names:
            return [None] * len(self.columns)
        column = _plain(self.columns[name])
        if not (pa.types.is_string(column.type) or pa.types.is_integer(column.type) or pa.types.is_null(column.type)):
            raise UsageError(f"{self.where}: {name} is {column.type}; expected text")
        return [text or None for text in column.cast(pa.string()).to_pylist()]


def list_manifest(path: Path, files: Sequence[Path], flag: str) -> Listing:
    """Read the list of a manifest; images stay where they are.

    Args:
        path: The file, or the folder that holds `files`.
        files: One CSV file, or Parquet files of one layout.
        flag: What messages call the source.

    Raises:
        UsageError: If a column or a value is missing or wrong; rows count from 1, the first one under the header.
    """
    where = f"{flag} {path}"
    table = _read_csv(where, path) if files[0].suffix.lower() == ".csv" else _read_parquet(where, path, tuple(files))
    _check_columns(table)
    labels, classes = _read_labels(table)
    places = _read_paths(table)
    folder = path if path.is_dir() else path.parent
    return Listing(
        case_ids=places or _case_ids(table),
        labels=labels,
        images=images_of([folder / place for place in places], where) if places else _table_images(table),
        classes=classes,
        splits=_read_splits(table),
        groups=_read_groups(table),
        origins=[text or "" for text in table.texts("source")] if table.footer else (),
        mpp=table.mpp,
    )


def _read_csv(where: str, path: Path) -> _Table:
    try:
        columns = read_csv(path, _READ)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UsageError(f"{where}: not a readable CSV file ({_one_line(error)})") from None
    return _Table(where, path, (path,), (len(columns),), tuple(columns.column_names), _as_meant(columns), None)


def _as_meant(columns: pa.Table) -> pa.Table:
    """Take away the apostrophes that keep spreadsheets from running a cell."""
    for place, name in enumerate(columns.column_names):
        if name in _READ and pc.any(pc.starts_with(columns.column(place), "'")).as_py():
            texts = [text and cell_text(text) for text in columns.column(place).to_pylist()]
            columns = columns.set_column(place, name, pa.array(texts, pa.string()))
    return columns


def _read_parquet(where: str, path: Path, files: tuple[Path, ...]) -> _Table:
    """Read all columns that matter but the images."""
    try:
        for file in files:
            require_regular(file)
        schemas = [pq.read_schema(file) for file in files]
        _check_alike(where, files, schemas)
        footers = [read_footer(schema) for schema in schemas]
        index = read_index(path if path.is_dir() else path.parent) if footers[0] == IN_INDEX else None
        if index is not None:
            files = _in_order(where, files, schemas, index)
        wanted = _TILES_READ if footers[0] else _READ
        columns = [name for name in wanted if name in schemas[0].names]
        tables = [pq.ParquetFile(file, page_checksum_verification=True).read(columns) for file in files]
        joined = pa.concat_tables(tables)
        joined.validate(full=True)  # text that is not UTF-8, for instance
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UsageError(f"{where}: not a readable Parquet table ({_one_line(error)})") from None
    footer, *others = footers
    if set(others) - {footer}:
        raise UsageError(f"{where}: parts of several tile tables; give each a folder of its own")
    if footer == IN_INDEX:
        if index is None:
            raise UsageError(f"{where}: a table that is not finished; give the command that made it again")
        footer = TableFooter(index.classes, len(files))
    if footer and footer.parts != len(files):
        raise UsageError(
            f"{where}: {len(files)} of the {footer.parts} parts of a tile table; give its folder, or prepare it again"
        )
    counts, names = tuple(map(len, tables)), tuple(schemas[0].names)
    return _Table(where, path, files, counts, names, joined, footer, index.mpp if index else None)


def _in_order(where: str, files: Sequence[Path], schemas: Sequence[pa.Schema], index: TableIndex) -> tuple[Path, ...]:
    """Put the parts of a table into the order of its index.

    Raises:
        UsageError: If they are not those that it names.
    """
    keys = [(schema.metadata or {}).get(b"histo.key", b"").decode() for schema in schemas]
    if {file.name: key for file, key in zip(files, keys, strict=True)} != index.parts:
        raise UsageError(
            f"{where}: {len(files)} parts, which are not the {len(index.parts)} of its {INDEX}; give its folder, "
            "or the command that made it again"
        )
    return tuple(files[0].parent / name for name in index.parts)


def _check_alike(where: str, files: Sequence[Path], schemas: Sequence[pa.Schema]) -> None:
    """Refuse parts of which one has a column that counts and another has not, or has it of another type."""
    kinds = [sorted((field.name, str(field.type)) for field in schema if field.name in _ALIKE) for schema in schemas]
    for file, own in zip(files, kinds, strict=True):
        if own != kinds[0]:
            first, second = (", ".join(f"{name} ({kind})" for name, kind in each) for each in (kinds[0], own))
            raise UsageError(
                f"{where}: {files[0].name} has the columns {first}, {file.name} has {second}; give all parts the same, "
                "or make each a source of its own"
            )


def _check_columns(table: _Table) -> None:
    where, names = table.where, table.names
    found = f"its columns: {', '.join(names)}"
    for name in (*_READ, "image"):
        if names.count(name) > 1:
            raise UsageError(f"{where}: two columns {name}")
        near = [other for other in names if other != name and other.strip().lower() == name and name not in names]
        if near:
            raise UsageError(f"{where}: column {near[0]!r}; name it {name}")
    if "label" not in names:
        raise UsageError(f"{where}: no column label; {found}")
    if ("path" in names) == ("image" in names):
        both = "both path and image; leave one of them out" if "path" in names else f"neither path nor image; {found}"
        raise UsageError(f"{where}: {both}")
    if "image" in names and table.files[0].suffix.lower() == ".csv":
        raise UsageError(f"{where}: a CSV file cannot hold images; give a column path")
    if not len(table.columns):
        raise UsageError(f"{where}: holds no rows")


def _read_labels(table: _Table) -> tuple[list[str] | list[int], tuple[str, ...] | None]:
    """Return all labels, and the names of the classes if they are names."""
    column = _plain(table.columns["label"])
    values = column.to_pylist()
    if table.footer and not table.footer.classes:
        raise UsageError(f"{table.where}: its tiles have no labels, since they were cut without --annotations")
    for row, value in enumerate(values, start=1):
        if value is None or value == "" or value != value:  # noqa: PLR0124 -- NaN, which pandas writes for nothing
            raise UsageError(f"{table.where}: row {row} has no label")
    whole = pa.types.is_floating(column.type) and all(value.is_integer() for value in values)
    if whole or pa.types.is_integer(column.type):
        values = [int(value) for value in values]
        if min(values) < 0:
            raise UsageError(
                f"{table.where}: row {values.index(min(values)) + 1} has label {min(values)}; they count from 0"
            )
        return values, None
    if not pa.types.is_string(column.type):
        raise UsageError(f"{table.where}: label is {column.type}; expected names or whole numbers from 0")
    numbers = _numbers(table, values)
    if numbers is not None:
        return numbers, None
    return values, table.footer.classes if table.footer else tuple(sorted(set(values)))


def _numbers(table: _Table, labels: Sequence[str]) -> list[int] | None:
    """Read labels that are stored as text and are numbers: in CSV, and in a tile table made of numbered labels."""
    if table.footer:
        numbered = table.footer.classes == tuple(str(number) for number in range(len(table.footer.classes)))
        return [int(label) for label in labels] if numbered else None
    return whole_numbers(labels) if table.files[0].suffix.lower() == ".csv" else None


def _read_paths(table: _Table) -> list[str]:
    """Return the paths of the images as they are written; nothing for a table that holds images."""
    if "path" not in table.names:
        return []
    rows: dict[str, int] = {}
    for row, place in enumerate(table.texts("path"), start=1):
        if place is None:
            raise UsageError(f"{table.where}: row {row} has no path")
        if place in rows:
            raise UsageError(f"{table.where}: rows {rows[place]} and {row} name the same path, {place}")
        rows[place] = row
    return list(rows)


def _read_splits(table: _Table) -> list[Split | None]:
    known: dict[str | None, Split | None] = {None: None, **{name: name for name in SPLITS}}
    splits = table.texts("split")
    for row, split in enumerate(splits, start=1):
        if split not in known:
            raise UsageError(f"{table.where}: row {row} has split {split!r}; expected train, val, test, or nothing")
    return [known[split] for split in splits]


def _read_groups(table: _Table) -> list[str | None]:
    """Return the groups; numbers that pandas wrote as floats, since a row has none, are whole numbers again."""
    if "group" in table.names and pa.types.is_floating(table.columns["group"].type):
        numbers = table.columns["group"].to_pylist()
        known = [None if number is None or number != number else number for number in numbers]  # noqa: PLR0124 -- NaN
        if all(number is None or number.is_integer() for number in known):
            return [None if number is None else str(int(number)) for number in known]
    groups = table.texts("group")
    whole = whole_numbers([group for group in groups if group is not None])
    if whole is None or table.footer:
        return groups
    following = iter(whole)
    return [None if group is None else str(next(following)) for group in groups]


def _case_ids(table: _Table) -> list[str]:
    if table.footer:
        return [str(text) for text in table.texts("case_id")]
    pairs = zip(table.files, table.counts, strict=True)
    return list(chain.from_iterable((f"{file.name}#{row}" for row in range(count)) for file, count in pairs))


def _table_images(table: _Table) -> TableImages:
    kind = pq.read_schema(table.files[0]).field("image").type
    if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        raise UsageError(f"{table.where}: image is {kind}; expected binary, the bytes of an image file")
    contents = []
    if table.footer:
        pairs = zip(table.columns["content_hash"].to_pylist(), table.columns["size_px"].to_pylist(), strict=True)
        contents = [Content(content_hash, size_px) for content_hash, size_px in pairs]
    return TableImages(table.files, table.counts, contents)


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return categories and long strings as strings."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _plain(column.cast(kind.value_type))
    return column.cast(pa.string()) if pa.types.is_large_string(kind) or pa.types.is_string_view(kind) else column


def _one_line(error: Exception) -> str:
    reason = error.strerror if isinstance(error, OSError) else None
    return " ".join((reason or str(error)).split())
