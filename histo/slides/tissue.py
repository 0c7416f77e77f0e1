"""Where the tissue is: a boolean thumbnail of the slide, read in bounded windows.

A pixel is tissue if it absorbs light the way stained tissue does. Absorbance (optical density) is measured against the
slide's own glass, so that grey or tinted glass is zero. Haematoxylin and eosin both absorb green most (Ruifrok and
Johnston 2001, Anal Quant Cytol Histol 23:291-299), so tissue is where green absorbance stands out against the least
absorbed channel. Scanner borders and black ink absorb all channels alike; blue and green ink absorb red most; red ink
absorbs blue as much as green.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import ceil

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from histo.resample import Pixels, Window
from histo.slides.slide import Level, Reader, Slide
from histo.slides.window import read_window

Mask = npt.NDArray[np.bool_]

WINDOW_PX = 2048
"""Edge of the windows in which the level under the mask is read, so that memory does not grow with the slide."""

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
        integral = np.zeros((self.mask.shape[0] + 1, self.mask.shape[1] + 1))
        np.cumsum(np.cumsum(self.mask, axis=0, dtype=np.float64), axis=1, out=integral[1:, 1:])
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


def find_tissue(reader: Reader, slide: Slide, mpp: float = 8.0, exclude_ink: bool = True) -> TissueMask:
    """Find the tissue of a slide on a thumbnail of about `mpp` µm per pixel.

    Raises:
        ReadError: If the level under the thumbnail cannot be decoded.
    """
    thumbnail, cell_width, cell_height = read_thumbnail(reader, slide, mpp)
    cell_um = (cell_width * slide.mpp_x, cell_height * slide.mpp_y)
    mask, ink = stained(thumbnail)
    if exclude_ink:
        strokes = _strokes(ink, cell_um[0] * cell_um[1])
        mask = _smooth(mask & ~ink & ~strokes, cell_um[0]) & ~strokes
    else:
        mask = _smooth(mask, cell_um[0])
    return TissueMask(mask, cell_width, cell_height)


def read_thumbnail(reader: Reader, slide: Slide, mpp: float) -> tuple[Pixels, float, float]:
    """Read the whole slide at about `mpp` µm per pixel, in windows.

    Returns:
        The thumbnail, `(H, W, 3)`, and the level-0 pixels per pixel of it along x and y.
    """
    usable = [level for level in slide.levels if level.downsample * max(slide.mpp_x, slide.mpp_y) <= mpp]
    level = max(usable, key=lambda level: level.downsample, default=slide.levels[0])
    ratio_x = max(1, round(mpp / (slide.mpp_x * level.downsample)))
    ratio_y = max(1, round(mpp / (slide.mpp_y * level.downsample)))
    thumbnail = np.empty((ceil(level.height / ratio_y), ceil(level.width / ratio_x), 3), np.uint8)
    for columns, rows in _windows(level, ratio_x, ratio_y):
        place = np.s_[rows.start : rows.start + rows.count, columns.start : columns.start + columns.count]
        thumbnail[place] = read_window(reader, slide, level.index, columns, rows)
    return thumbnail, ratio_x * level.downsample, ratio_y * level.downsample


def _windows(level: Level, ratio_x: int, ratio_y: int) -> Iterator[tuple[Window, Window]]:
    def along(extent: int, ratio: int) -> list[Window]:
        count, step = ceil(extent / ratio), max(1, WINDOW_PX // ratio)
        return [Window(start, min(step, count - start), ratio) for start in range(0, count, step)]

    return product(along(level.width, ratio_x), along(level.height, ratio_y))


def stained(thumbnail: Pixels) -> tuple[Mask, Mask]:
    """Decide for each pixel of `(H, W, 3)` whether it is stained tissue, and whether it is ink."""
    glass = glass_colour(thumbnail)
    tissue, ink = np.empty((2, *thumbnail.shape[:2]), np.bool_)
    for start in range(0, len(tissue), 256):
        rows = np.s_[start : start + 256]
        density = np.log10((glass + 1) / (thumbnail[rows].astype(np.float32) + 1))
        red, green, blue = np.moveaxis(density, -1, 0)
        tissue[rows] = green - np.minimum(red, blue) >= STAINED
        ink[rows] = (density.max(axis=-1) >= DENSE) & ((red > INK_RED * green) | (blue > INK_BLUE * green))
    return tissue, ink


def _strokes(ink: Mask, cell_um2: float) -> Mask:
    """Keep what is large enough for a stroke of a pen, and add its rim, whose mixed pixels look like tissue."""
    numbers, _ = ndimage.label(ink, structure=np.ones((3, 3)))
    large = np.bincount(numbers.ravel()) * cell_um2 >= STROKE_UM2
    large[0] = False
    rim: Mask = ndimage.binary_dilation(large[numbers], _disk(2 * RIM_UM / cell_um2**0.5))
    return rim


def glass_colour(thumbnail: Pixels) -> npt.NDArray[np.float32]:
    """Estimate the colour of empty glass, `(3,)`: the most frequent bright grey, or white where there is none."""
    pixels = thumbnail.reshape(-1, 3)[:: max(1, thumbnail.size // 3_000_000)].astype(np.int16)
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
    padded = np.pad(mask, margin, mode="edge")
    smooth = ndimage.binary_opening(ndimage.binary_closing(padded, close), speck)
    result: Mask = smooth[margin:-margin, margin:-margin]
    return result


def _disk(diameter: float) -> Mask:
    reach = max(1, round(diameter / 2))
    disk: Mask = np.hypot(*np.mgrid[-reach : reach + 1, -reach : reach + 1]) <= reach
    return disk
