"""Empty file blocks of a slide: those that were left out on purpose are white, all others are damage.

Scanners and converters leave out blocks of glass: the file gives them neither place nor length. A writer that fails
leaves out tissue in the same way, and only a coarser level can tell the two apart.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import numpy as np

from histo.errors import Cause, ReadError, SlideError
from histo.slides.block_index import spread_empty
from histo.slides.reader import Blocks, Level, Reader, pack_blocks
from histo.slides.slide import Slide
from histo.slides.tissue import Mask, Range, Thumbnail, any_in, level_under, read_level, stained

EVIDENCE_MPP = 8.0
"""Resolution at which tissue is sought at the place of an empty block (µm/px), or that of a level which is coarser."""


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


class _Evidence:
    """What the levels of a slide show; each is read at most once.

    Args:
        slide: Its description.
        stored: Shows the levels as they are stored, if something does.
    """

    def __init__(self, slide: Slide, stored: Reader | None) -> None:
        self._slide, self._stored = slide, stored
        self._tissue_of = cache(self._find_tissue)

    def blank(self, level: Level) -> Blocks:
        """Find the blocks of a level that were left out on purpose."""
        undecided, blank = level.unpack(level.omitted), level.unpack("")
        for coarser in self._coarser(level):
            if not undecided.any():
                break
            if (seen := self._tissue_of(coarser.index)) is not None:
                tissue, glass = _look(level, *seen)
                blank |= undecided & glass & ~tissue
                undecided &= ~(tissue | glass)
        return blank

    def _coarser(self, level: Level) -> Iterator[Level]:
        """Yield the coarser levels in the order in which they are asked: those that are quickly read come first."""
        first = level_under(self._slide, EVIDENCE_MPP).index
        coarser = self._slide.levels[level.index + 1 :]
        yield from (other for other in coarser if other.index >= first)
        yield from (other for other in reversed(coarser) if other.index < first)

    def _find_tissue(self, index: int) -> tuple[Thumbnail, Mask] | None:
        """Return a thumbnail of a level, and where it shows tissue; None if it cannot be read."""
        if self._stored is None:
            return None
        try:
            thumbnail = read_level(self._stored, self._slide, self._slide.levels[index], EVIDENCE_MPP)
        except ReadError:
            return None
        except SlideError as error:
            if error.cause is Cause.MASK_TOO_LARGE:
                return None
            raise
        return thumbnail, stained(thumbnail)[0]


def _look(level: Level, thumbnail: Thumbnail, tissue: Mask) -> tuple[Blocks, Blocks]:
    """Tell at which of a level's blocks a thumbnail shows tissue, and at which it is known whole and shows none."""
    rows = _cells(level.down, level.block_height * level.downsample / thumbnail.cell_height, len(tissue))
    columns = _cells(level.across, level.block_width * level.downsample / thumbnail.cell_width, tissue.shape[1])
    with_tissue, unknown = (any_in(mask, rows, columns) for mask in (tissue, thumbnail.unknown))
    is_seen = (rows[1] > rows[0])[:, None] & (columns[1] > columns[0])
    return with_tissue, is_seen & ~unknown & ~with_tissue


def _cells(blocks: int, size: float, cells: int) -> Range:
    """Return the first pixel of a thumbnail that lies within each block along one axis, and the one behind the last.

    Pixels that reach into a neighbour would show the neighbour's tissue. A block at the slide's end may hold a part
    of a pixel only, and then has that one.

    Args:
        blocks: Number of blocks.
        size: Edge of a block, pixels of the thumbnail; below 1 the thumbnail is too coarse, and no pixel is returned.
        cells: Number of pixels of the thumbnail.
    """
    edges = np.arange(blocks + 1) * size
    last = np.clip(np.floor(edges[1:] + 1e-6).astype(np.int64), 0, cells)
    last[-1] = cells
    first = np.minimum(np.ceil(edges[:-1] - 1e-6).astype(np.int64), cells - 1) if size >= 1 else last
    return np.minimum(first, last), last
