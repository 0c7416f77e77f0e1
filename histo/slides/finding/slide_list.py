"""Read a list of slides: a CSV or Parquet file with a row for each.

Columns: `uri`, a path or URI (relative ones start at the list's folder), of a file, or of the folder of one slide;
where given `slide_id`, and `mpp` (µm per level-0 pixel). All others are carried into the ledger; CSV text stays text.
"""

import math
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from histo.csv_table import read_csv
from histo.errors import UsageError
from histo.input_files import readable
from histo.regular_file import require_regular
from histo.remote.location import scheme, shown, steps
from histo.remote.objects import read
from histo.slides.finding.collection import Collection, FoundSlide
from histo.slides.finding.grouping import Files, LocalFiles, RemoteFiles, group
from histo.slides.mpp import PLAUSIBLE_MPP
from histo.store import cell_text
from histo.tables import SLIDES

LISTS = (".csv", ".parquet")
_KNOWN = ("uri", "slide_id", "mpp")
_TAKEN = frozenset(column.name for column in SLIDES) - {*_KNOWN}
_PER_CLASS = tuple(column.name.partition("<")[0] for column in SLIDES if column.per_class)
_AT_ONCE = 16


class _Row(NamedTuple):
    """A row of a list.

    Attributes:
        place: What messages call it.
        uri: Path or URI of its slide, in full.
        slide_id: Name of the slide.
        mpp: µm per level-0 pixel, if given.
        columns: Its other columns.
    """

    place: str
    uri: str
    slide_id: str
    mpp: float | None
    columns: dict[str, Any]


def is_list(where: str) -> bool:
    """Whether a path or URI names a list, by its extension."""
    return PurePosixPath(where).suffix.lower() in LISTS


def read_list(where: str) -> Collection:
    """Read a list of slides, sorted by `slide_id`; a slide that is not there is in the collection.

    Args:
        where: Path or URI of the list.

    Raises:
        UsageError: If it cannot be read, or a column or a value is missing or wrong; rows count from 1.
    """
    flag = f"--slides {shown(where)}"
    table = _read(where, flag)
    _check_names(table, flag)
    carried = [name for name in table.column_names if name not in _KNOWN]
    rows = list(_rows(table, where, flag, carried))
    _check_unique(rows)
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="list") as threads:
        slides = list(threads.map(_slide, rows))
    by_name = sorted(slides, key=lambda slide: slide.slide_id)
    return Collection(tuple(by_name), {}, columns={name: table.schema.field(name).type for name in carried})


def _read(where: str, flag: str) -> pa.Table:
    suffix = PurePosixPath(where).suffix.lower()
    try:
        if scheme(where) is None:
            table = _read_file(Path(where), suffix)
        else:
            with tempfile.NamedTemporaryFile(suffix=suffix) as copy:
                copy.write(read(where))
                copy.flush()
                table = _read_file(Path(copy.name), suffix)
    except (OSError, ValueError, pa.ArrowException) as error:
        reason = " ".join((getattr(error, "strerror", None) or str(error)).split())
        raise UsageError(f"{flag}: not a readable list ({reason})") from None
    return pa.table({name: _plain(table[name], f"{flag}: column {name}") for name in dict.fromkeys(table.column_names)})


def _read_file(path: Path, suffix: str) -> pa.Table:
    if suffix == ".csv":
        table = read_csv(path)
        return pa.table([_unquoted(column) for column in table.columns], names=table.column_names)
    require_regular(path)
    table = pq.read_table(path)
    table.validate(full=True)
    return table


def _unquoted(column: pa.ChunkedArray) -> pa.Array:
    """Take away the apostrophes that keep spreadsheets from running a cell."""
    return pa.array([text and cell_text(text) for text in column.to_pylist()], pa.string())


def _plain(column: pa.ChunkedArray, where: str) -> pa.ChunkedArray:
    """Return a column of text, numbers or truths; what is neither becomes text."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
        return column.cast(kind)
    try:
        return column.cast(pa.string())
    except pa.ArrowException:
        raise UsageError(f"{where} is {column.type}; leave it out, or make it text or a number") from None


def _check_names(table: pa.Table, flag: str) -> None:
    names = table.column_names
    for name in names:
        wanted = name.strip().lower()
        if name != wanted and wanted in _KNOWN and wanted not in names:
            raise UsageError(f"{flag}: column {name!r}; name it {wanted}")
        if name in _TAKEN or name.startswith(_PER_CLASS) or not name:
            raise UsageError(f"{flag}: column {name!r} is a column of the ledger; rename it, or leave it out")
    if "uri" not in names:
        raise UsageError(f"{flag}: no column uri; its columns: {', '.join(names)}")
    if not len(table):
        raise UsageError(f"{flag}: holds no rows")


def _rows(table: pa.Table, where: str, flag: str, carried: Sequence[str]) -> Iterator[_Row]:
    base = where.rpartition("/")[0]
    for number, row in enumerate(table.to_pylist(), start=1):
        place = f"{flag}: row {number}"
        text = str(row["uri"] or "").strip()
        if not text:
            raise UsageError(f"{place}: no uri")
        uri = text if scheme(text) or text.startswith("/") else f"{base}/{PurePosixPath(text)}"
        if scheme(uri) is None:
            uri = str(Path(uri))
        given = row.get("slide_id")
        slide_id = str(given).strip() if given is not None else ""
        slide_id = slide_id or _derived(uri, base)
        yield _Row(place, uri, slide_id, _mpp(row.get("mpp"), place), {name: row[name] for name in carried})


def _derived(uri: str, base: str) -> str:
    """Name a slide by its path below the list's folder, or by its whole path if it is elsewhere."""
    if uri.startswith(f"{base}/"):
        return readable(uri.removeprefix(f"{base}/").rstrip("/"))
    return readable("/".join(steps(uri)) if scheme(uri) else uri.strip("/"))


def _mpp(value: object, place: str) -> float | None:
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    try:
        mpp = float(value) if isinstance(value, str | int | float) else math.nan
    except ValueError:
        mpp = math.nan
    if math.isnan(mpp) and isinstance(value, float):  # as pandas writes what is missing
        return None
    low, high = PLAUSIBLE_MPP
    if not low <= mpp <= high:
        raise UsageError(f"{place}: mpp {value!r} is no resolution of a slide; give µm/px, {low} to {high}")
    return mpp


def _check_unique(rows: Sequence[_Row]) -> None:
    first: dict[str, _Row] = {}
    for row in rows:
        other = first.setdefault(row.slide_id, row)
        if other is not row:
            raise UsageError(
                f"{row.place}: {row.slide_id} is also the slide of row {other.place.rpartition(' ')[2]}; leave one of "
                "them out, or give different names in a column slide_id"
            )


def _slide(row: _Row) -> FoundSlide:
    files = _files(row)
    return FoundSlide(row.slide_id, files[0], files, mpp=row.mpp, columns=row.columns)


def _files(row: _Row) -> tuple[str, ...]:
    """List the files of a slide; one that cannot be looked at has the named one, and fails when it is opened."""
    files: Files = LocalFiles() if scheme(row.uri) is None else RemoteFiles({})
    is_folder = Path(row.uri).is_dir() if scheme(row.uri) is None else row.uri.endswith("/")
    try:
        found, _ = group(files.within(row.uri.rstrip("/")) if is_folder else [row.uri], files)
    except OSError:
        return (row.uri,)
    if is_folder and len(found) != 1:
        raise UsageError(
            f"{row.place}: {shown(row.uri)} is a folder of {len(found)} slides; name one slide in each row"
        )
    return found[0] if found else (row.uri,)
