"""Find tissue: a boolean thumbnail of the slide, read in bounded windows.

A pixel is tissue if it absorbs light the way stained tissue does. Absorbance (optical density) is measured against the
slide's own glass, so that grey or tinted glass is zero. Haematoxylin and eosin both absorb green most (Ruifrok and
Johnston 2001, Anal Quant Cytol Histol 23:291-299), so tissue is where green absorbance stands out against the least
absorbed channel. Scanner borders and black ink absorb all channels alike; blue and green ink absorb red most; red ink
absorbs blue as much as green.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import ceil, lcm
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from histo.errors import Cause, ReadError, SlideError
from histo.resample import Pixels, Window
from histo.slides.brightfield import is_brightfield
from histo.slides.readers.base import Level, Place, Reader
from histo.slides.slide import Slide

Mask = npt.NDArray[np.bool_]
Absorbance = npt.NDArray[np.float32]
Range = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]
"""Half-open ranges along one axis: where each begins, and where it ends."""
_ROUNDING = 1e-6
"""Error of the place of an edge, in blocks."""

WINDOW_PX = 2048
"""Edge of the windows in which the level under the mask is read, so that memory does not grow with the slide."""
LEAF_PX = 128
"""Edge to which a window that cannot be read is split, in pixels of the level; what then cannot be read is unknown."""
MOST_FAILURES = 1000
"""Reads of one slide that may fail; each of them opens the file again, which takes time."""
MOST_CELLS = 2**26
"""Greatest number of pixels of the mask; each takes about 12 bytes while the tissue is sought, 24 if all is ink."""
PLACES = 1024
"""Windows of a level that are read together."""
STRIP_CELLS = 2**20
"""Pixels of the mask of which the absorbance is computed at a time."""

STAINED = 0.035
"""Least green absorbance above the least absorbed channel; about 20 grey levels of 255 on white glass."""
INK_RED = 1.12
"""Red absorbance over green from which a dense pixel is blue or green ink (haematoxylin: 0.93)."""
INK_BLUE = 0.75
"""Blue absorbance over green from which a dense pixel is red ink (haematoxylin 0.41, eosin 0.11, blood 0.6)."""
DENSE = 0.25
"""Absorbance from which a pixel may be ink; thinner ones are judged by green alone."""
STROKE_UM2 = 10_000.0
"""Least area of a connected stroke of a pen (µm²); what is smaller is left out, but has no rim."""
RIM_UM = 16.0
"""Width of a stroke's rim (µm)."""
GLASS_CHROMA = 0.06
"""Greatest relative spread of the channels of glass."""
GLASS_LEVEL = 140
"""Least grey level of glass."""
GLASS_SHARE = 0.02
"""Least share of the slide that glass must cover to be measured; otherwise it is taken as white."""
CLOSE_UM = 64.0
"""Gaps up to this size (µm) are closed first: an adipocyte is empty inside and belongs to its tissue."""
SPECK_UM = 32.0
"""What is still narrower than this (µm) is dropped as a speck."""


@dataclass(frozen=True)
class TissueMask:
    """A boolean thumbnail.

    Attributes:
        mask: `(H, W)`, true where there is tissue.
        cell_width: Level-0 pixels per mask pixel along x.
        cell_height: Likewise along y.
    """

    mask: Mask
    cell_width: float
    cell_height: float

    def __post_init__(self) -> None:
        integral = cv2.integral(np.ascontiguousarray(self.mask).view(np.uint8), sdepth=cv2.CV_32S)
        object.__setattr__(self, "_integral", integral)

    def fraction(self, x: npt.NDArray[np.float64], y: float, width: float, height: float) -> npt.NDArray[np.float64]:
        """Return the share of tissue in rectangles of one row, exactly; what lies outside the mask is glass.

        Args:
            x: Left edges, `(n,)`, level-0 pixels.
            y: Top edge, level-0 pixels.
            width: Level-0 pixels.
            height: Level-0 pixels.
        """
        left, right = x / self.cell_width, (x + width) / self.cell_width
        top, bottom = (np.full_like(left, edge / self.cell_height) for edge in (y, y + height))
        area = self._until(right, bottom) - self._until(left, bottom) - self._until(right, top) + self._until(left, top)
        share: npt.NDArray[np.float64] = area * (self.cell_width * self.cell_height) / (width * height)
        return np.clip(share, 0, 1)

    def _until(self, column: npt.NDArray[np.float64], row: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Integrate the mask from its corner to `(column, row)`, in mask pixels; bilinear, hence exact."""
        integral: npt.NDArray[np.float64] = self._integral  # type: ignore[attr-defined] # set in __post_init__
        column = np.clip(column, 0, self.mask.shape[1])
        row = np.clip(row, 0, self.mask.shape[0])
        i = np.minimum(column.astype(np.int64), self.mask.shape[1] - 1)
        j = np.minimum(row.astype(np.int64), self.mask.shape[0] - 1)
        u, v = column - i, row - j
        upper = integral[j, i] * (1 - u) + integral[j, i + 1] * u
        lower = integral[j + 1, i] * (1 - u) + integral[j + 1, i + 1] * u
        result: npt.NDArray[np.float64] = upper * (1 - v) + lower * v
        return result

    def area_um2(self, mpp_x: float, mpp_y: float) -> float:
        """Area of the tissue in µm², given µm per level-0 pixel."""
        return float(self.mask.sum()) * self.cell_width * mpp_x * self.cell_height * mpp_y


@dataclass(frozen=True)
class Thumbnail:
    """A whole slide on few pixels.

    Attributes:
        pixels: `(H, W, 3)`, white where unknown.
        unknown: `(H, W)`, true where the slide cannot be decoded.
        cell_width: Level-0 pixels per pixel of it along x.
        cell_height: Likewise along y.
    """

    pixels: Pixels
    unknown: Mask
    cell_width: float
    cell_height: float


def find_tissue(
    reader: Reader, slide: Slide, mpp: float = 8.0, exclude_ink: bool = True, any_image: bool = False
) -> TissueMask:
    """Find the tissue of a slide on a thumbnail of about `mpp` µm per pixel.

    What cannot be decoded counts as tissue, so that its tiles are tried; it is tissue for its neighbours too, whence
    damage never makes the mask smaller. If `any_image`, everything is tissue on a slide that is not brightfield.

    Raises:
        SlideError: If the mask would have more than `MOST_CELLS` pixels, or the slide is not brightfield.
        ReadError: If the level under the thumbnail cannot be decoded anywhere, or in too many places.
    """
    thumbnail = read_thumbnail(reader, slide, mpp)
    if not is_brightfield(slide.path, sample(thumbnail), any_image):
        return TissueMask(np.ones_like(thumbnail.unknown), thumbnail.cell_width, thumbnail.cell_height)
    cell_um = (thumbnail.cell_width * slide.mpp_x, thumbnail.cell_height * slide.mpp_y)
    mask, ink = stained(thumbnail)
    if exclude_ink:
        strokes = _strokes(ink, cell_um[0] * cell_um[1])
        mask = _smooth(mask & ~ink & ~strokes | thumbnail.unknown, cell_um[0]) & ~strokes
    else:
        mask = _smooth(mask | thumbnail.unknown, cell_um[0])
    return TissueMask(mask | thumbnail.unknown, thumbnail.cell_width, thumbnail.cell_height)


def read_thumbnail(reader: Reader, slide: Slide, mpp: float) -> Thumbnail:
    """Read the whole slide at about `mpp` µm per pixel, in windows; one that cannot be decoded is split.

    Raises:
        SlideError: If the thumbnail would have more than `MOST_CELLS` pixels.
        ReadError: If nothing can be decoded, or more than `MOST_FAILURES` reads have failed.
    """
    return read_level(reader, slide, level_under(slide, mpp), mpp)


def read_level(reader: Reader, slide: Slide, level: Level, mpp: float) -> Thumbnail:
    """Read one level as `read_thumbnail` does; where its file blocks are lost, nothing is known.

    Raises:
        SlideError: See `read_thumbnail`.
        ReadError: Likewise.
    """
    ratio_x, ratio_y = _ratios(slide, level, mpp)
    thumbnail = _blank(slide, level, ratio_x, ratio_y)
    shown = replace(level, blank=level.empty)
    made_of = [level] if reader.stored is reader else slide.levels[: level.index + 1]
    with_lost = [source for source in made_of if source.empty]
    waiting, failures = [*_windows(level, ratio_x, ratio_y)][::-1], 0
    while waiting:
        columns, rows = waiting.pop()
        place = np.s_[rows.start : rows.start + rows.count, columns.start : columns.start + columns.count]
        try:
            thumbnail.pixels[place] = _read(reader, shown, columns, rows)
            for source in with_lost:
                thumbnail.unknown[place] |= _over_lost(source, level.downsample / source.downsample, columns, rows)
        except ReadError:
            parts = _split(columns, rows)
            thumbnail.unknown[place] = not parts
            waiting += parts
            failures += 1
            if failures > MOST_FAILURES or thumbnail.unknown.all():
                raise
    if thumbnail.unknown.all():
        raise ReadError(f"level {level.index}: the file has no data for its blocks")
    thumbnail.pixels[thumbnail.unknown] = 255
    return thumbnail


def unknown_thumbnail(slide: Slide, level: Level, mpp: float) -> Thumbnail:
    """Make the thumbnail of a level of which nothing is known yet, for `fill_places`.

    Raises:
        SlideError: See `read_thumbnail`.
    """
    thumbnail = _blank(slide, level, *_ratios(slide, level, mpp))
    thumbnail.unknown[:] = True
    return thumbnail


def fill_places(thumbnail: Thumbnail, reader: Reader, level: Level, places: Sequence[Place]) -> None:
    """Read windows of a level's thumbnail by a reader that shows the level as it is stored.

    Args:
        thumbnail: What is filled; where a window cannot be decoded, it stays unknown.
        reader: Decodes the slide's pixels.
        level: The level that is read.
        places: Windows of the thumbnail.
    """
    shown = replace(level, blank=level.empty)
    for start in range(0, len(places), PLACES):
        windows = places[start : start + PLACES]
        targets = [np.empty((rows.count, columns.count, 3), np.uint8) for columns, rows in windows]
        errors = reader.read_windows(shown, windows, targets)
        for (columns, rows), pixels, error in zip(windows, targets, errors, strict=True):
            if error is None:
                place = np.s_[rows.start : rows.start + rows.count, columns.start : columns.start + columns.count]
                thumbnail.pixels[place] = pixels
                thumbnail.unknown[place] = _over_lost(level, 1, columns, rows) if level.empty else False


def _read(reader: Reader, level: Level, columns: Window, rows: Window) -> Pixels:
    pixels = np.empty((rows.count, columns.count, 3), np.uint8)
    (error,) = reader.read_windows(level, [(columns, rows)], [pixels])
    if error is not None:
        raise error
    return pixels


def _over_lost(level: Level, scale: float, columns: Window, rows: Window) -> Mask:
    """Tell which pixels of a window, `(rows.count, columns.count)`, have pixels of a level's lost blocks in them.

    Args:
        level: The level.
        scale: Its pixels per pixel of the level that the window's ratio is of.
        columns: The window along x.
        rows: The window along y.
    """
    top, bottom = _block_range(rows, scale, level.block_height, level.down)
    left, right = _block_range(columns, scale, level.block_width, level.across)
    return any_in(level.lost_blocks, (top, bottom), (left, right))


def _block_range(window: Window, scale: float, block: int, count: int) -> Range:
    """Return for each pixel of a window the first file block under it, and the one behind the last."""
    edges = np.arange(window.start, window.start + window.count + 1) * (window.ratio * scale / block)
    first = np.minimum(np.floor(edges[:-1] + _ROUNDING).astype(np.int64), count - 1)
    last = np.minimum(np.ceil(edges[1:] - _ROUNDING).astype(np.int64), count)
    return first, last


def any_in(mask: Mask, rows: Range, columns: Range) -> Mask:
    """Tell of each rectangle, one for each pair of ranges of rows and of columns, whether a mask is true in it."""
    sums = np.pad(mask.cumsum(0, dtype=np.int32).cumsum(1, dtype=np.int32), ((1, 0), (1, 0)))
    (top, bottom), (left, right) = rows, columns
    count = sums[np.ix_(bottom, right)] - sums[np.ix_(top, right)] - sums[np.ix_(bottom, left)]
    return np.asarray(count + sums[np.ix_(top, left)] > 0)


def level_under(slide: Slide, mpp: float) -> Level:
    """Choose the level under a thumbnail: the coarsest one that is not coarser than it, and not lost as a whole."""
    fine_enough = (level for level in slide.levels if level.downsample * max(slide.mpp_x, slide.mpp_y) <= mpp)
    usable = [level for level in fine_enough if not (level.empty and level.lost_blocks.all())]
    return max(usable, key=lambda level: level.downsample, default=slide.levels[0])


def _ratios(slide: Slide, level: Level, mpp: float) -> tuple[int, int]:
    """Return the pixels of a level per pixel of a thumbnail along x and y."""
    ratio_x, ratio_y = (
        min(WINDOW_PX, max(1, round(mpp / (level_0 * level.downsample)))) for level_0 in (slide.mpp_x, slide.mpp_y)
    )
    return ratio_x, ratio_y


def _blank(slide: Slide, level: Level, ratio_x: int, ratio_y: int) -> Thumbnail:
    height, width = ceil(level.height / ratio_y), ceil(level.width / ratio_x)
    if height * width > MOST_CELLS:
        raise SlideError(
            Cause.MASK_TOO_LARGE,
            f"{slide.path}: its {slide.width} x {slide.height} px need a tissue mask of {width} x {height} px, more "
            f"than {MOST_CELLS} px; raise --tissue.mpp",
        )
    return Thumbnail(
        np.full((height, width, 3), 255, np.uint8),
        np.zeros((height, width), np.bool_),
        ratio_x * level.downsample,
        ratio_y * level.downsample,
    )


def _windows(level: Level, ratio_x: int, ratio_y: int) -> Iterator[tuple[Window, Window]]:
    """Cut a level into windows; where that can be, their edges are edges of file blocks, so that none is cut in two."""

    def along(extent: int, ratio: int, block: int) -> list[Window]:
        whole = lcm(ratio, block)
        count, step = ceil(extent / ratio), WINDOW_PX // whole * whole // ratio or max(1, WINDOW_PX // ratio)
        return [Window(start, min(step, count - start), ratio) for start in range(0, count, step)]

    return product(along(level.width, ratio_x, level.block_width), along(level.height, ratio_y, level.block_height))


def _split(columns: Window, rows: Window) -> list[tuple[Window, Window]]:
    """Quarter a window, along the axes where it is longer than a leaf; nothing if it is a leaf."""

    def halves(window: Window) -> list[Window]:
        half = window.count // 2
        if half == 0 or window.count * window.ratio <= LEAF_PX:
            return [window]
        return [replace(window, count=half), replace(window, start=window.start + half, count=window.count - half)]

    parts = [*product(halves(columns), halves(rows))]
    return parts if len(parts) > 1 else []


def stained(thumbnail: Thumbnail, glass: npt.NDArray[np.float32] | None = None) -> tuple[Mask, Mask]:
    """Decide for each pixel whether it is stained tissue, and whether it is ink; unknown ones, white, are neither.

    Args:
        thumbnail: Its pixels.
        glass: Colour of empty glass, `(3,)`; that of the thumbnail if not given.
    """
    glass = glass_of(thumbnail) if glass is None else glass
    tissue, ink = np.empty((2, *thumbnail.unknown.shape), np.bool_)
    step = max(1, STRIP_CELLS // tissue.shape[1])
    for start in range(0, len(tissue), step):
        rows = np.s_[start : start + step]
        red, green, blue = _absorbance(thumbnail.pixels[rows], glass)
        tissue[rows] = green - np.minimum(red, blue) >= STAINED
        ink[rows] = _is_ink(red, green, blue)
    return tissue, ink


def ink_in(pixels: Pixels, glass: npt.NDArray[np.float32]) -> Mask:
    """Decide for each pixel of an image, `(H, W, 3)`, whether it is ink, given the colour of empty glass, `(3,)`."""
    return _is_ink(*_absorbance(pixels, glass))


def _absorbance(pixels: Pixels, glass: npt.NDArray[np.float32]) -> tuple[Absorbance, Absorbance, Absorbance]:
    """Return the absorbance of red, green and blue, `(H, W)` each."""
    density = np.log10((glass + 1) / (np.arange(256, dtype=np.float32)[:, None] + 1))
    channels = zip(cv2.split(pixels), density.T.copy(), strict=True)
    red, green, blue = (np.asarray(cv2.LUT(grey, table), np.float32) for grey, table in channels)
    return red, green, blue


def _is_ink(red: Absorbance, green: Absorbance, blue: Absorbance) -> Mask:
    dense = np.maximum(np.maximum(red, green), blue) >= DENSE
    ink: Mask = dense & ((red > INK_RED * green) | (blue > INK_BLUE * green))
    return ink


def glass_of(thumbnail: Thumbnail) -> npt.NDArray[np.float32]:
    """Estimate the colour of empty glass, `(3,)`."""
    return glass_colour(sample(thumbnail))


def sample(thumbnail: Thumbnail) -> Pixels:
    """Take about a million of the pixels that are known, `(n, 3)`."""
    step = max(1, thumbnail.unknown.size // 1_000_000)
    return thumbnail.pixels.reshape(-1, 3)[::step][~thumbnail.unknown.ravel()[::step]]


def _strokes(ink: Mask, cell_um2: float) -> Mask:
    """Keep what is large enough for a stroke of a pen, and add its rim, whose mixed pixels look like tissue."""
    if not ink.any():
        return ink
    _, numbers = cv2.connectedComponents(ink.view(np.uint8), connectivity=8)
    inked = np.asarray(numbers)[ink]
    strokes = np.zeros(ink.shape, np.uint8)
    strokes[ink] = (np.bincount(inked) * cell_um2 >= STROKE_UM2)[inked]
    return _dilate(strokes, _disk(2 * RIM_UM / cell_um2**0.5)).view(np.bool_)


def glass_colour(pixels: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.float32]:
    """Estimate the colour of empty glass, `(3,)`: the most frequent bright grey, or white where there is none.

    Args:
        pixels: Of the whole slide, or a sample of them, `(..., 3)`.
    """
    pixels = pixels.reshape(-1, 3).astype(np.int16)
    low, high = pixels.min(axis=1), pixels.max(axis=1)
    grey = pixels[(low >= GLASS_LEVEL) & (high - low <= GLASS_CHROMA * high)]
    if len(grey) < max(1, GLASS_SHARE * len(pixels)):
        return np.full(3, 255, np.float32)
    level = int(np.bincount(grey[:, 1], minlength=256).argmax())
    near = grey[abs(grey[:, 1] - level) <= 3]
    median: npt.NDArray[np.float32] = np.median(near, axis=0).astype(np.float32)
    return median


def _smooth(mask: Mask, um_per_cell: float) -> Mask:
    """Close gaps, then drop specks."""
    close, speck = (_disk(size / um_per_cell) for size in (CLOSE_UM, SPECK_UM))
    margin = len(close)
    padded = np.pad(mask.view(np.uint8), margin, mode="edge")
    closed = _erode(_dilate(padded, close), close)
    smooth = _dilate(_erode(closed, speck), speck)
    return np.ascontiguousarray(smooth[margin:-margin, margin:-margin]).view(np.bool_)


def _dilate(mask: Pixels, shape: Pixels) -> Pixels:
    """Add what a shape covers that is centred in the mask; both of 0 and 1."""
    return np.asarray(cv2.dilate(mask, shape, borderType=cv2.BORDER_CONSTANT, borderValue=0), np.uint8)


def _erode(mask: Pixels, shape: Pixels) -> Pixels:
    """Keep the centres of what a shape covers within the mask; beyond its edge there is none of it."""
    return np.asarray(cv2.erode(mask, shape, borderType=cv2.BORDER_CONSTANT, borderValue=0), np.uint8)


def _disk(diameter: float) -> Pixels:
    reach = max(1, round(diameter / 2))
    inside: Mask = np.hypot(*np.mgrid[-reach : reach + 1, -reach : reach + 1]) <= reach
    return inside.astype(np.uint8)
