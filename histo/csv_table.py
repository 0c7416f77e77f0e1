"""Read CSV files as people write them: UTF-8, commas, a header.

A file that a spreadsheet wrote otherwise is an error, never guessed.
"""

import csv
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.csv

from histo.regular_file import require_regular

_MOST_BYTES = 2**32
"""Of a file, which is read whole."""
_HEADER_BYTES = 2**20
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_ENCODING = "save it as UTF-8 (in Excel: CSV UTF-8)"


def read_csv(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a CSV file as a table; the named columns are text as it is written, nulls where a cell is empty.

    Args:
        path: The file.
        columns: Names that its header may have, others are read as they come; None if all columns are text.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is no such file; the message says why.
    """
    require_regular(path, _MOST_BYTES)
    _check_header(path, columns)
    header = _check_quotes(path)
    converting = pyarrow.csv.ConvertOptions(
        column_types=dict.fromkeys(header if columns is None else columns, pa.string()),
        null_values=[""],
        strings_can_be_null=True,
    )
    parsing = pyarrow.csv.ParseOptions(newlines_in_values=True)
    try:
        return pyarrow.csv.read_csv(path, convert_options=converting, parse_options=parsing)
    except pa.ArrowInvalid as error:
        if "UTF8" in str(error):
            raise ValueError(f"it is not UTF-8; {_ENCODING}") from None
        raise


def _check_header(path: Path, columns: Sequence[str] | None) -> None:
    """Refuse another encoding than UTF-8, and another separator than the comma.

    Raises:
        ValueError: If the first line has one of them.
    """
    with path.open("rb") as file:
        line = file.readline(_HEADER_BYTES)
    if line.startswith(_UTF_16):
        raise ValueError(f"it is UTF-16; {_ENCODING}")
    try:
        header = line.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"it is not UTF-8; {_ENCODING}") from None
    for separator, name in _SEPARATORS.items():
        cells = _cells(header, separator)
        if len(cells) > 1 if columns is None and "," not in header else len(cells & {*(columns or ())}) > 1:
            raise ValueError(f"its columns are separated by {name}; separate them by commas")


def _cells(header: str, separator: str) -> set[str]:
    return {cell.strip().strip('"').strip().lower() for cell in header.split(separator)}


def _check_quotes(path: Path) -> list[str]:
    """Refuse quotes that none closes, or that are closed within a value: rows would be taken for a part of one value.

    Returns:
        The header.

    Raises:
        ValueError: If there are such.
    """
    csv.field_size_limit(_MOST_BYTES)  # a cell may hold the outline of an area
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        rows = csv.reader(file, strict=True)
        try:
            header = next(rows, [])
            deque(rows, maxlen=0)
        except csv.Error as error:
            raise ValueError(f"line {rows.line_num}: {error}; quotes may be opened and not closed") from None
    return header
