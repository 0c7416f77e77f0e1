"""Open a slide: its levels, its resolution, and its pixels as RGB arrays.

The turn between places `(x, y)` and arrays `(H, W, C)` happens here, and nowhere else.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import openslide

from histo.errors import Cause, ReadError, SlideError

PLAUSIBLE_MPP = (0.05, 20.0)

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Level:
    """One image of the pyramid.

    Attributes:
        index: 0 is the finest.
        width: In its own pixels.
        height: Likewise.
        downsample: Level-0 pixels per pixel of it.
        exact: Whether OpenSlide can read it pixel by pixel. It takes places in level-0 pixels, so where its own
            downsample is not whole (2.0005, from sizes that were rounded), it interpolates between pixels of the level.
    """

    index: int
    width: int
    height: int
    downsample: float
    exact: bool = True


@dataclass(frozen=True)
class Slide:
    """What the metadata of a slide say.

    Attributes:
        path: The file that OpenSlide opens.
        vendor: Format, as OpenSlide names it.
        levels: The pyramid, finest first.
        mpp_x: µm per level-0 pixel along x.
        mpp_y: µm per level-0 pixel along y.
        mpp_source: `metadata`, `list` or `override`.
        bounds: The scanned part `(x, y, width, height)` in level-0 pixels, if the file names one.
        objective_power: Nominal magnification, if the file names one.
        quickhash: OpenSlide's quickhash-1, if there is one.
    """

    path: str
    vendor: str
    levels: tuple[Level, ...]
    mpp_x: float
    mpp_y: float
    mpp_source: str
    bounds: tuple[int, int, int, int] | None
    objective_power: float | None
    quickhash: str | None

    @property
    def width(self) -> int:
        """Width in level-0 pixels."""
        return self.levels[0].width

    @property
    def height(self) -> int:
        """Height in level-0 pixels."""
        return self.levels[0].height


class Reader(Protocol):
    """Whatever decodes pixels of one open slide."""

    def read(self, level: Level, x: int, y: int, width: int, height: int) -> Pixels:
        """Read a rectangle, in pixels of the level; what lies outside the level, or is transparent, is white.

        Raises:
            ReadError: If these pixels cannot be decoded.
        """

    def close(self) -> None:
        """Release the file."""


class OpenSlideReader:
    """Reads through OpenSlide, the reference for every format. One thread at a time per reader."""

    name = "openslide"

    def __init__(self, path: str) -> None:
        self._path = path
        self._handle = _open(path)

    def read(self, level: Level, x: int, y: int, width: int, height: int) -> Pixels:
        """See `Reader.read`."""
        canvas = np.full((height, width, 3), 255, np.uint8)
        left, top = max(0, x), max(0, y)
        right, bottom = min(level.width, x + width), min(level.height, y + height)
        if left < right and top < bottom:
            canvas[top - y : bottom - y, left - x : right - x] = self._decode(
                level, left, top, right - left, bottom - top
            )
        return canvas

    def _decode(self, level: Level, x: int, y: int, width: int, height: int) -> Pixels:
        # OpenSlide divides by its own (unrounded) downsample to find the pixel of the level again.
        scale = self._handle.level_downsamples[level.index]
        place = (round(x * scale), round(y * scale))
        try:
            rgba = np.asarray(self._handle.read_region(place, level.index, (width, height)))
        except openslide.OpenSlideError as error:
            self._reopen()
            raise ReadError(f"level {level.index} at ({x}, {y}): {error}") from error
        return _on_white(rgba)

    def _reopen(self) -> None:
        """Replace the handle: an OpenSlide handle that has failed once fails for every later read."""
        self._handle.close()
        self._handle = _open(self._path)

    def close(self) -> None:
        """See `Reader.close`."""
        self._handle.close()


def open_slide(path: str, mpp_if_missing: float | None = None) -> tuple[Slide, OpenSlideReader]:
    """Open a slide and read its metadata.

    Args:
        path: The slide's file, the first one of a DICOM series.
        mpp_if_missing: µm per level-0 pixel for a slide that names none.

    Raises:
        SlideError: If it is not a slide, or its resolution is unknown or not plausible.
    """
    reader = OpenSlideReader(path)
    handle = reader._handle  # noqa: SLF001 -- the metadata come from the handle that will read
    try:
        properties = handle.properties
        mpp_x, mpp_y, mpp_source = _resolution(path, properties, mpp_if_missing)
        slide = Slide(
            path=path,
            vendor=properties.get(openslide.PROPERTY_NAME_VENDOR, "unknown"),
            levels=_levels(handle.level_dimensions, handle.level_downsamples),
            mpp_x=mpp_x,
            mpp_y=mpp_y,
            mpp_source=mpp_source,
            bounds=_bounds(properties),
            objective_power=_positive(properties.get(openslide.PROPERTY_NAME_OBJECTIVE_POWER)),
            quickhash=properties.get(openslide.PROPERTY_NAME_QUICKHASH1),
        )
    except SlideError:
        reader.close()
        raise
    return slide, reader


def _open(path: str) -> openslide.OpenSlide:
    try:
        return openslide.OpenSlide(path)
    except openslide.OpenSlideUnsupportedFormatError:
        raise SlideError(
            Cause.NOT_A_SLIDE,
            f"{path}: OpenSlide does not recognise a slide in this file; it is damaged, not a whole-slide image, or of "
            "a format that has to be converted (to a tiled, pyramidal TIFF, for instance)",
        ) from None
    except openslide.OpenSlideError as error:
        raise SlideError(
            Cause.NOT_A_SLIDE, f"{path}: cannot be opened as a slide: {error}; copy or export it again"
        ) from None


def _on_white(rgba: Pixels) -> Pixels:
    alpha = rgba[..., 3:]
    if alpha.min() == 255:
        return rgba[..., :3]
    share = alpha.astype(np.float32) / 255
    return np.floor(rgba[..., :3] * share + 255 * (1 - share) + 0.5).astype(np.uint8)


def _levels(sizes: tuple[tuple[int, int], ...], downsamples: tuple[float, ...]) -> tuple[Level, ...]:
    """Describe the pyramid; a downsample that rounding of the sizes has blurred is put back to its integer."""
    width, height = sizes[0]
    levels = []
    for index, ((w, h), downsample) in enumerate(zip(sizes, downsamples, strict=True)):
        nearest = max(1, round(downsample))
        blurred = abs(width / nearest - w) < 1 and abs(height / nearest - h) < 1
        levels.append(Level(index, w, h, float(nearest) if blurred else downsample, exact=downsample == nearest))
    return tuple(levels)


def _resolution(path: str, properties: Mapping[str, str], mpp_if_missing: float | None) -> tuple[float, float, str]:
    x = _positive(properties.get(openslide.PROPERTY_NAME_MPP_X))
    y = _positive(properties.get(openslide.PROPERTY_NAME_MPP_Y))
    known = "metadata" if x and y else "override"
    x, y = x or mpp_if_missing, y or mpp_if_missing
    if x is None or y is None:
        raise SlideError(
            Cause.NO_MPP,
            f"{path}: no resolution in the metadata; give one with --mpp-if-missing (µm/px at level 0)",
        )
    low, high = PLAUSIBLE_MPP
    if not (low <= x <= high and low <= y <= high):
        remedy = "correct the file's resolution tags" if known == "metadata" else "correct --mpp-if-missing"
        raise SlideError(
            Cause.IMPLAUSIBLE_MPP,
            f"{path}: {x:g} x {y:g} µm/px ({known}) is not plausible for a slide ({low} to {high} µm/px); {remedy}",
        )
    return x, y, known


def _positive(text: str | None) -> float | None:
    """Read a positive, finite number; what is not one counts as missing."""
    try:
        value = float(text) if text is not None else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0 else None


def _bounds(properties: Mapping[str, str]) -> tuple[int, int, int, int] | None:
    names = (
        openslide.PROPERTY_NAME_BOUNDS_X,
        openslide.PROPERTY_NAME_BOUNDS_Y,
        openslide.PROPERTY_NAME_BOUNDS_WIDTH,
        openslide.PROPERTY_NAME_BOUNDS_HEIGHT,
    )
    try:
        x, y, width, height = (int(properties[name]) for name in names)
    except (KeyError, ValueError):
        return None
    return x, y, width, height
