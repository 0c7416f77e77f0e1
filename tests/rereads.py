"""Read rectangles of slides with OpenSlide alone, in processes of their own: what the tables are held against.

A damaged slide may crash its decoder, which must not take the tests with it.
"""

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import openslide


@dataclass(frozen=True)
class Rectangles:
    """Places of a slide.

    Attributes:
        slide: The file.
        level: Which level is read.
        places: `(x, y, width, height)` of each, level-0 pixels.
    """

    slide: Path
    level: int
    places: Sequence[tuple[int, int, int, int]]


def readable(slides: Sequence[Rectangles]) -> list[list[bool]]:
    """Tell of each rectangle of each slide whether OpenSlide reads it."""
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        return list(pool.map(_readable, slides))


def _readable(slide: Rectangles) -> list[bool]:
    """Read with one handle until it fails, which makes it useless, then with a new one."""
    handle, found = openslide.OpenSlide(slide.slide), []
    scale = handle.level_downsamples[slide.level]
    for x, y, width, height in slide.places:
        try:
            handle.read_region((x, y), slide.level, (round(width / scale), round(height / scale)))
            found.append(True)
        except openslide.OpenSlideError:
            handle.close()
            handle = openslide.OpenSlide(slide.slide)
            found.append(False)
    handle.close()
    return found
