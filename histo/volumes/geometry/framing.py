"""Fit a slice into a square of pixels; its aspect in mm is kept.

The rest of the square is black.
"""

from dataclasses import dataclass
from math import floor

import cv2
import numpy as np
import numpy.typing as npt

from histo.volumes.intensity import IntensityWindow, Values

cv2.setNumThreads(1)  # processes are the parallelism; OpenCV's threads would compete with them


@dataclass(frozen=True)
class Frame:
    """How slices of one series lie on the square.

    Attributes:
        size_px: Edge of the square.
        height: Pixels of it that the slices' rows fill.
        width: Pixels of it that their columns fill.
        pixel_mm: Edge of a pixel.
    """

    size_px: int
    height: int
    width: int
    pixel_mm: float

    def put(self, plane: Values, window: IntensityWindow) -> npt.NDArray[np.uint8]:
        """Resample a slice `(H, W)`, map it to grey levels, and centre it; an odd black line is the last one."""
        square = np.zeros((self.size_px, self.size_px), np.uint8)
        top, left = (self.size_px - self.height) // 2, (self.size_px - self.width) // 2
        resampled = _resize(plane, self.height, self.width)
        square[top : top + self.height, left : left + self.width] = window.grey(resampled)
        return square


def fit(rows: int, columns: int, spacing_mm: tuple[float, float], size_px: int) -> Frame:
    """Fit slices to a square: the longer side, in mm, fills it.

    Args:
        rows: Of a slice.
        columns: Of a slice.
        spacing_mm: Distance of rows, and of columns.
        size_px: Edge of the square.

    Examples:
        >>> fit(100, 100, (2.0, 1.0), 64)
        Frame(size_px=64, height=64, width=32, pixel_mm=3.125)
    """
    lengths = rows * spacing_mm[0], columns * spacing_mm[1]
    longer = max(lengths)
    height, width = (max(1, floor(size_px * length / longer + 0.5)) for length in lengths)
    return Frame(size_px, height, width, longer / size_px)


def _resize(plane: Values, height: int, width: int) -> Values:
    """Resample `(H, W)` along each axis: area average where it shrinks, linear where it grows."""
    source = np.ascontiguousarray(plane)
    for axis, target in enumerate((height, width)):
        extent = source.shape[axis]
        if extent != target:
            size = (source.shape[1], target) if axis == 0 else (target, source.shape[0])
            kernel = cv2.INTER_AREA if target < extent else cv2.INTER_LINEAR
            source = np.asarray(cv2.resize(source, size, interpolation=kernel), np.float32)
    return source
