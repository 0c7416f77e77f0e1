"""Watch every read of another reader, since one may hang for ever."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from histo.errors import ReadError
from histo.resample import Pixels
from histo.slides.readers.base import Level, Place, Reader


class WatchedReader(Reader):
    """A reader whose every read is made within a context.

    Args:
        reader: Reads.
        guard: Makes the context, such as that of a watchdog.
    """

    def __init__(self, reader: Reader, guard: Callable[[], AbstractContextManager[None]]) -> None:
        self._reader, self._guard = reader, guard
        self.name = reader.name

    @property
    def stored(self) -> Reader | None:
        """See `Reader.stored`."""
        stored = self._reader.stored
        if stored is self._reader:
            return self
        return stored and WatchedReader(stored, self._guard)

    def read(self, level: Level, x: int, y: int, width: int, height: int) -> Pixels:
        """See `Reader.read`."""
        with self._guard():
            return self._reader.read(level, x, y, width, height)

    def read_windows(self, level: Level, places: Sequence[Place], targets: Sequence[Pixels]) -> list[ReadError | None]:
        """See `Reader.read_windows`."""
        with self._guard():
            return self._reader.read_windows(level, places, targets)

    def close(self) -> None:
        """See `Reader.close`."""
        self._reader.close()
