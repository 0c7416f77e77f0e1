"""Resample windows of a grid from file blocks, each block decoded once.

Where the ratio divides the edges of the file blocks, each block is averaged as soon as it is decoded, and goes
straight into every window that it touches. Otherwise the pixels of the level are put together for each window, and
resampled when the last of its blocks is there. Blocks are taken row by row, so that few windows are incomplete.

Blocks at the border of the windows are kept for those beside them.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from histo.errors import ReadError
from histo.resample import Pixels, Window, block_means, resample, whole_blocks
from histo.slides.readers.base import Level, Place
from histo.slides.readers.kept_blocks import KeptBlocks, Key


class FileBlocks(Protocol):
    """The compressed blocks of a slide's file.

    Attributes:
        kept: Those that were decoded and are needed again.
    """

    kept: KeptBlocks

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
    across, down = ratios or (1, 1)
    border = _Border(source.kept, level, size, places)
    block = np.empty((size[1], size[0], 3), np.uint8)
    for (row, column), touched in _visits(level, size, patches):
        waiting = [patch for patch in touched if patch.error is None]
        if not waiting:
            continue
        key = (level.index, row, column, across, down)
        pixels = border.get(key)
        if pixels is None:
            try:
                source.decode_block(level, column, row, block)
            except ReadError as error:
                for patch in waiting:
                    patch.give_up(error)
                continue
            pixels = block if across == down == 1 else block_means(block, across, down)
            if border.keep(key, pixels) and pixels is block:
                block = np.empty_like(block)
        for patch in waiting:
            patch.paste(pixels, column * size[0] // across, row * size[1] // down)
    return [patch.error for patch in patches]


class _Border:
    """The border of some windows: file blocks that reach over it are needed again by the windows beside them.

    What is read goes to the right and then down, so those at the right and at the bottom are kept.
    """

    def __init__(self, kept: KeptBlocks, level: Level, size: tuple[int, int], places: Sequence[Place]) -> None:
        self._kept = kept
        self._left, self._right = _end_blocks([columns for columns, _ in places], level.width, size[0])
        self._top, self._bottom = _end_blocks([rows for _, rows in places], level.height, size[1])

    def get(self, key: Key) -> Pixels | None:
        """Return the pixels of a block, if it was kept."""
        _, row, column, *_ = key
        if column in (self._left, self._right) or row in (self._top, self._bottom):
            return self._kept.get(key)
        return None

    def keep(self, key: Key, pixels: Pixels) -> bool:
        """Keep a block if it is needed again; returns whether it is."""
        _, row, column, *_ = key
        is_needed = column == self._right or row == self._bottom
        if is_needed:
            self._kept.put(key, pixels)
        return is_needed


def _end_blocks(windows: Sequence[Window], extent: int, edge: int) -> tuple[int, int | None]:
    """Return the first file block under windows along an axis, and the last, unless those beside them do not need it.

    Windows beside each other share a pixel, unless their ratio is whole.
    """
    spans = [window.source_span() for window in windows]
    first, last = min((first for first, _ in spans), default=0), max((last for _, last in spans), default=0)
    is_shared = last <= extent and (last % edge > 0 or any(window.ratio % 1 for window in windows))
    return max(0, first) // edge, (last - 1) // edge if is_shared else None


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
