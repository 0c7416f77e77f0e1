"""Tell empty file blocks left out on purpose from lost ones.

Scanners and converters leave out blocks of glass: the file gives them neither place nor length. A writer that fails
leaves out tissue in the same way, and only a coarser level can tell the two apart.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import NamedTuple

import numpy as np

from histo.errors import ReadError
from histo.resample import Window
from histo.slides.readers.base import Blocks, Level, Reader, pack_blocks
from histo.slides.readers.tiff_index import spread_empty
from histo.slides.slide import Slide
from histo.slides.tissue import (
    MOST_CELLS,
    Mask,
    Range,
    Thumbnail,
    any_in,
    fill_places,
    glass_of,
    level_under,
    read_level,
    stained,
    unknown_thumbnail,
)

EVIDENCE_MPP = 8.0
"""Resolution at which tissue is sought at the place of an empty block (µm/px), or that of a level which is coarser."""
RIM_PX = 8
"""Pixels of a level along a block's edge where its tissue is not told from a neighbour's, whose colour JPEG spreads."""


def judge(slide: Slide, reader: Reader) -> Slide:
    """Decide which empty blocks were left out on purpose, and are white.

    They are those without place and length, at whose place a coarser level shows no
    tissue. All other empty blocks are lost: readers raise `ReadError` for what touches them.

    Args:
        slide: Its description, as it was opened.
        reader: Decodes its pixels.
    """
    if not any(level.empty for level in slide.levels):
        return slide
    evidence = _Evidence(slide, reader.stored)
    levels = tuple(replace(level, blank=pack_blocks(evidence.blank(level)), omitted="") for level in slide.levels)
    return replace(slide, levels=levels)


def as_shown(slide: Slide, reader: Reader) -> Slide:
    """Count as lost, of a slide that is judged, also the blocks that a reader makes of lost ones of finer levels."""
    return slide if reader.stored is reader else replace(slide, levels=spread_empty(slide.levels))


class _Seen(NamedTuple):
    """What a level shows at the blocks of a finer one, `(rows, columns)` each; what is none of these it does not show.

    Attributes:
        glass: No tissue.
        tissue: Tissue, farther within than the coding of the level carries colour.
        rim: No tissue that far within, but at the edge, where a neighbour's colour cannot be told from the block's own.
    """

    glass: Blocks
    tissue: Blocks
    rim: Blocks


class _Evidence:
    """What the levels of a slide show.

    Args:
        slide: Its description.
        stored: Shows the levels as they are stored, if something does.
    """

    def __init__(self, slide: Slide, stored: Reader | None) -> None:
        self._slide, self._stored = slide, stored
        area_um2 = slide.width * slide.mpp_x * slide.height * slide.mpp_y
        self._mpp = max(EVIDENCE_MPP, 1.6 * (area_um2 / MOST_CELLS) ** 0.5)  # where cells are rounded to smaller ones
        self._first = level_under(slide, self._mpp).index
        self._thumbnail = cache(self._read_whole)

    def blank(self, level: Level) -> Blocks:
        """Find the blocks of a level that were left out on purpose."""
        open_ones = level.unpack(level.omitted)
        blank, rim = np.zeros((2, *open_ones.shape), np.bool_)
        for coarser in self._coarser(level):
            if not open_ones.any():
                break
            seen = self._look(level, coarser, open_ones)
            blank |= open_ones & seen.glass
            rim |= open_ones & seen.rim
            open_ones &= ~(seen.glass | seen.tissue)
        return np.asarray(blank | rim & open_ones)

    def _coarser(self, level: Level) -> Iterator[Level]:
        """Yield the coarser levels in the order in which they are asked: first those that are read in no time."""
        coarser = self._slide.levels[level.index + 1 :] if self._stored else ()
        yield from (other for other in coarser if other.index >= self._first)
        yield from (other for other in reversed(coarser) if other.index < self._first)

    def _look(self, level: Level, coarser: Level, blocks: Blocks) -> _Seen:
        """See what a coarser level shows at some of the blocks of a level."""
        whole = coarser.index >= self._first
        thumbnail = self._thumbnail(coarser.index) if whole else self._read_places(level, coarser, blocks)
        if thumbnail is None:
            return _Seen(*np.zeros((3, *blocks.shape), np.bool_))
        overview = self._thumbnail(self._first)
        tissue, _ = stained(thumbnail, None if overview is None else glass_of(overview))
        return _see(level, coarser, thumbnail, tissue)

    def _read_whole(self, index: int) -> Thumbnail | None:
        """Return a thumbnail of a level; None if it cannot be read."""
        assert self._stored is not None, "without a reader no level is asked"
        try:
            return read_level(self._stored, self._slide, self._slide.levels[index], self._mpp)
        except ReadError:
            return None

    def _read_places(self, level: Level, coarser: Level, blocks: Blocks) -> Thumbnail:
        """Return a thumbnail of a coarser level that is known at the places of some blocks."""
        assert self._stored is not None, "without a reader no level is asked"
        thumbnail = unknown_thumbnail(self._slide, coarser, self._mpp)
        rows, columns = _ranges(level, thumbnail)
        ratio_x, ratio_y = (round(cell / coarser.downsample) for cell in (thumbnail.cell_width, thumbnail.cell_height))
        fill_places(
            thumbnail,
            self._stored,
            coarser,
            [
                (x, y)
                for row, column in np.argwhere(blocks).tolist()
                if (x := _window(columns, column, ratio_x)) and (y := _window(rows, row, ratio_y))
            ],
        )
        return thumbnail


def _window(ranges: Range, number: int, ratio: int) -> Window | None:
    first, last = int(ranges[0][number]), int(ranges[1][number])
    return Window(first, last - first, ratio) if first < last else None


def _see(level: Level, coarser: Level, thumbnail: Thumbnail, tissue: Mask) -> _Seen:
    """See what a thumbnail of a coarser level shows at the blocks of a level."""
    whole, inner = _ranges(level, thumbnail), _ranges(level, thumbnail, RIM_PX * coarser.downsample)
    with_tissue, with_unknown = (any_in(mask, *whole) for mask in (tissue, thumbnail.unknown))
    inner_tissue, inner_unknown = (any_in(mask, *inner) for mask in (tissue, thumbnail.unknown))
    is_seen, is_inner_seen = _exist(*whole) & ~with_unknown, _exist(*inner) & ~inner_unknown
    return _Seen(is_seen & ~with_tissue, inner_tissue, is_inner_seen & ~inner_tissue & with_tissue)


def _ranges(level: Level, thumbnail: Thumbnail, rim: float = 0) -> tuple[Range, Range]:
    """Return for each row and each column of a level's blocks the pixels of a thumbnail that lie within.

    Args:
        level: The level.
        thumbnail: Of a coarser level.
        rim: Level-0 pixels that are left out along each edge.
    """
    height, width = thumbnail.unknown.shape
    block_height, block_width = (edge * level.downsample for edge in (level.block_height, level.block_width))
    return (
        _cells(level.down, block_height / thumbnail.cell_height, height, rim / thumbnail.cell_height),
        _cells(level.across, block_width / thumbnail.cell_width, width, rim / thumbnail.cell_width),
    )


def _cells(blocks: int, size: float, cells: int, rim: float) -> Range:
    """Return the first pixel of a thumbnail that lies within each block along one axis, and the one behind the last.

    Pixels that reach into a neighbour would show the neighbour's tissue. A block at the slide's end may hold a part
    of a pixel only, and then has that one.

    Args:
        blocks: Number of blocks.
        size: Edge of a block, pixels of the thumbnail.
        cells: Number of pixels of the thumbnail.
        rim: Pixels that are left out along each edge; where that is more than a sixth of it, there is no pixel.
    """
    edges = np.arange(blocks + 1) * size
    last = np.clip(np.floor(edges[1:] - rim + 1e-6).astype(np.int64), 0, cells)
    if size < max(1, 6 * rim):  # the thumbnail is too coarse
        return last, last
    if not rim:
        last[-1] = cells
    first = np.minimum(np.ceil(edges[:-1] + rim - 1e-6).astype(np.int64), cells - 1)
    return np.minimum(first, last), last


def _exist(rows: Range, columns: Range) -> Blocks:
    """Tell which blocks have any pixel."""
    return np.asarray((rows[1] > rows[0])[:, None] & (columns[1] > columns[0]))
