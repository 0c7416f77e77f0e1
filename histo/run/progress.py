"""Progress of a run in one line."""

import shutil
import sys
import time

from histo.printable import printable
from histo.run.say import put, say

CLEAR = "\r\x1b[K"

_LOG_EVERY_S = 30.0
_TERMINAL_EVERY_S = 0.5
_HALF = 0.5


class Line:
    """The last line of a terminal, which is written again and again; elsewhere a plain line now and then.

    Attributes:
        is_terminal: Whether it is one.
    """

    def __init__(self) -> None:
        self.is_terminal = bool(sys.stdout and sys.stdout.isatty())  # there is none where it was closed
        self._last = time.monotonic()

    def is_due(self) -> bool:
        """Say whether it is time to show something."""
        return time.monotonic() - self._last >= (_TERMINAL_EVERY_S if self.is_terminal else _LOG_EVERY_S)

    def show(self, text: str) -> None:
        """Show how far the run is."""
        self._last = time.monotonic()
        if self.is_terminal:
            put(f"{CLEAR}{printable(text)[: shutil.get_terminal_size().columns - 1]}")
        else:
            say(text)

    def say(self, text: str) -> None:
        """Print a line that stays."""
        self.clear()
        say(text)

    def clear(self) -> None:
        """Take the line away, for what others print."""
        if self.is_terminal:
            put(CLEAR)


class Progress:
    """Slides, tiles, speed, time left and bottleneck of a label run; in a log, also a line for each slide."""

    def __init__(self, slides: int) -> None:
        self._slides = slides
        self._start = time.monotonic()
        self._first: tuple[float, int] | None = None
        self._line = Line()

    def show(self, slides_done: int, failed: int, tiles_done: int, tiles_expected: float, waited: float | None) -> None:
        """Print, if it is time to.

        Args:
            slides_done: Slides that are settled.
            failed: Those among them that are failed.
            tiles_done: Tiles that are labelled.
            tiles_expected: An estimate of all tiles.
            waited: Share of the workers' time in which the network waited for pixels; None as long as it is not known.
        """
        now = time.monotonic()
        if self._first is None and tiles_done:
            self._first = (now, tiles_done)
        if not self._line.is_due():
            return
        rate = self._rate(now, tiles_done)
        left = duration((tiles_expected - tiles_done) / rate) if rate else "unknown time"
        parts = [f"{slides_done}/{self._slides} slides", *([f"{failed} failed"] if failed else [])]
        parts += [f"{tiles_done} tiles", f"{rate:.1f} tiles/s", f"{left} left"]
        parts += [] if waited is None else [f"bottleneck: {'reading' if waited >= _HALF else 'network'}"]
        self._line.show("  ".join(parts))

    def settle(self, slide_id: str, status: str, tiles: int | None) -> None:
        """Print a line for a slide that is done, if lines stay."""
        if not self._line.is_terminal:
            self._line.say(f"{slide_id}: {status}" + (f", {tiles} tiles" if tiles else ""))

    def say(self, text: str) -> None:
        """Print a line that stays."""
        self._line.say(text)

    def _rate(self, now: float, tiles_done: int) -> float:
        """Tiles per second since the first tile, so that the start of Ray does not count."""
        if self._first is None or now <= self._first[0]:
            return 0.0
        return (tiles_done - self._first[1]) / (now - self._first[0])

    def end(self, tiles_done: int) -> None:
        """Print the total."""
        self._line.say(f"{tiles_done} tiles in {duration(time.monotonic() - self._start)}")


class StudyProgress:
    """Studies, studies per second and time left of a run over studies.

    Args:
        studies: Number of all of them.
        done: Number of those that were done before.
    """

    def __init__(self, studies: int, done: int) -> None:
        self._studies, self._before = studies, done
        self._start = time.monotonic()
        self._line = Line()

    def show(self, done: int) -> None:
        """Print, if it is time to."""
        if not self._line.is_due():
            return
        rate = (done - self._before) / (time.monotonic() - self._start)
        left = duration((self._studies - done) / rate) if rate else "unknown time"
        self._line.show(f"{done}/{self._studies} studies  {rate:.2f} studies/s  {left} left")

    def say(self, text: str) -> None:
        """Print a line that stays."""
        self._line.say(text)

    def end(self, done: int) -> None:
        """Print the total."""
        self._line.say(f"{done - self._before} studies in {duration(time.monotonic() - self._start)}")


def duration(seconds: float) -> str:
    """Say a time span.

    Examples:
        >>> duration(75), duration(7300)
        ('1 min 15 s', '2 h 1 min')
    """
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
