"""The one place that writes results: every file appears whole or not at all.

A folder on a file system today; a key in an object store can take its place, since callers only ever put, list and
remove whole files.
"""

import csv
import io
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

TEMPORARY_SUFFIX = ".tmp"


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
    """Write a CSV file atomically; None becomes an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    with put_atomic(path) as file:
        file.write(text.getvalue().encode())


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
    """
    lines: list[dict[str, Any]] = []
    for line in path.read_bytes().split(b"\n") if path.exists() else ():
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            break
        if not isinstance(value, dict):
            break
        lines.append(value)
    return lines


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
