"""One plain line that says how far a label run is."""

import sys
import time

CLEAR = "\r\x1b[K"

_LOG_EVERY_S = 30.0
_TERMINAL_EVERY_S = 0.5


class Progress:
    """Prints slides, tiles, tiles per second and time left: a rewritten line on a terminal, else one now and then."""

    def __init__(self, slides: int) -> None:
        self._slides = slides
        self._start = time.monotonic()
        self._first: tuple[float, int] | None = None
        self._last = self._start
        self._terminal = sys.stdout.isatty()

    def show(self, slides_done: int, tiles_done: int, tiles_expected: float) -> None:
        """Print, if it is time to."""
        now = time.monotonic()
        if self._first is None and tiles_done:
            self._first = (now, tiles_done)
        if now - self._last < (_TERMINAL_EVERY_S if self._terminal else _LOG_EVERY_S):
            return
        self._last = now
        rate = self._rate(now, tiles_done)
        left = _duration((tiles_expected - tiles_done) / rate) if rate else "unknown time"
        line = f"{slides_done}/{self._slides} slides  {tiles_done} tiles  {rate:.1f} tiles/s  {left} left"
        print(f"{CLEAR}{line}" if self._terminal else line, end="" if self._terminal else "\n", flush=True)

    def _rate(self, now: float, tiles_done: int) -> float:
        """Tiles per second since the first tile, so that the start of Ray does not count."""
        if self._first is None or now <= self._first[0]:
            return 0.0
        return (tiles_done - self._first[1]) / (now - self._first[0])

    def end(self, tiles_done: int) -> None:
        """Print the total."""
        seconds = time.monotonic() - self._start
        print(f"{CLEAR if self._terminal else ''}{tiles_done} tiles in {_duration(seconds)}", flush=True)


def _duration(seconds: float) -> str:
    """Say a time span.

    Examples:
        >>> _duration(75), _duration(7300)
        ('1 min 15 s', '2 h 1 min')
    """
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
