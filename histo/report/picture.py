"""Write a figure to a PNG file, its text as text, never as a formula."""

from collections.abc import Mapping
from pathlib import Path

from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FixedLocator

from histo.printable import printable_lines
from histo.store import put_atomic


def write_picture(figure: Figure, target: Path, dpi: int = 110, said: Mapping[str, str] | None = None) -> None:
    """Write a figure atomically, and in the file's own text what else is to be said of it.

    A class called `$x^{$` would be read as a formula, and control characters are no part of a picture.
    """
    numbers = {label for axis in _axes(figure) if not _is_named(axis) for label in _labels(axis)}
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        if text not in numbers:
            text.set_parse_math(False)
            text.set_text(printable_lines(text.get_text()))
    for axis in _axes(figure):
        if _is_named(axis):  # the names beside it are written when it is drawn
            names = [label.get_text() for label in axis.get_ticklabels()]
            axis.set_ticks(axis.get_majorticklocs(), labels=[printable_lines(name) for name in names])
    with put_atomic(target) as file:
        figure.savefig(file, dpi=dpi, format="png", metadata=dict(said or {}))


def _axes(figure: Figure) -> list[Axis]:
    return [axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)]


def _is_named(axis: Axis) -> bool:
    """Whether names stand beside an axis, and not numbers."""
    return isinstance(axis.get_major_locator(), FixedLocator)


def _labels(axis: Axis) -> list[Text]:
    """Return what matplotlib writes beside an axis when it is drawn, powers of ten as formulas."""
    ticks = (*axis.get_major_ticks(), *axis.get_minor_ticks())
    return [axis.get_offset_text(), *(label for tick in ticks for label in (tick.label1, tick.label2))]
