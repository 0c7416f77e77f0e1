"""Write a figure to a PNG file; what stands in it is text, never a formula."""

from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FixedLocator

from histo.printable import printable_lines
from histo.store import put_atomic


def write_picture(figure: Figure, target: Path, dpi: int = 110) -> None:
    """Write a figure atomically.

    A class called `$x^{$` would be read as a formula, and control characters are no part of a picture.
    """
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        if not _is_a_number(text.get_text()):
            text.set_parse_math(False)
            text.set_text(printable_lines(text.get_text()))
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        if isinstance(axis.get_major_locator(), FixedLocator):  # the names beside it are written when it is drawn
            names = [label.get_text() for label in axis.get_ticklabels()]
            axis.set_ticks(axis.get_majorticklocs(), labels=[printable_lines(name) for name in names])
    with put_atomic(target) as file:
        figure.savefig(file, dpi=dpi, format="png")


def _is_a_number(text: str) -> bool:
    """Whether matplotlib wrote it beside an axis."""
    return text.startswith("$\\mathdefault")
