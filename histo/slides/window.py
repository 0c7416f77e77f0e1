"""Read any window of the target grid: ask the reader, and pad with white."""

import numpy as np

from histo.resample import Pixels, Window
from histo.slides.readers.base import Reader
from histo.slides.slide import Slide


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
    pixels = np.empty((rows.count, columns.count, 3), np.uint8)
    (error,) = reader.read_windows(slide.levels[level], [(columns, rows)], [pixels])
    if error is not None:
        raise error
    return pixels
