"""Read rectangles of slides without histo, in processes of their own: what the tables are held against.

A damaged slide may crash its decoder, which must not take the tests with it.
"""

import io
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import openslide
import simplejpeg
import tifffile
from PIL import Image

_BYTE_COUNTS = 325
"""TIFF's tag for the lengths of tiles."""


@dataclass(frozen=True)
class Rectangles:
    """Places of a slide.

    Attributes:
        slide: The file.
        level: Which level is read.
        places: `(x, y, width, height)` of each, level-0 pixels.
        strict: Whether every file block must also be decoded without a warning; a TIFF's must have bytes in any case.
    """

    slide: Path
    level: int
    places: Sequence[tuple[int, int, int, int]]
    strict: bool


def readable(slides: Sequence[Rectangles]) -> list[list[bool]]:
    """Tell of each rectangle of each slide whether OpenSlide reads it, and strict decoders too if they are asked."""
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        return list(pool.map(_readable, slides))


def _readable(slide: Rectangles) -> list[bool]:
    """Read with one handle until it fails, which makes it useless, then with a new one."""
    handle, found = openslide.OpenSlide(slide.slide), []
    scale, size = handle.level_downsamples[slide.level], handle.level_dimensions[slide.level]
    is_whole = _file_blocks(slide.slide, size, slide.strict)
    for x, y, width, height in slide.places:
        try:
            handle.read_region((x, y), slide.level, (round(width / scale), round(height / scale)))
            found.append(is_whole(x / scale, y / scale, width / scale, height / scale))
        except openslide.OpenSlideError:
            handle.close()
            handle = openslide.OpenSlide(slide.slide)
            found.append(False)
    handle.close()
    return found


def _file_blocks(slide: Path, size: tuple[int, int], strict: bool) -> Callable[[float, float, float, float], bool]:
    """Return what tells of a rectangle, in pixels of a level, whether all file blocks under it are whole."""
    if not strict and not _is_readable_tiff(slide):
        return lambda *_: True
    with tifffile.TiffFile(slide) as file:
        pages = [page.aspage() for page in file.pages]
        (page,) = (page for page in pages if page.is_tiled and (page.imagewidth, page.imagelength) == size)
        tables, edge_x, edge_y = page.jpegtables or b"\xff\xd8\xff\xd9", page.tilewidth, page.tilelength
        offsets, counts = page.dataoffsets, page.databytecounts
        if not strict and _BYTE_COUNTS not in page.tags:  # libtiff estimates them
            return lambda *_: True
    across, data, known = -(-size[0] // edge_x), slide.read_bytes(), dict[int, bool]()

    def is_whole(block: int) -> bool:
        if block not in known:
            code = data[offsets[block] : offsets[block] + counts[block]]
            decodes = _decodes(code, tables, (edge_y, edge_x)) if strict else True
            known[block] = counts[block] > 0 and (not strict or len(code) == counts[block]) and decodes
        return known[block]

    def all_whole(x: float, y: float, width: float, height: float) -> bool:
        columns = range(int(x // edge_x), -(-int(min(size[0], round(x + width))) // edge_x))
        rows = range(int(y // edge_y), -(-int(min(size[1], round(y + height))) // edge_y))
        return all(is_whole(row * across + column) for row in rows for column in columns)

    return all_whole


def _is_readable_tiff(slide: Path) -> bool:
    """Tell whether a file's TIFF directories can be read at all."""
    try:
        with tifffile.TiffFile(slide) as file:
            return len([page.aspage().is_tiled for page in file.pages]) > 0
    except Exception:  # noqa: BLE001 -- tifffile raises whatever its parser runs into
        return False


def _decodes(code: bytes, tables: bytes, shape: tuple[int, int]) -> bool:
    try:
        if code.startswith(b"\xff\xd8"):
            return bool(simplejpeg.decode_jpeg(tables[:-2] + code[2:], strict=True).shape[:2] == shape)
        with Image.open(io.BytesIO(code)) as image:
            return np.asarray(image).shape == (*shape, 3)
    except (OSError, SyntaxError, ValueError):
        return False
