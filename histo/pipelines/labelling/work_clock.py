"""Measure a worker's time, and the time that its network waits."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


class Clock:
    """Wall time of a worker that may have several regions in work at once.

    It works while a region is in work, and its network waits while all that are in work wait for pixels.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._in_work = self._waiting = 0
        self._worked_s = self._waited_s = 0.0
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

    def take(self) -> tuple[float, float]:
        """Return the seconds worked, and those waited, since this was asked for last."""
        self._change()
        with self._lock:
            taken = self._worked_s, self._waited_s
            self._worked_s = self._waited_s = 0.0
        return taken

    def _change(self, in_work: int = 0, waiting: int = 0) -> None:
        with self._lock:
            now = time.monotonic()
            if self._in_work:
                self._worked_s += now - self._last
                self._waited_s += (now - self._last) * (self._waiting == self._in_work)
            self._last = now
            self._in_work += in_work
            self._waiting += waiting
