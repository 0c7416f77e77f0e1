"""Progress of a run in one line."""

import shutil
import sys
import time
from datetime import datetime
from typing import NamedTuple

from histo.printable import printable
from histo.run.say import put, say

CLEAR = "\r\x1b[K"

_LOG_EVERY_S = 30.0
_TERMINAL_EVERY_S = 0.5
_HALF = 0.5
_GAP = "  "


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

    def show(self, *parts: str) -> None:
        """Show how far the run is; the last parts are left out where a terminal is too narrow for them."""
        self._last = time.monotonic()
        if not self.is_terminal:
            self.stamp(_GAP.join(parts))
            return
        room, shown = shutil.get_terminal_size().columns - 1, list(parts)
        while len(shown) > 1 and len(_GAP.join(shown)) > room:
            shown.pop()
        put(f"{CLEAR}{printable(_GAP.join(shown))[:room]}")

    def stamp(self, text: str) -> None:
        """Print a line that stays; in a log, it begins with the time."""
        now = "" if self.is_terminal else f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S}{_GAP}"
        self.say(f"{now}{text}")

    def say(self, text: str) -> None:
        """Print a line that stays."""
        self.clear()
        say(text)

    def clear(self) -> None:
        """Take the line away, for what others print."""
        if self.is_terminal:
            put(CLEAR)


class Tiles(NamedTuple):
    """Tiles of a run.

    Attributes:
        done: How many are labelled.
        kept: Those among them that an earlier attempt has labelled.
        expected: All that there will be.
        is_estimate: Whether slides are left whose tiles are not known yet.
    """

    done: int
    kept: int
    expected: float
    is_estimate: bool


class Progress:
    """Slides, time left, speed and bottleneck of a label run; in a log, also a line for each slide."""

    def __init__(self, slides: int) -> None:
        self._slides = slides
        self._start = time.monotonic()
        self._first: tuple[float, int] | None = None
        self._line = Line()

    def show(self, slides_done: int, failed: int, tiles: Tiles, waited: float | None) -> None:
        """Print, if it is time to.

        Args:
            slides_done: Slides that are settled.
            failed: Those among them that are failed.
            tiles: Tiles so far, and to come.
            waited: Share of the workers' time in which the network waited for pixels; None as long as it is not known.
        """
        now, new = time.monotonic(), tiles.done - tiles.kept
        if self._first is None and new:
            self._first = (now, new)
        if not self._line.is_due():
            return
        parts = [f"{slides_done} of {self._slides} slides" + (f" ({failed} failed)" if failed else "")]
        rate = self._rate(now, new)
        if self._first is None:
            parts.append(f"waiting for the first tiles for {duration(now - self._start)}")
        elif rate > 0:
            left = duration((tiles.expected - tiles.done) / rate)
            parts += [f"{'at least ' if tiles.is_estimate else ''}{left} left", f"{rate:.1f} tiles/s"]
        if waited is not None:
            parts.append(f"bottleneck: {'reading' if waited >= _HALF else 'classifying'}")
        self._line.show(*parts, *([f"{tiles.done} tiles"] if tiles.done else []))

    def settle(self, text: str) -> None:
        """Print a line for a slide that is done, if lines stay."""
        if not self._line.is_terminal:
            self._line.say(text)

    def say(self, text: str) -> None:
        """Print a line that stays."""
        self._line.say(text)

    def _rate(self, now: float, new: int) -> float:
        """New tiles per second since the first one, so that the start of Ray does not count."""
        if self._first is None or now <= self._first[0]:
            return 0.0
        return (new - self._first[1]) / (now - self._first[0])

    def end(self, tiles: Tiles) -> None:
        """Print the total."""
        kept = f"; {tiles.kept} more were there" if tiles.kept else ""
        self._line.stamp(f"{tiles.done - tiles.kept} tiles in {duration(time.monotonic() - self._start)}{kept}")


class CountProgress:
    """Studies or slides, their rate, and the time left of a run over them.

    Args:
        what: `studies` or `slides`.
        total: Number of all of them.
        done: Number of those that were done before.
    """

    def __init__(self, what: str, total: int, done: int) -> None:
        self._what, self._total, self._before = what, total, done
        self._start = time.monotonic()
        self._line = Line()

    def show(self, done: int) -> None:
        """Print, if it is time to."""
        if not self._line.is_due():
            return
        now = time.monotonic()
        rate = (done - self._before) / (now - self._start)
        parts = [f"{done} of {self._total} {self._what}"]
        if rate:
            parts += [f"{duration((self._total - done) / rate)} left", f"{rate:.2f} {self._what}/s"]
        else:
            parts.append(f"waiting for the first one for {duration(now - self._start)}")
        self._line.show(*parts)

    def say(self, text: str) -> None:
        """Print a line that stays."""
        self._line.say(text)

    def end(self, done: int) -> None:
        """Print the total."""
        self._line.stamp(f"{done - self._before} {self._what} in {duration(time.monotonic() - self._start)}")


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
