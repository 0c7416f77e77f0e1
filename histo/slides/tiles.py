"""Pixels of one tile, cut from the slide's one target grid."""

from histo.resample import Pixels, Window
from histo.slides.grid import Grid
from histo.slides.resolution import Sampling
from histo.slides.slide import Reader, Slide
from histo.slides.window import read_window


def read_tile(reader: Reader, slide: Slide, sampling: Sampling, grid: Grid, grid_x: int, grid_y: int) -> Pixels:
    """Read one tile at the target resolution: uint8 RGB, `(size_px, size_px, 3)`, white beyond the slide's edge.

    Raises:
        ReadError: If its pixels cannot be decoded.
    """
    columns = Window(grid_x * grid.stride_px, grid.size_px, sampling.ratio_x)
    rows = Window(grid_y * grid.stride_px, grid.size_px, sampling.ratio_y)
    return read_window(reader, slide, sampling.level, columns, rows)
