"""Read through OpenSlide: the reference for the pixels of every format."""

import cv2
import numpy as np
import openslide

from histo.errors import Cause, ReadError, SlideError
from histo.resample import Pixels
from histo.slides.readers.base import Level, Reader
from histo.slides.readers.foreign import VIPS, what_else

_OPAQUE = 0xFF000000
"""Least value of an opaque pixel, read as one little-endian number."""


class OpenSlideReader(Reader):
    """Reads through OpenSlide. One thread at a time per reader.

    Attributes:
        handle: OpenSlide's own, another one after a read that failed.
        direct: Shows what of an Aperio slide OpenSlide makes itself, if something does; see `fills_from_finer_levels`.
    """

    name = "openslide"

    def __init__(self, path: str) -> None:
        self._path = path
        self.handle = _open(path)
        self.direct: Reader | None = None

    @property
    def fills_from_finer_levels(self) -> bool:
        """Whether the place of an empty block is made of finer levels, on its own level and on all coarser ones."""
        return self.handle.properties.get(openslide.PROPERTY_NAME_VENDOR) == "aperio"

    @property
    def stored(self) -> Reader | None:
        """See `Reader.stored`."""
        return self.direct if self.fills_from_finer_levels else self

    def read(self, level: Level, x: int, y: int, width: int, height: int) -> Pixels:
        """See `Reader.read`."""
        left, top = max(0, x), max(0, y)
        right, bottom = min(level.width, x + width), min(level.height, y + height)
        if (left, top, right, bottom) == (x, y, x + width, y + height):
            return self._decode(level, x, y, width, height)
        canvas = np.full((height, width, 3), 255, np.uint8)
        if left < right and top < bottom:
            canvas[top - y : bottom - y, left - x : right - x] = self._decode(
                level, left, top, right - left, bottom - top
            )
        return canvas

    def _decode(self, level: Level, x: int, y: int, width: int, height: int) -> Pixels:
        """Read a rectangle that lies within the level."""
        level.check_blocks(x, y, width, height)
        pixels = self._show(level, x, y, width, height)
        if level.blank:
            _whiten(pixels, level, x, y)
        return pixels

    def _show(self, level: Level, x: int, y: int, width: int, height: int) -> Pixels:
        # OpenSlide divides by its own (unrounded) downsample to find the pixel of the level again.
        scale = self.handle.level_downsamples[level.index]
        place = (round(x * scale), round(y * scale))
        try:
            rgba = np.asarray(self.handle.read_region(place, level.index, (width, height)))
        except openslide.OpenSlideError as error:
            self._reopen()
            raise ReadError(f"level {level.index} at ({x}, {y}): {error}") from error
        return on_white(rgba)

    def _reopen(self) -> None:
        """Replace the handle: an OpenSlide handle that has failed once fails for every later read."""
        self.handle.close()
        self.handle = _open(self._path)

    def close(self) -> None:
        """See `Reader.close`."""
        self.handle.close()
        if self.direct is not None:
            self.direct.close()


def _whiten(pixels: Pixels, level: Level, x: int, y: int) -> None:
    """Paint the blocks white that were left out on purpose, in pixels of a level from `(x, y)` on."""
    height, width = pixels.shape[:2]
    rows, columns = (np.arange(first, first + count) for first, count in ((y, height), (x, width)))
    pixels[level.blank_blocks[np.ix_(rows // level.block_height, columns // level.block_width)]] = 255


def _open(path: str) -> openslide.OpenSlide:
    try:
        return openslide.OpenSlide(path)
    except openslide.OpenSlideUnsupportedFormatError:
        refused = (
            "OpenSlide does not recognise a slide in this file; it is damaged, not a whole-slide image, or of a format "
            "that has to be converted (to a tiled, pyramidal TIFF, for instance)"
        )
    except openslide.OpenSlideError as error:
        way_out = f"convert it with {VIPS}" if "Unsupported" in str(error) else "copy or export it again"
        refused = f"cannot be opened as a slide: {error}; {way_out}"
    raise SlideError(Cause.NOT_A_SLIDE, f"{path}: {what_else(path) or refused}")


def on_white(rgba: Pixels) -> Pixels:
    """Lay `(H, W, 4)` on white, `(H, W, 3)`."""
    if np.ascontiguousarray(rgba).view("<u4").min() >= _OPAQUE:
        rgb: Pixels = np.asarray(cv2.cvtColor(rgba, cv2.COLOR_RGBA2RGB), np.uint8)
        return rgb
    share = rgba[..., 3:].astype(np.float32) / 255
    return np.floor(rgba[..., :3] * share + 255 * (1 - share) + 0.5).astype(np.uint8)
