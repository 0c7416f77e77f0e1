"""Compare two readers at the same places before one of them is trusted."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from histo.errors import ReadError
from histo.slides.readers.base import Level
from histo.slides.readers.openslide import OpenSlideReader
from histo.slides.readers.tiff import DirectReader
from histo.slides.readers.tiff_index import UnsuitedError

MOST_DIFFERENCE = 2
"""Grey levels by which decoders of one format may differ."""
PROBE_PX = 64
"""Edge of a probe, pixels of the level; it lies within one file block."""
RICH, SPREAD = 3, 2
"""Probes of each level: in the blocks of most bytes, which show most, and in others spread over the level."""
ALIGNED = 1 / 256
"""Distance of a pixel of a level from the place that OpenSlide takes for it, below which it does not interpolate."""


def compare(direct: DirectReader, reference: OpenSlideReader, levels: Sequence[Level]) -> None:
    """Compare a few places of each level; those that either reader cannot decode, or that are empty, are passed over.

    Raises:
        UnsuitedError: If a place differs or is left to OpenSlide, or if none of a level could be compared.
        InputError: If the file cannot be read.
    """
    compared_levels = 0
    for level in levels:
        if level.empty and level.lost_blocks.all():
            continue
        compared = False
        for x, y, width, height in _places(direct, level, reference.handle.level_downsamples[level.index]):
            try:
                ours, theirs = (reader.read(level, x, y, width, height) for reader in (direct, reference))
            except ReadError:
                continue
            finally:
                _refuse_foreign(direct, level, x, y)
            difference = np.abs(ours.astype(np.int16) - theirs).max()
            if difference > MOST_DIFFERENCE:
                raise UnsuitedError(f"level {level.index} at ({x}, {y}): differs from OpenSlide by {difference} levels")
            compared = True
        if not compared:
            raise UnsuitedError(f"level {level.index}: no place was found that both readers decode, to compare them")
        compared_levels += 1
    if not compared_levels:
        raise UnsuitedError("all of its blocks are empty")


def _refuse_foreign(direct: DirectReader, level: Level, x: int, y: int) -> None:
    if direct.foreign:
        raise UnsuitedError(f"level {level.index} at ({x}, {y}): {direct.foreign}")


def _places(direct: DirectReader, level: Level, downsample: float) -> Iterator[tuple[int, int, int, int]]:
    """Yield rectangles of one level, `(x, y, width, height)`, that OpenSlide reads pixel by pixel."""
    width, height = direct.block_size(level)
    xs, ys = _aligned(level.width, width, downsample), _aligned(level.height, height, downsample)
    known = np.where(level.lost_blocks, 0, direct.block_bytes(level)) if level.empty else direct.block_bytes(level)
    lengths = known[np.ix_(ys // height, xs // width)].ravel()
    richest = np.argsort(-lengths, kind="stable")[: np.count_nonzero(lengths > 0)]
    others = richest[RICH :: max(1, (len(richest) - RICH) // SPREAD)][:SPREAD]
    for number in [*richest[:RICH].tolist(), *others.tolist()]:
        x, y = int(xs[number % len(xs)]), int(ys[number // len(xs)])
        right, bottom = min(level.width, (x // width + 1) * width), min(level.height, (y // height + 1) * height)
        yield x, y, min(PROBE_PX, right - x), min(PROBE_PX, bottom - y)


def _aligned(extent: int, edge: int, downsample: float) -> npt.NDArray[np.int64]:
    """Choose in each file block along one axis a pixel that OpenSlide finds exactly, near a quarter of the block."""
    place = np.arange(extent) * downsample
    exact = np.flatnonzero(np.abs(place - np.round(place)) <= ALIGNED * downsample)
    first = np.arange(0, extent, edge)
    near = exact[np.minimum(np.searchsorted(exact, np.minimum(first + edge // 4, extent - 1)), len(exact) - 1)]
    return np.unique(near)
