"""Fake slides that know the answer, and real files that are made in a moment."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile

from histo.errors import ReadError
from histo.resample import Pixels
from histo.slides.plan import SlidePlan, plan_slide
from histo.slides.readers.base import Level, Reader
from histo.slides.slide import Slide, open_slide
from histo.slides.spec import TilingSpec, TissueSpec

Places = npt.NDArray[np.floating[Any]]
Paint = Callable[[int, Places, Places], npt.NDArray[np.generic]]
"""From a level's index, and level-0 pixels x `(1, W)` and y `(H, 1)`, to colours `(H, W, 3)`."""


def fake_slide(
    width: int, height: int, downsamples: Sequence[float] = (1,), mpp: float | tuple[float, float] = 0.25
) -> Slide:
    """Describe a slide of so many level-0 pixels."""
    levels = [Level(i, int(width / d), int(height / d), float(d)) for i, d in enumerate(downsamples)]
    mpp_x, mpp_y = mpp if isinstance(mpp, tuple) else (mpp, mpp)
    return Slide("fake.svs", "fake", tuple(levels), mpp_x, mpp_y, "metadata", None, None, None)


class FakeReader(Reader):
    """Paints whatever is asked for, each pixel by the level-0 place of its corner; white beyond the level.

    Attributes:
        areas: Pixels of each read, in order.
    """

    name = "fake"

    def __init__(self, paint: Paint) -> None:
        self._paint = paint
        self.areas: list[int] = []

    def read(self, level: Level, x: int, y: int, width: int, height: int) -> Pixels:
        self.areas.append(width * height)
        columns, rows = np.arange(x, x + width)[None, :], np.arange(y, y + height)[:, None]
        colours = self._paint(level.index, columns * level.downsample, rows * level.downsample)
        inside = (columns >= 0) & (columns < level.width) & (rows >= 0) & (rows < level.height)
        return np.where(inside[..., None], colours, 255).astype(np.uint8)

    def close(self) -> None:
        pass


class DamagedReader(FakeReader):
    """Fails where a read touches a damaged rectangle `(x, y, width, height)`, pixels of any level.

    Attributes:
        failures: Number of reads that failed.
    """

    def __init__(self, paint: Paint, damage: Sequence[tuple[int, int, int, int]]) -> None:
        super().__init__(paint)
        self._damage = damage
        self.failures = 0

    def read(self, level: Level, x: int, y: int, width: int, height: int) -> Pixels:
        for left, top, across, down in self._damage:
            if left < x + width and x < left + across and top < y + height and y < top + down:
                self.failures += 1
                raise ReadError(f"level {level.index} at ({x}, {y}): damaged")
        return super().read(level, x, y, width, height)


def array_slide(
    pixels: Pixels, mpp: float | tuple[float, float] = 0.25, damage: Sequence[tuple[int, int, int, int]] = ()
) -> tuple[Slide, DamagedReader]:
    """Make a slide of one level, which is the array, with damaged rectangles."""
    height, width = pixels.shape[:2]

    def paint(_: int, x: Places, y: Places) -> Pixels:
        painted: Pixels = pixels[np.clip(y, 0, height - 1).astype(int), np.clip(x, 0, width - 1).astype(int)]
        return painted

    return fake_slide(width, height, mpp=mpp), DamagedReader(paint, damage)


def noise(width: int, height: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def write_tiff(path: Path, levels: Sequence[Pixels], mpp: float | None = 0.25, description: bytes | None = None) -> str:
    """Write a pyramid without loss, in tiles of 64 pixels, and return its path."""
    resolution: dict[str, Any] = (
        {} if mpp is None else {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": "CENTIMETER"}
    )
    with tifffile.TiffWriter(path) as file:
        for index, pixels in enumerate(levels):
            file.write(
                pixels,
                tile=(64, 64),
                photometric="rgb",
                compression="zlib",
                subfiletype=int(index > 0),
                metadata=None,
                description=description,
                **resolution,
            )
    return str(path)


def plan_file(
    path: str, size_px: int, mpp: float, tiling: TilingSpec, tissue: TissueSpec, mpp_if_missing: float | None = None
) -> SlidePlan:
    """Open a slide, plan it, and close it."""
    slide, reader = open_slide(path, mpp_if_missing)
    try:
        return plan_slide(slide, reader, size_px, mpp, tiling, tissue)
    finally:
        reader.close()


def damage_block(path: str, level: int, block: int) -> None:
    """Overwrite one compressed block of a TIFF, so that it cannot be decoded."""
    with tifffile.TiffFile(path) as file:
        page = file.pages[level]
        offset, count = page.dataoffsets[block], page.databytecounts[block]
    with Path(path).open("r+b") as raw:
        raw.seek(offset)
        raw.write(b"\xff" * count)


def omit_block(path: str, level: int, block: int) -> None:
    """Declare that a block of a TIFF was never written, as scanners do where they saw nothing."""
    with tifffile.TiffFile(path, mode="r+") as file:
        for name in ("TileOffsets", "TileByteCounts"):
            tag = file.pages[level].aspage().tags[name]
            tag.overwrite([0 if place == block else value for place, value in enumerate(tag.value)])
