"""One run at a time in one output folder."""

import _thread
import errno
import fcntl
import os
import platform
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TextIO

from histo.errors import HistoError, UsageError
from histo.remote import lease
from histo.remote.location import AnyPath
from histo.run.say import say

_MOST_SAID = 200
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}


@contextmanager
def sole_run(out: AnyPath) -> Iterator[None]:
    """Hold the lock of an output folder.

    The operating system holds it for this process (flock, on network file systems too) and gives it back when the
    process dies in whatever way, so a dead run never blocks the next one. In object storage it is a `Lease`.

    Raises:
        UsageError: If another run holds it, or something else is in its place.
        HistoError: If the lock was lost to another run.
    """
    path = out / ".lock"
    if not isinstance(path, Path):
        with _leased(path):
            yield
        return
    file = _acquire(path)
    try:
        yield
    finally:
        with suppress(OSError):  # the lock itself goes with the file's handle
            path.unlink()
        file.close()


@contextmanager
def _leased(path: AnyPath) -> Iterator[None]:
    lost = threading.Event()

    def stop() -> None:
        lost.set()
        _thread.interrupt_main()

    with ExitStack() as stack:
        try:
            stack.enter_context(lease.held(str(path), _me(), say, stop))
        except lease.HeldError as error:
            raise _in_use(path, str(error)) from None
        try:
            yield
        except KeyboardInterrupt:
            if lost.is_set():
                raise HistoError(
                    f"--out {path.parent}: another run has taken its lock, since this one was silent for more than "
                    f"{lease.DEAD_S:.0f} s; let that one end, and give the same command again"
                ) from None
            raise


def _me() -> str:
    return f"process {os.getpid()} on {platform.node()}"


def _in_use(path: AnyPath, holder: str) -> UsageError:
    return UsageError(
        f"--out {path.parent}: another run writes there ({holder}); wait for it or stop it, or give another folder"
    )


def _acquire(path: Path) -> TextIO:
    while True:
        file = _open(path)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _read_and_close(file)
            raise _in_use(path, holder) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                file.close()
                raise
            say(f"note: {path.parent}: its file system has no locks; start no second run there")
        if not file.writable():  # of another user, whose run is dead
            path.unlink(missing_ok=True)
        elif _is_at(path, file):
            file.truncate(0)
            file.write(_me())
            file.flush()
            return file
        file.close()  # the run that held it before has just ended, and removed it


def _open(path: Path) -> TextIO:
    if path.exists() and not path.is_file():  # a pipe would keep this process waiting
        raise UsageError(f"{path}: is no file, as the lock of a run is; remove it")
    try:
        return path.open("a+", encoding="utf-8", errors="replace")
    except PermissionError:
        return path.open(encoding="utf-8", errors="replace")


def _read_and_close(file: TextIO) -> str:
    with file:
        file.seek(0)
        return file.read(_MOST_SAID).strip() or "it has just begun"


def _is_at(path: Path, file: TextIO) -> bool:
    """Whether an open file is still the one that a path names."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
