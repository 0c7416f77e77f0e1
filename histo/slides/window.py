"""Pixels of any window of a slide's target grid."""

from histo.resample import Pixels, Window, resample
from histo.slides.slide import Reader, Slide


def read_window(reader: Reader, slide: Slide, level: int, columns: Window, rows: Window) -> Pixels:
    """Read one level of a slide and average it onto a window of a target grid.

    Args:
        reader: Decodes the slide's pixels.
        slide: Its description.
        level: Index of the level that is read.
        columns: The window along x; its ratio is level pixels per target pixel.
        rows: The window along y.

    Returns:
        uint8 RGB, `(rows.count, columns.count, 3)`; white beyond the slide's edge.

    Raises:
        ReadError: If its pixels cannot be decoded.
    """
    (left, right), (top, bottom) = columns.source_span(), rows.source_span()
    pixels = reader.read(slide.levels[level], left, top, right - left, bottom - top)
    return resample(pixels, columns, rows)
