"""What runs print: lines in which no name from outside can steer the terminal."""

from histo.printable import printable_lines


def say(text: object) -> None:
    """Print a line, or several, at once."""
    print(printable_lines(str(text)), flush=True)
