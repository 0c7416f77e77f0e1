"""Read and write results, on disk or in object storage; files appear whole.

Callers put, list, read and remove whole files; logs (`.jsonl`) alone grow line by line. In object storage a file is one
object, and folders are prefixes of names: they need not be made, and are gone with their last file.
"""

import csv
import io
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, BinaryIO, cast
from uuid import uuid4

from histo.errors import UsageError
from histo.printable import printable
from histo.regular_file import open_regular, read_regular
from histo.remote import objects
from histo.remote.location import AnyPath, canonical

TEMPORARY_SUFFIX = ".tmp"
_READ_AHEAD = 256 * 1024
"""Bytes that a read from object storage fetches at least; the footer of a table has fewer."""
_FORMULA = re.compile("'*[=+@-]")
"""How text begins that a spreadsheet takes for a formula, and such text with apostrophes before it."""


@contextmanager
def put_atomic(path: AnyPath) -> Iterator[BinaryIO]:
    """Write a file that takes its place in one step when the block ends, and leaves nothing behind when it fails.

    One for object storage is written to a temporary local file first.

    Examples:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with put_atomic(folder / "a" / "b.txt") as file:
        ...     _ = file.write(b"whole")
        >>> (folder / "a" / "b.txt").read_bytes()
        b'whole'
    """
    if not isinstance(path, Path):
        with tempfile.NamedTemporaryFile() as draft:
            yield cast(BinaryIO, draft)
            draft.flush()
            objects.upload(Path(draft.name), str(path))
        return
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


def put_json(path: AnyPath, value: Any) -> None:
    """Write a JSON document atomically, readable by a person."""
    with put_atomic(path) as file:
        file.write((json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n").encode())


def put_csv(path: AnyPath, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
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


def put_json_lines(path: AnyPath, values: Iterable[dict[str, Any]]) -> None:
    """Write a JSONL file atomically."""
    with put_atomic(path) as file:
        file.write(_json_lines(values).encode())


def append_json_lines(path: AnyPath, values: Iterable[dict[str, Any]]) -> None:
    """Append lines to a JSONL file, and flush it to the disk; see `append`."""
    append(path, _json_lines(values).encode(), to_disk=True)


def append(path: AnyPath, content: bytes, to_disk: bool = False) -> None:
    """Append to a file in one write. In object storage the file is written anew, which one process at a time may do.

    Args:
        path: The file.
        content: What is appended.
        to_disk: Whether it must outlast the machine, not the process alone.
    """
    if not isinstance(path, Path):
        before = content_of(path) or b""
        with put_atomic(path) as file:
            file.write(before + content)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as log:
        log.write(content)
        if to_disk:
            log.flush()
            os.fsync(log.fileno())


def _json_lines(values: Iterable[dict[str, Any]]) -> str:
    return "".join(json.dumps(value) + "\n" for value in values)


def read_json_lines(path: AnyPath) -> list[dict[str, Any]]:
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


def _content(path: AnyPath) -> bytes:
    try:
        return content_of(path) or b""
    except OSError as error:
        raise UsageError(
            f"{path}: cannot be read ({error.strerror or error}); put back a copy of it, or give another folder"
        ) from None


def content_of(path: AnyPath) -> bytes | None:
    """Return what a file has; None if there is none.

    Raises:
        OSError: If it cannot be read, or is no regular file.
    """
    try:
        if not isinstance(path, Path):
            return objects.read(str(path))
        with open_regular(path) as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None


def read_document(path: AnyPath) -> bytes:
    """Read a whole file of a size that a document has, see `regular_file.read_regular`.

    Raises:
        OSError: If there is none, it cannot be read, is no regular file, or is larger.
    """
    return read_regular(path) if isinstance(path, Path) else objects.read(str(path))


def opened(path: AnyPath) -> BinaryIO:
    """Open a file to be read from any place.

    Raises:
        OSError: If it cannot be opened, or is no regular file.
    """
    if isinstance(path, Path):
        return open_regular(path)
    return cast(BinaryIO, io.BufferedReader(objects.RemoteFile(str(path)), _READ_AHEAD))


def is_there(path: AnyPath) -> bool:
    """Whether there is a file, or a folder; in object storage, one that has files."""
    return path.exists() if isinstance(path, Path) else objects.is_there(str(path))


def changed_s(path: AnyPath) -> float:
    """Return when a file was last changed, seconds since 1970.

    Raises:
        OSError: If it is not there.
    """
    return path.stat().st_mtime if isinstance(path, Path) else objects.state(str(path)).changed_ns / 1e9


def list_files(folder: AnyPath, pattern: str = "*") -> Iterator[AnyPath]:
    """Yield the files below a folder, at any depth, that have such a name; none if there is no folder.

    Examples:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> put_json(folder / "a" / "b.json", 1)
        >>> [path.name for path in list_files(folder, "*.json")]
        ['b.json']
    """
    if isinstance(folder, Path):
        yield from (path for path in folder.rglob(pattern) if not path.is_dir() or path.is_symlink())
        return
    top = canonical(str(folder))
    with suppress(FileNotFoundError):
        for uri in objects.list_files(top):
            below = uri.removeprefix(top).strip("/")
            if below and fnmatchcase(below.rpartition("/")[2], pattern):
                yield folder / below


def remove_empty_folders(folder: AnyPath) -> None:
    """Remove a folder and those below it if they have no files."""
    if isinstance(folder, Path):
        for name, _, _ in os.walk(folder, topdown=False):
            with suppress(OSError):  # there is something in it
                Path(name).rmdir()


def move(source: AnyPath, target: AnyPath) -> None:
    """Put a file in another place; in one step on a file system. Both lie on the same one."""
    if not (isinstance(source, Path) and isinstance(target, Path)):
        with put_atomic(target) as file:
            file.write(content_of(source) or b"")
        remove(source)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    source.replace(target)


def put_folder(source: Path, target: AnyPath) -> None:
    """Copy a local folder, whose place nothing reads yet; its files appear whole, one after the other."""
    for path in sorted(path for path in source.rglob("*") if path.is_file()):
        with path.open("rb") as file, put_atomic(target / str(path.relative_to(source))) as copy:
            shutil.copyfileobj(file, copy)


def children(folder: AnyPath) -> list[AnyPath]:
    """Return the files and folders in a folder; none if there is no such folder."""
    if isinstance(folder, Path):
        return [*folder.glob("*")]
    depth = len(folder.parts)
    return [folder / name for name in sorted({path.parts[depth] for path in list_files(folder)})]


def replace_folder(source: Path, target: AnyPath) -> None:
    """Put a complete folder at `target`; what stood there is gone. Both lie on one file system.

    In object storage that takes more than one step: what is read there has to be named by a file that is written later,
    or has to show that it is whole.
    """
    if not isinstance(target, Path):
        remove(target)
        put_folder(source, target)
        remove(source)
    elif target.exists():
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


def remove(path: AnyPath) -> None:
    """Remove a file or a folder, whether it is there or not."""
    if not isinstance(path, Path):
        objects.delete(str(path))
    elif path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
