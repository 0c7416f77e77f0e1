"""Open the files that a user names: regular ones, of a bounded size.

A pipe, a socket or a device may keep a reader waiting for ever, or never end.
"""

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path

DOCUMENT_BYTES = 64 * 2**20
"""More than any document has that a person or histo writes: JSON, YAML."""
WEIGHTS_BYTES = 64 * 2**30
"""More than the weights of any network have that is trained here."""

_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def open_regular(path: Path, most_bytes: int | None = None) -> BufferedReader:
    """Open a file for reading, without ever waiting for what it is.

    Args:
        path: The file; symbolic links are followed.
        most_bytes: That it may have; None for a file that is read in parts.

    Raises:
        OSError: If it cannot be opened, is no regular file, or is larger; `strerror` is a reason in plain words.
        ValueError: If the path is none, such as one with a null byte.
    """
    _check(path.stat(), path, most_bytes)  # before it is opened: opening a device may already do something
    file = open(path, "rb", opener=_without_waiting)  # noqa: SIM115 -- pathlib's has no opener
    try:
        _check(os.fstat(file.fileno()), path, most_bytes)
    except BaseException:
        file.close()
        raise
    return file


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def read_regular(path: Path, most_bytes: int = DOCUMENT_BYTES) -> bytes:
    """Read a whole file; see `open_regular`. One that grows meanwhile, or does not say its size, is bounded as well.

    Raises:
        OSError: As `open_regular`.
        ValueError: Likewise.
    """
    with open_regular(path, most_bytes) as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise _too_large(path, most_bytes)
    return content


def require_regular(path: Path, most_bytes: int | None = None) -> None:
    """Make sure that a library which opens files by their path may open this one; see `open_regular`.

    Raises:
        OSError: As `open_regular`.
        ValueError: Likewise.
    """
    open_regular(path, most_bytes).close()


def _check(state: os.stat_result, path: Path, most_bytes: int | None) -> None:
    kind = stat.S_IFMT(state.st_mode)
    if kind == stat.S_IFDIR:
        raise IsADirectoryError(errno.EISDIR, "is a folder, not a file", str(path))
    if kind != stat.S_IFREG:
        raise OSError(errno.EINVAL, f"is {_KINDS.get(kind, 'something else')}, not a regular file", str(path))
    if most_bytes is not None and state.st_size > most_bytes:
        raise _too_large(path, most_bytes)


def _too_large(path: Path, most_bytes: int) -> OSError:
    return OSError(errno.EFBIG, f"is larger than {most_bytes / 2**20:,.0f} MiB, the most that is read", str(path))
