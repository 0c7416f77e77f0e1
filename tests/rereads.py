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


@dataclass(frozen=True)
class Rectangles:
    """Places of a slide.

    Attributes:
        slide: The file.
        level: Which level is read.
        places: `(x, y, width, height)` of each, level-0 pixels.
        strict: Whether every file block must also be decoded without a warning.
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
    is_whole = _file_blocks(slide.slide, size) if slide.strict else lambda *_: True
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


def _file_blocks(slide: Path, size: tuple[int, int]) -> Callable[[float, float, float, float], bool]:
    """Return what tells of a rectangle, in pixels of a level, whether all file blocks under it are whole."""
    with tifffile.TiffFile(slide) as file:
        (page,) = (page for page in file.pages if page.is_tiled and (page.imagewidth, page.imagelength) == size)
        tables, edge_x, edge_y = page.jpegtables or b"\xff\xd8\xff\xd9", page.tilewidth, page.tilelength
        offsets, counts = page.dataoffsets, page.databytecounts
    across, data, known = -(-size[0] // edge_x), slide.read_bytes(), dict[int, bool]()

    def is_whole(block: int) -> bool:
        if block not in known:
            code = data[offsets[block] : offsets[block] + counts[block]]
            known[block] = len(code) == counts[block] > 0 and _decodes(code, tables, (edge_y, edge_x))
        return known[block]

    def all_whole(x: float, y: float, width: float, height: float) -> bool:
        columns = range(int(x // edge_x), -(-int(min(size[0], round(x + width))) // edge_x))
        rows = range(int(y // edge_y), -(-int(min(size[1], round(y + height))) // edge_y))
        return all(is_whole(row * across + column) for row in rows for column in columns)

    return all_whole


def _decodes(code: bytes, tables: bytes, shape: tuple[int, int]) -> bool:
    try:
        if code.startswith(b"\xff\xd8"):
            return simplejpeg.decode_jpeg(tables[:-2] + code[2:], strict=True).shape[:2] == shape
        with Image.open(io.BytesIO(code)) as image:
            return np.asarray(image).shape == (*shape, 3)
    except (OSError, SyntaxError, ValueError):
        return False
