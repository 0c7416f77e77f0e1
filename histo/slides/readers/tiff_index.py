"""Index of a tiled TIFF: offset, length and coding of its file blocks.

tifffile reads the directories; it is asked for nothing else.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import tifffile

from histo.errors import Cause, SlideError
from histo.input_files import readable_file
from histo.slides.readers.base import Level, pack_blocks

Table = npt.NDArray[np.int64]
JPEG, APERIO_YCBCR, APERIO_RGB = 7, 33003, 33005
"""Codes of compressions; both of Aperio's are JPEG 2000 codestreams. OpenSlide opens no other JPEG 2000 in a TIFF."""
MOST_BLOCK_PX = 2**24
"""Pixels of the largest file block that is decoded as a whole."""
MOST_BLOCKS = 2**26
"""File blocks of the largest level whose empty ones are sought."""
RGB, YCBCR = 2, 6
"""Codes of colours."""


class UnsuitedError(Exception):
    """A file is not one that can be read directly; the message says why."""


@dataclass(frozen=True)
class BlockIndex:
    """The file blocks of one level.

    Attributes:
        block_width: Pixels of the level.
        block_height: Likewise.
        offsets: Where each block begins in the file, `(rows, columns)`, bytes.
        counts: How many bytes each has.
        compression: `JPEG`, `APERIO_YCBCR` or `APERIO_RGB`.
        is_rgb: Whether the coded colours are red, green and blue, not luminance and two differences.
        tables: JPEG tables that all blocks share, a JPEG stream of its own.
    """

    block_width: int
    block_height: int
    offsets: Table
    counts: Table
    compression: int
    is_rgb: bool
    tables: bytes


@dataclass(frozen=True)
class _Page:
    """What a directory says, not yet believed."""

    width: int
    height: int
    block_width: int
    block_height: int
    compression: int
    colours: int
    contiguous: bool
    depth: tuple[int, ...]
    offsets: Table
    counts: Table
    tables: bytes

    @property
    def across(self) -> int:
        """Number of blocks along x."""
        return -(-self.width // max(1, self.block_width))

    @property
    def down(self) -> int:
        """Number of blocks along y."""
        return -(-self.height // max(1, self.block_height))


def read_index(path: str, levels: Sequence[Level]) -> tuple[BlockIndex, ...]:
    """Find the file blocks of each level.

    Raises:
        UnsuitedError: If a level is not stored in a way that can be read directly.
        SlideError: If a level is stored in tiles, and the file lists another number of them than the level needs, so
            that they would be put in wrong places.
    """
    pages = _pages(path)
    for page in pages:
        if page.contiguous and any(_is_of(page, level) for level in levels):
            _check_count(path, page)
    return tuple(_index(level, pages) for level in levels)


def find_empty(path: str, levels: Sequence[Level]) -> tuple[Level, ...]:
    """Find the empty file blocks of each level, and those that may have been left out on purpose.

    Levels that are not stored as one tiled image of their size (in a file that is no TIFF, or that puts its levels
    together of several images) stay as they are.

    Raises:
        InputError: If the file cannot be read.
    """
    try:
        pages = _pages(path)
    except UnsuitedError:
        return tuple(levels)
    return tuple(_with_empty(level, [page for page in pages if _is_of(page, level)]) for level in levels)


def _is_of(page: _Page, level: Level) -> bool:
    """Tell whether an image may be a level's, and lists the lengths of its blocks; libtiff estimates those if not."""
    size = (page.width, page.height, page.block_width, page.block_height)
    return size == (level.width, level.height, level.block_width, level.block_height) and len(page.counts) > 0


def _with_empty(level: Level, pages: Sequence[_Page]) -> Level:
    """Add the empty blocks of the images that may be the level's: of most levels there is one."""
    size = level.down * level.across
    if size > MOST_BLOCKS or not any(len(page.counts) < size or not page.counts.all() for page in pages):
        return level
    empty, omitted = np.zeros((2, size), np.bool_)
    for page in pages:
        counts, offsets = np.zeros(size, np.int64), np.ones(size, np.int64)  # what a short table lacks is lost
        counts[: len(page.counts)], offsets[: len(page.offsets)] = page.counts[:size], page.offsets[:size]
        empty |= counts == 0
        omitted |= (counts == 0) & (offsets == 0)
    return replace(level, empty=pack_blocks(empty), omitted=pack_blocks(omitted))


def spread_empty(levels: Sequence[Level]) -> tuple[Level, ...]:
    """Count as empty what OpenSlide makes of finer levels in Aperio slides: blocks over a lost one of the level before.

    It takes those of coarser levels for corrupt; `aperio_open` of OpenSlide 4 has the arithmetic.
    """
    spread = list(levels[:1])
    for level in levels[1:]:
        spread.append(_with_lost_over(level, spread[-1]) if spread[-1].empty else level)
    return tuple(spread)


def _with_lost_over(level: Level, finer: Level) -> Level:
    rows, columns = np.nonzero(finer.lost_blocks)
    rows //= max(1, int(finer.down / level.down + 0.5))
    columns //= max(1, int(finer.across / level.across + 0.5))
    known = (rows < level.down) & (columns < level.across)
    over = np.zeros((level.down, level.across), np.bool_)
    over[rows[known], columns[known]] = True
    empty, blank = level.unpack(level.empty) | over, level.unpack(level.blank) & ~over
    return replace(level, empty=pack_blocks(empty), blank=pack_blocks(blank))


def quiet_tifffile() -> None:
    """Keep what tifffile says of damaged directories to itself; OpenSlide has the last word on them."""
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)


def _pages(path: str) -> list[_Page]:
    quiet_tifffile()
    with readable_file(path):
        try:
            with tifffile.TiffFile(path) as file:
                return [_page(page) for page in file.pages if isinstance(page, tifffile.TiffPage) and page.is_tiled]
        except OSError:  # it may pass, so it must not decide who reads the slide
            raise
        except Exception as error:  # tifffile raises whatever its parser runs into; OpenSlide may still read the file
            raise UnsuitedError(f"its TIFF directories cannot be read ({error})") from error


def _page(page: tifffile.TiffPage) -> _Page:
    def value(name: str, default: object = ()) -> object:
        return page.tags.valueof(name, default=default)

    offsets, counts = (np.atleast_1d(np.asarray(value(name), np.int64)) for name in ("TileOffsets", "TileByteCounts"))
    return _Page(
        width=page.imagewidth,
        height=page.imagelength,
        block_width=page.tilewidth,
        block_height=page.tilelength,
        compression=int(page.compression),
        colours=int(page.photometric),
        contiguous=int(page.planarconfig) == 1,
        depth=tuple(np.broadcast_to(page.bitspersample, page.samplesperpixel).tolist()),
        offsets=offsets,
        counts=counts,
        tables=page.jpegtables or b"",
    )


def _check_count(path: str, page: _Page) -> None:
    """Refuse an index that has not one place and one length for each block."""
    if not len(page.offsets) == len(page.counts) == page.across * page.down:
        raise SlideError(
            Cause.UNREADABLE,
            f"{path}: an image of {page.width} x {page.height} px needs {page.across} x {page.down} blocks, but the "
            f"file lists {len(page.offsets)} places and {len(page.counts)} lengths; its tags are damaged and its "
            "blocks would be shuffled, copy or export it again",
        )


def _index(level: Level, pages: Sequence[_Page]) -> BlockIndex:
    found = [page for page in pages if (page.width, page.height) == (level.width, level.height)]
    if len(found) != 1:
        raise UnsuitedError(f"{len(found)} of its tiled images have the size of level {level.index}")
    page = found[0]
    if not _is_of(page, level):
        raise UnsuitedError(f"level {level.index} is stored otherwise than in the tiles that its directory describes")
    _check_coding(level, page)
    return BlockIndex(
        block_width=page.block_width,
        block_height=page.block_height,
        offsets=page.offsets.reshape(page.down, page.across),
        counts=page.counts.reshape(page.down, page.across),
        compression=page.compression,
        is_rgb=page.compression == APERIO_RGB or page.colours == RGB,
        tables=page.tables,
    )


def _check_coding(level: Level, page: _Page) -> None:
    if not page.contiguous or page.depth != (8, 8, 8):
        raise UnsuitedError(f"level {level.index} is not stored as 3 x 8 bits per pixel")
    if not 0 < page.block_width * page.block_height <= MOST_BLOCK_PX:
        raise UnsuitedError(f"level {level.index} has blocks of {page.block_width} x {page.block_height} px")
    if page.compression not in (JPEG, APERIO_YCBCR, APERIO_RGB):
        raise UnsuitedError(f"level {level.index} has a compression ({page.compression}) that is left to OpenSlide")
    if page.compression == JPEG and page.colours not in (RGB, YCBCR):
        raise UnsuitedError(f"level {level.index} has colours ({page.colours}) that are left to OpenSlide")
