"""Resample windows of a grid from file blocks, each block decoded once.

Where the ratio divides the edges of the file blocks, each block is averaged as soon as it is decoded, and goes
straight into every window that it touches. Otherwise the pixels of the level are put together for each window, and
resampled when the last of its blocks is there. Blocks are taken row by row, so that few windows are incomplete.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from histo.errors import ReadError
from histo.resample import Pixels, Window, block_means, resample, whole_blocks
from histo.slides.readers.base import Level, Place


class FileBlocks(Protocol):
    """The compressed blocks of a slide's file."""

    def block_size(self, level: Level) -> tuple[int, int]:
        """Return width and height of a level's file blocks, pixels of the level."""

    def decode_block(self, level: Level, column: int, row: int, out: Pixels) -> None:
        """Decode one file block into an array `(height, width, 3)`; what of it lies beyond the level is white.

        Raises:
            ReadError: If it cannot be decoded; what the array then holds is undefined.
        """


def fill_windows(
    source: FileBlocks, level: Level, places: Sequence[Place], targets: Sequence[Pixels]
) -> list[ReadError | None]:
    """See `Reader.read_windows`."""
    size = source.block_size(level)
    ratios = _block_ratios(places[0], size) if places else None
    patches = [_Patch(*place, target, ratios) for place, target in zip(places, targets, strict=True)]
    block = np.empty((size[1], size[0], 3), np.uint8)
    for (row, column), touched in _visits(level, size, patches):
        waiting = [patch for patch in touched if patch.error is None]
        if not waiting:
            continue
        try:
            source.decode_block(level, column, row, block)
        except ReadError as error:
            for patch in waiting:
                patch.give_up(error)
            continue
        across, down = ratios or (1, 1)
        pixels = block if across == down == 1 else block_means(block, across, down)
        for patch in waiting:
            patch.paste(pixels, column * size[0] // across, row * size[1] // down)
    return [patch.error for patch in patches]


def _block_ratios(place: Place, size: tuple[int, int]) -> tuple[int, int] | None:
    """Return the ratios by which a decoded file block can be averaged by itself; None if it has to be cut."""
    columns, rows = place
    if not whole_blocks(columns, rows) or size[0] % columns.ratio or size[1] % rows.ratio:
        return None
    return int(columns.ratio), int(rows.ratio)


class _Patch:
    """A window that is being filled. Its canvas is its target, or holds the level's pixels until they are resampled.

    Attributes:
        error: Why it cannot be filled.
        missing: Number of file blocks that it waits for.
    """

    def __init__(self, columns: Window, rows: Window, target: Pixels, ratios: tuple[int, int] | None) -> None:
        self.columns, self.rows, self._target = columns, rows, target
        self._averaged = ratios is not None
        self._left, self._top = (window.start if ratios else window.source_span()[0] for window in (columns, rows))
        self._canvas: Pixels | None = target if ratios else None
        self.error: ReadError | None = None
        self.missing = 0
        target.fill(255)

    def paste(self, pixels: Pixels, x: int, y: int) -> None:
        """Take over what is its own of a block of pixels at `(x, y)` of the canvas's grid."""
        if self._canvas is None:
            (left, right), (top, bottom) = self.columns.source_span(), self.rows.source_span()
            self._canvas = np.full((bottom - top, right - left, 3), 255, np.uint8)
        height, width = self._canvas.shape[:2]
        x, y = x - self._left, y - self._top
        left, right = max(0, x), min(width, x + pixels.shape[1])
        top, bottom = max(0, y), min(height, y + pixels.shape[0])
        self._canvas[top:bottom, left:right] = pixels[top - y : bottom - y, left - x : right - x]
        self.missing -= 1
        if self.missing == 0 and not self._averaged:
            self._target[:] = resample(self._canvas, self.columns, self.rows)
            self._canvas = None

    def give_up(self, error: ReadError) -> None:
        """Have no more pixels."""
        self.error, self._canvas = error, None


def _visits(
    level: Level, size: tuple[int, int], patches: Sequence[_Patch]
) -> list[tuple[tuple[int, int], list[_Patch]]]:
    """List the file blocks under windows, `(row, column)` row by row, and for each the windows that it touches."""
    visits: dict[tuple[int, int], list[_Patch]] = {}
    for patch in patches:
        columns = _blocks_along(patch.columns, level.width, size[0])
        rows = _blocks_along(patch.rows, level.height, size[1])
        patch.missing = len(columns) * len(rows)
        for row in rows:
            for column in columns:
                visits.setdefault((row, column), []).append(patch)
    return sorted(visits.items(), key=lambda visit: visit[0])


def _blocks_along(window: Window, extent: int, edge: int) -> range:
    """Return the file blocks that lie under a window along one axis."""
    first, last = window.source_span()
    first, last = max(0, first), min(extent, last)
    return range(first // edge, -(-last // edge)) if first < last else range(0)
