"""Measure the cost of labelling: time to work, wait and read; bytes."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

T = TypeVar("T")


class Effort(NamedTuple):
    """What a worker spent since it was asked last.

    Attributes:
        network_s: Time in which its network worked.
        waited_s: Time in which the network waited for pixels.
        read_s: Time that threads read and decoded, each of them counted.
        bytes_read: What its process read from files; 0 where the system does not tell.
    """

    network_s: float = 0.0
    waited_s: float = 0.0
    read_s: float = 0.0
    bytes_read: int = 0

    @property
    def worked_s(self) -> float:
        """Time of reading and of the network."""
        return self.network_s + self.read_s


NOTHING = Effort()


class Clock:
    """Wall time of a worker that may have several regions in work at once.

    Its network works while a region is in work that does not wait for pixels.

    Args:
        is_fed: Whether others read for it: then it also waits while it has no region, once it had its first.
    """

    def __init__(self, is_fed: bool = False) -> None:
        self._is_fed = is_fed
        self._lock = threading.Lock()
        self._in_work = self._waiting = 0
        self._is_begun = False
        self._network_s = self._waited_s = self._read_s = 0.0
        self._bytes_before = _bytes_read()
        self._last = time.monotonic()

    @contextmanager
    def region(self) -> Iterator[None]:
        """Count a region as in work."""
        self._change(in_work=1)
        try:
            yield
        finally:
            self._change(in_work=-1)

    def waiting_for(self, items: Iterator[T]) -> Iterator[T]:
        """Yield the items, and count the region that asks for one as waiting until it is there."""
        while True:
            self._change(waiting=1)
            try:
                item = next(items)
            except StopIteration:
                return
            finally:
                self._change(waiting=-1)
            yield item

    @contextmanager
    def fetching(self) -> Iterator[None]:
        """Count the time in which a slide is fetched as reading, for which its region waits."""
        self._change(waiting=1)
        try:
            with self.reading():
                yield
        finally:
            self._change(waiting=-1)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Count the time of a thread that reads."""
        begun = time.monotonic()
        try:
            yield
        finally:
            with self._lock:
                self._read_s += time.monotonic() - begun

    def take(self) -> Effort:
        """Return what was spent since this was asked for last."""
        self._change()
        with self._lock:
            bytes_read = _bytes_read()
            effort = Effort(self._network_s, self._waited_s, self._read_s, bytes_read - self._bytes_before)
            self._network_s = self._waited_s = self._read_s = 0.0
            self._bytes_before = bytes_read
        return effort

    def _change(self, in_work: int = 0, waiting: int = 0) -> None:
        with self._lock:
            now = time.monotonic()
            if self._in_work != self._waiting:
                self._network_s += now - self._last
            elif self._in_work or (self._is_fed and self._is_begun):
                self._waited_s += now - self._last
            self._last = now
            self._in_work += in_work
            self._waiting += waiting
            self._is_begun = True


def _bytes_read() -> int:
    """Return what this process has read from files, as Linux counts it."""
    with suppress(OSError):
        for line in Path("/proc/self/io").read_text().splitlines():
            if line.startswith("rchar:"):
                return int(line.split()[1])
    return 0
