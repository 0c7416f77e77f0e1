"""Read tiles: ask the reader for blocks of the target grid, and cut them."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from histo.resample import Pixels, Window
from histo.slides.grid import Grid, Indices, squares
from histo.slides.readers.base import Place, Reader
from histo.slides.resolution import Sampling
from histo.slides.slide import Slide
from histo.slides.window import read_window

BLOCK_TILES = 8
"""A block is a square of up to 8 x 8 = 64 neighbouring tiles."""
BLOCK_PX = 2048
"""Edge of the largest block, target pixels of its tiles side by side; a tile that is larger is a block of its own."""


def read_tile(reader: Reader, slide: Slide, sampling: Sampling, grid: Grid, grid_x: int, grid_y: int) -> Pixels:
    """Read one tile at the target resolution: uint8 RGB, `(size_px, size_px, 3)`, white beyond the slide's edge.

    Raises:
        ReadError: If its pixels cannot be decoded.
    """
    return read_window(reader, slide, sampling.level, *_place(sampling, grid, grid_x, grid_y))


def read_tiles(
    reader: Reader, slide: Slide, sampling: Sampling, grid: Grid, tile_index: Indices
) -> tuple[Pixels, npt.NDArray[np.bool_]]:
    """Read tiles at the target resolution, each as `read_tile` does; neighbours together take less time.

    Args:
        reader: Decodes the slide's pixels.
        slide: Its description.
        sampling: Which level is read, and how it is reduced.
        grid: All tiles.
        tile_index: Which are read, `(n,)`; all of them are held in memory, so cut more than a few with `cut_blocks`.

    Returns:
        uint8 RGB, `(n, size_px, size_px, 3)`, white beyond the slide's edge, and which tiles cannot be decoded, `(n,)`;
        the pixels of those are zero.
    """
    grid_x, grid_y = grid.places(tile_index)
    places = [_place(sampling, grid, x, y) for x, y in zip(grid_x.tolist(), grid_y.tolist(), strict=True)]
    tiles = np.empty((len(places), grid.size_px, grid.size_px, 3), np.uint8)
    errors = reader.read_windows(slide.levels[sampling.level], places, list(tiles))
    bad = np.array([error is not None for error in errors], np.bool_)
    tiles[bad] = 0
    return tiles, bad


def cut_blocks(grid: Grid, tile_index: Indices) -> Iterator[Indices]:
    """Group tiles into blocks of up to 8 x 8 neighbours, to be read in one go and in bounded memory.

    Args:
        grid: All tiles.
        tile_index: Some of them, `(n,)`.

    Yields:
        Positions in `tile_index`, ascending; each is in one block.
    """
    edge = min(BLOCK_TILES, max(1, BLOCK_PX // grid.size_px))
    for _, positions in squares(grid, tile_index, edge):
        yield positions


def _place(sampling: Sampling, grid: Grid, grid_x: int, grid_y: int) -> Place:
    return (
        Window(grid_x * grid.stride_px, grid.size_px, sampling.ratio_x),
        Window(grid_y * grid.stride_px, grid.size_px, sampling.ratio_y),
    )
