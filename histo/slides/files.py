"""Read a slide's file from several threads at once, by place."""

import os
import weakref

from histo.input_files import readable_file


class SharedFile:
    """A file that several threads read at once, each by place; after an error of the system it is opened anew, once.

    Raises:
        InputError: If it cannot be opened.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._closers: list[weakref.finalize[[int], SharedFile]] = []
        self._open()

    def _open(self) -> None:
        with readable_file(self._path):
            self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        self._closers.append(weakref.finalize(self, os.close, self._descriptor))

    def read(self, offset: int, count: int) -> bytes:
        """Read so many bytes, or as many as there are.

        Raises:
            InputError: If the system cannot read them, though the file was opened anew.
        """
        try:
            return os.pread(self._descriptor, count, offset)
        except OSError:
            self._open()  # the descriptor before stays open, since other threads may be reading with it
            with readable_file(self._path):
                return os.pread(self._descriptor, count, offset)

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("an open file cannot be pickled; open it where it is read")

    def close(self) -> None:
        """Release the file; forgetting it does so too."""
        for close in self._closers:
            close()
