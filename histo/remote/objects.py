"""Look at, list, read and write remote files, again and again until it succeeds."""

import errno
import io
import os
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from histo.remote.location import connect, shown, uri_of

PATIENCE_S = 60.0
"""Seconds for which a request is tried again where no other time is given."""
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.1, 15.0
_FINAL = (
    FileNotFoundError,
    FileExistsError,
    PermissionError,
    IsADirectoryError,
    NotADirectoryError,
    NotImplementedError,
    TypeError,
)
_FINAL_NAMES = ("NoCredentialsError", "PartialCredentialsError", "InvalidURL", "NonHttpUrlClientError", "RefreshError")
"""Exceptions of the libraries below fsspec that another attempt does not mend; they need not be installed."""
_MAY_PASS = (408, 425, 429)
"""Statuses of HTTP below 500 that another attempt may mend."""
_PIECE = 16 * 2**20
_AT_ONCE = 4
"""Pieces of a file that are fetched at a time."""
_NS = 10**9
_TIMES = ("LastModified", "Last-Modified", "mtime", "updated", "modified", "last_modified", "created")

T = TypeVar("T")


class RemoteState(NamedTuple):
    """What a remote file is, as far as its storage tells without sending it.

    Attributes:
        size_bytes: Its size.
        changed_ns: When it was last changed, ns since 1970; a number made of its ETag where only that is known.
    """

    size_bytes: int
    changed_ns: int


def patiently(call: Callable[[], T], uri: str, patience_s: float = PATIENCE_S) -> T:
    """Ask a remote file system, again and again until it answers, or what it answers is final.

    Args:
        call: What is asked.
        uri: Of what it is about, for messages.
        patience_s: Seconds after which nothing is tried again.

    Raises:
        FileNotFoundError: If there is no such file.
        OSError: If nothing helps; `strerror` is the reason in one line, `filename` the URI.
    """
    start, wait_s = time.monotonic(), _FIRST_WAIT_S
    while True:
        try:
            return call()
        except Exception as error:  # each library has its own
            waited_s = time.monotonic() - start
            if _is_final(error):
                raise _as_system_error(error, uri, "") from error
            if waited_s + wait_s > patience_s:
                raise _as_system_error(error, uri, f", for {waited_s:.0f} s") from error
        time.sleep(wait_s * random.uniform(0.5, 1.0))  # noqa: S311 -- so that nodes do not come back together
        wait_s = min(2 * wait_s, _LONGEST_WAIT_S)


def _is_final(error: Exception) -> bool:
    status = getattr(error, "status", None)
    if isinstance(status, int) and 400 <= status < 500:
        return status not in _MAY_PASS
    return isinstance(error, _FINAL) or type(error).__name__ in _FINAL_NAMES


def _as_system_error(error: Exception, uri: str, how_long: str) -> OSError:
    """Say in one line what was wrong."""
    uri = shown(uri)
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(errno.ENOENT, "no such file, or it may not be seen", uri)
    if isinstance(error, FileExistsError):
        return FileExistsError(errno.EEXIST, "a file is there", uri)
    if isinstance(error, PermissionError) or getattr(error, "status", None) in (401, 403):
        return PermissionError(errno.EACCES, "access denied; look after the credentials of this node", uri)
    status = getattr(error, "status", None)
    text = f"HTTP {status}" if isinstance(status, int) else " ".join(str(error).split()) or type(error).__name__
    return OSError(errno.EIO, f"{text}{how_long}", uri)


def state(uri: str, patience_s: float = PATIENCE_S) -> RemoteState:
    """Ask for the size of a remote file, and for the time of its last change.

    Raises:
        OSError: If it cannot be had; see `patiently`.
    """
    files, path = connect(uri)
    info = patiently(lambda: files.info(path), uri, patience_s)
    if info.get("type") == "directory":
        raise IsADirectoryError(errno.EISDIR, "is a folder, not a file", shown(uri))
    if info.get("size") is None:
        raise OSError(errno.EIO, "the server does not tell its size", shown(uri))
    return _state(info)


def total_state(states: Iterable[RemoteState]) -> RemoteState:
    """Return the size of several files together, and the time of their latest change."""
    sizes, times = zip(*states, strict=True)
    return RemoteState(sum(sizes), max(times))


def list_files(uri: str, patience_s: float = PATIENCE_S) -> dict[str, RemoteState]:
    """List all files below a folder, by their URIs, sorted.

    Raises:
        OSError: If it cannot be listed; see `patiently`.
    """
    files, path = connect(uri)
    found = patiently(lambda: files.find(path, detail=True), uri, patience_s)
    return {
        uri_of(files, name): _state(info)
        for name, info in sorted(found.items())
        if not name.endswith("/")  # an empty object that stands for a folder
    }


def glob_files(uri: str, patience_s: float = PATIENCE_S) -> tuple[dict[str, RemoteState], list[str]]:
    """List the files, and the folders, whose URI has a pattern's form.

    Raises:
        OSError: If the storage cannot be listed; see `patiently`.
    """
    files, path = connect(uri)
    found = patiently(lambda: files.glob(path, detail=True), uri, patience_s)
    named = {uri_of(files, name): info for name, info in sorted(found.items())}
    states = {name: _state(info) for name, info in named.items() if info["type"] != "directory"}
    return states, [name for name in named if name not in states]


def read(uri: str, start: int = 0, end: int | None = None, patience_s: float = PATIENCE_S) -> bytes:
    """Read a remote file, or a part of it.

    Raises:
        OSError: If it cannot be read; see `patiently`.
    """
    files, path = connect(uri)
    whole = start == 0 and end is None
    content: bytes = patiently(
        lambda: files.cat_file(path) if whole else files.cat_file(path, start=start, end=end), uri, patience_s
    )
    is_whole = end is not None and len(content) > end - start  # of a server that knows no parts
    return content[start:end] if is_whole else content


def fetch(uri: str, target: Path, expected: RemoteState, patience_s: float = PATIENCE_S) -> None:
    """Copy a remote file, several pieces at a time; each is tried again alone.

    The copy gets the time of change of the file.

    Args:
        uri: The file.
        target: Where the copy is made; nothing is there.
        expected: What the file is, as it was looked at before.
        patience_s: Seconds for which nothing may come of a piece.

    Raises:
        OSError: If it cannot be had, see `patiently`, or is another one than expected.
    """
    files, path = connect(uri)
    size = expected.size_bytes
    with target.open("xb") as copy, ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="fetch") as threads:
        copy.truncate(size)

        def piece(start: int) -> tuple[int, bytes]:
            end = min(start + _PIECE, size)
            return start, patiently(
                lambda: _whole(files.cat_file(path, start=start, end=end), start, end, size), uri, patience_s
            )

        for starts in _groups(range(0, size, _PIECE), _AT_ONCE):
            for start, content in threads.map(piece, starts):
                copy.seek(start)
                copy.write(content)
    if state(uri, patience_s) != expected:
        raise OSError(errno.ESTALE, "it changed while it was fetched", shown(uri))
    os.utime(target, ns=(expected.changed_ns, expected.changed_ns))


class RemoteFile(io.RawIOBase):
    """A remote file to be read from any place; each read is a request.

    Args:
        uri: The file.

    Raises:
        OSError: If it is not there, or cannot be read; see `patiently`.
    """

    def __init__(self, uri: str) -> None:
        self.name = self._uri = uri
        self._size, self._at = state(uri).size_bytes, 0

    def readable(self) -> bool:
        """See `io.RawIOBase`."""
        return True

    def seekable(self) -> bool:
        """See `io.RawIOBase`."""
        return True

    def tell(self) -> int:
        """See `io.RawIOBase`."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """See `io.RawIOBase`."""
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        """See `io.RawIOBase`."""
        end = min(self._at + len(buffer), self._size)
        if end <= self._at:
            return 0
        content = read(self._uri, self._at, end)
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)


def is_there(uri: str) -> bool:
    """Whether there is a file, or a folder with files.

    Raises:
        OSError: If it cannot be known; see `patiently`.
    """
    files, path = connect(uri)
    try:
        patiently(lambda: files.info(path), uri)
    except FileNotFoundError:
        return False
    return True


def is_file(uri: str) -> bool:
    """Whether there is a file, and no folder.

    Raises:
        OSError: If it cannot be known; see `patiently`.
    """
    try:
        state(uri)
    except (FileNotFoundError, IsADirectoryError):
        return False
    return True


def upload(source: Path, uri: str) -> None:
    """Put a local file at a URI; it appears whole, in the place of what was there.

    Raises:
        OSError: If it cannot be written; see `patiently`.
    """
    files, path = connect(uri)
    patiently(lambda: files.put_file(str(source), path), uri)


def put(uri: str, content: bytes) -> None:
    """Put a small file at a URI, in the place of what was there.

    Raises:
        OSError: If it cannot be written; see `patiently`.
    """
    files, path = connect(uri)
    patiently(lambda: files.pipe_file(path, content), uri)


def create(uri: str, content: bytes) -> None:
    """Put a small file at a URI where none is: of several that try, one succeeds, if the storage can tell.

    Raises:
        FileExistsError: If one is there; it may be of an earlier attempt of this call.
        OSError: If it cannot be written; see `patiently`.
    """
    files, path = connect(uri)
    patiently(lambda: files.pipe_file(path, content, mode="create"), uri)


def delete(uri: str) -> None:
    """Remove a file, or all files below a folder, whether there are any or not.

    Raises:
        OSError: If it cannot be done; see `patiently`.
    """
    files, path = connect(uri)

    def remove(name: str) -> None:
        with suppress(FileNotFoundError):
            patiently(lambda: files.rm_file(name), uri)

    found = patiently(lambda: files.find(path), uri)  # a file finds itself
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        list(threads.map(remove, found))


def _whole(content: bytes, start: int, end: int, size: int) -> bytes:
    """Make sure that a piece has its length; a server that knows no pieces sends all of the file."""
    if len(content) == size and end - start != size:
        content = content[start:end]
    if len(content) != end - start:
        raise ConnectionError(f"{len(content)} bytes came of {end - start}")
    return content


def _groups(items: range, size: int) -> Iterator[range]:
    return (items[first : first + size] for first in range(0, len(items), size))


def _state(info: Mapping[str, Any]) -> RemoteState:
    return RemoteState(int(info.get("size") or 0), _changed_ns(info))


def _changed_ns(info: Mapping[str, Any]) -> int:
    for name in _TIMES:
        if (changed := _as_ns(info.get(name))) is not None:
            return changed
    tag = info.get("ETag") or info.get("etag")
    return int.from_bytes(sha256(str(tag).encode()).digest()[:4]) * _NS if tag else 0


def _as_ns(value: object) -> int | None:
    """Read a time as the libraries of file systems give it: a date, seconds since 1970, or text.

    Whole seconds are taken: a list and a request for one file may differ below.
    """
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if isinstance(value, datetime):
        value = (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    return int(value) * _NS if isinstance(value, int | float) else None
