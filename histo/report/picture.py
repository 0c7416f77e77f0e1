"""Write a figure to a PNG file: text is text, never a formula, and legible."""

from collections.abc import Iterable, Mapping

from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.text import Text
from matplotlib.ticker import FixedLocator

from histo.remote.location import AnyPath
from histo.report.letters import SAID, has_glyphs, legible
from histo.store import put_atomic

_COMPRESSION = 3
"""Of PNG, 0 to 9: half the time of matplotlib's 6, and files a tenth larger."""
_LINE_PX = 18
"""Height of the line below a figure."""


def write_picture(
    figure: Figure, target: AnyPath, dpi: int = 110, said: Mapping[str, str] | None = None, names: Iterable[str] = ()
) -> None:
    """Write a figure atomically, and in the file's own text what else is to be said of it.

    A class called `$x^{$` would be read as a formula, and control characters are no part of a picture. Names in letters
    that the font has not are transliterated, and a line at the bottom says so.

    Args:
        figure: The figure.
        target: The file.
        dpi: Pixels per inch.
        said: Text of the file, by key.
        names: Those in the figure that may have been transliterated before, so that their length was known.
    """
    transliterated = not all(map(has_glyphs, names))
    numbers = {label for axis in _axes(figure) if not _is_named(axis) for label in _labels(axis)}
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        if text not in numbers:
            text.set_parse_math(False)
            transliterated |= not has_glyphs(text.get_text())
            text.set_text(legible(text.get_text()))
    for axis in _axes(figure):
        if _is_named(axis):  # the names beside it are written when it is drawn
            names = [label.get_text() for label in axis.get_ticklabels()]
            transliterated |= not all(map(has_glyphs, names))
            axis.set_ticks(axis.get_majorticklocs(), labels=[legible(name) for name in names])
    if transliterated:
        _say_transliterated(figure)
    with put_atomic(target) as file:
        how = {"compress_level": _COMPRESSION}
        figure.savefig(file, dpi=dpi, format="png", metadata=dict(said or {}), pil_kwargs=how)


def _axes(figure: Figure) -> list[Axis]:
    return [axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)]


def _is_named(axis: Axis) -> bool:
    """Whether names stand beside an axis, and not numbers."""
    return isinstance(axis.get_major_locator(), FixedLocator)


def _labels(axis: Axis) -> list[Text]:
    """Return what matplotlib writes beside an axis when it is drawn, powers of ten as formulas."""
    ticks = (*axis.get_major_ticks(), *axis.get_minor_ticks())
    return [axis.get_offset_text(), *(label for tick in ticks for label in (tick.label1, tick.label2))]


def _say_transliterated(figure: Figure) -> None:
    share = _LINE_PX / (figure.get_figheight() * figure.dpi)
    engine = figure.get_layout_engine()
    if isinstance(engine, ConstrainedLayoutEngine):
        engine.set(rect=(0, share, 1, 1 - share))
    figure.text(0.99, share / 5, SAID, ha="right", fontsize=7)
