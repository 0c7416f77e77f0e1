"""Write results: every file appears whole; lines are appended to `.jsonl` files.

A folder on a file system today; a key in an object store could take its place: callers put, list and
remove whole files. Logs (`.jsonl`) alone grow line by line.
"""

import csv
import io
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

from histo.errors import UsageError
from histo.printable import printable
from histo.regular_file import open_regular

TEMPORARY_SUFFIX = ".tmp"
_FORMULA = re.compile("'*[=+@-]")
"""How text begins that a spreadsheet takes for a formula, and such text with apostrophes before it."""


@contextmanager
def put_atomic(path: Path) -> Iterator[BinaryIO]:
    """Write a file that takes its place in one step when the block ends, and leaves nothing behind when it fails.

    Examples:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with put_atomic(folder / "a" / "b.txt") as file:
        ...     _ = file.write(b"whole")
        >>> (folder / "a" / "b.txt").read_bytes()
        b'whole'
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{uuid4().hex}{TEMPORARY_SUFFIX}"
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def put_json(path: Path, value: Any) -> None:
    """Write a JSON document atomically, readable by a person."""
    with put_atomic(path) as file:
        file.write((json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n").encode())


def put_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file atomically; None becomes an empty cell.

    Text that a spreadsheet would run gets an apostrophe before it, which `cell_text` takes away; control characters
    become escapes.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([_cell(name) for name in header])
    writer.writerows([_cell(value) for value in row] for row in rows)
    with put_atomic(path) as file:
        file.write(text.getvalue().encode())


def _cell(value: object) -> object:
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if _FORMULA.match(text) else text


def cell_text(cell: str) -> str:
    """Return the text that a cell of such a file stands for.

    Examples:
        >>> cell_text("'=1+1"), cell_text("'s-Gravenhage")
        ('=1+1', "'s-Gravenhage")
    """
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell[1:]) else cell


def put_json_lines(path: Path, values: Iterable[dict[str, Any]]) -> None:
    """Write a JSONL file atomically."""
    with put_atomic(path) as file:
        file.write(_json_lines(values).encode())


def append_json_lines(path: Path, values: Iterable[dict[str, Any]]) -> None:
    """Append lines to a JSONL file in one write, and flush it to the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(_json_lines(values))
        file.flush()
        os.fsync(file.fileno())


def _json_lines(values: Iterable[dict[str, Any]]) -> str:
    return "".join(json.dumps(value) + "\n" for value in values)


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Read a JSONL file up to the first line that was not written to its end; none if there is no file.

    What follows such a line is not trusted, whatever it is.

    Raises:
        UsageError: If something is there that cannot be read, or is no file.
    """
    lines: list[dict[str, Any]] = []
    for line in _content(path).split(b"\n"):
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            break
        if not isinstance(value, dict):
            break
        lines.append(value)
    return lines


def _content(path: Path) -> bytes:
    try:
        with open_regular(path) as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        return b""
    except OSError as error:
        raise UsageError(
            f"{path}: cannot be read ({error.strerror or error}); put back a copy of it, or give another folder"
        ) from None


def move(source: Path, target: Path) -> None:
    """Put a file in another place in one step; both lie on one file system."""
    target.parent.mkdir(parents=True, exist_ok=True)
    source.replace(target)


def replace_folder(source: Path, target: Path) -> None:
    """Put a complete folder at `target`; what stood there is gone. Both lie on one file system."""
    if target.exists():
        retired = target.with_name(f".{uuid4().hex}{TEMPORARY_SUFFIX}")
        target.rename(retired)
        try:
            source.rename(target)
        except OSError:
            retired.rename(target)
            raise
        shutil.rmtree(retired)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        source.rename(target)


def remove(path: Path) -> None:
    """Remove a file or a folder, whether it is there or not."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
