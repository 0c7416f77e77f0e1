"""Print lines; a name from outside cannot steer the terminal.

A run's results are in files, so that it goes on where nobody takes its lines any more: a pipe that was closed, a
terminal that is gone, a log whose disk is full.
"""

import os
import sys
from contextlib import suppress
from typing import TextIO

from histo.printable import printable_lines


def say(text: object) -> None:
    """Print a line, or several, at once."""
    put(f"{printable_lines(str(text))}\n")


def complain(text: str) -> None:
    """Print an error, a line or several, last of all; where nobody takes it, the exit code tells."""
    put("")  # what a library printed may wait to be written
    try:
        print(printable_lines(text), file=sys.stderr, flush=True)
    except OSError:
        _print_no_more(sys.stderr)


def put(text: str) -> None:
    """Print text as it is, at once."""
    try:
        print(text, end="", flush=True)
    except OSError:
        _print_no_more(sys.stdout)


def _print_no_more(stream: TextIO) -> None:
    """Have what is printed go nowhere from now on, also what is printed when the process ends."""
    with suppress(OSError), open(os.devnull, "wb") as nowhere:  # noqa: PTH123 -- a name, not a path
        os.dup2(nowhere.fileno(), stream.fileno())
