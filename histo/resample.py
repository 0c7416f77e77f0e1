"""Resample by area on one fixed grid, for labelling and training alike.

Target pixel `j` of an axis is the average of the source over `max(1, ratio)` source pixels around its centre
`(j + 0.5) * ratio`, where `ratio` is source pixels per target pixel. With ratio 2 that is the plain average of 2x2
blocks; with a fractional ratio the border pixels count by the share that is covered; below 1 (enlarging) it is linear
interpolation. Each target pixel depends on its own index alone, so cutting the target into windows of any size cannot
change a pixel.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import ceil, floor
from typing import TYPE_CHECKING, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from scipy import sparse

Pixels = npt.NDArray[np.uint8]
KERNEL = "box"
_Number = TypeVar("_Number", np.uint8, np.float32)
MOST_BLOCK = 4000
"""Pixels of the largest block whose mean, computed as float32, is still told from the next possible one."""
STRIP_BYTES = 2**20
"""Bytes of a strip of source pixels; with what comes of it, about as much as a core's cache holds."""

cv2.setNumThreads(1)  # our own threads are the parallelism; OpenCV's would compete with them


@dataclass(frozen=True)
class Window:
    """A run of target pixels along one axis.

    Attributes:
        start: Index of the first target pixel, 0 at the slide's or image's edge.
        count: Number of target pixels.
        ratio: Source pixels per target pixel.
    """

    start: int
    count: int
    ratio: float

    def __post_init__(self) -> None:
        if self.count < 1 or self.ratio <= 0:
            raise ValueError(f"a window needs a positive count and ratio, not {self.count} and {self.ratio}")

    @property
    def footprint(self) -> float:
        """Source pixels that one target pixel averages."""
        return max(1.0, self.ratio)

    def source_span(self) -> tuple[int, int]:
        """Return the half-open range of source pixels that this window needs; it may reach over the edges.

        Examples:
            >>> Window(start=10, count=4, ratio=2).source_span()
            (20, 28)
            >>> Window(start=0, count=2, ratio=1.5).source_span()
            (0, 3)
        """
        first = floor((self.start + 0.5) * self.ratio - self.footprint / 2)
        last = (self.start + self.count - 0.5) * self.ratio + self.footprint / 2
        return first, max(first + 1, ceil(last))

    def taps(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Return for each target pixel its first source pixel, `(count,)`, and its weights, `(count, taps)`."""
        centre = (np.arange(self.start, self.start + self.count) + 0.5) * self.ratio
        low, high = centre - self.footprint / 2, centre + self.footprint / 2
        first = np.floor(low)
        edges = first[:, None] + np.arange(ceil(self.footprint) + 1)
        overlap = np.minimum(edges + 1, high[:, None]) - np.maximum(edges, low[:, None])
        return first.astype(np.int64), np.clip(overlap, 0, None).astype(np.float32)


def resample(source: Pixels, columns: Window, rows: Window) -> Pixels:
    """Average a source crop onto a window of the target grid.

    Args:
        source: `(H, W, C)`, exactly the source spans of `rows` and `columns`.
        columns: Target window along x.
        rows: Target window along y.

    Returns:
        `(rows.count, columns.count, C)`, rounded half up.

    Raises:
        ValueError: If the crop is not of the size that the windows ask for.
    """
    spans = [stop - start for start, stop in (rows.source_span(), columns.source_span())]
    if list(source.shape[:2]) != spans:
        raise ValueError(f"the windows need a source of {spans} pixels (height, width), not {source.shape[:2]}")
    if columns.ratio == 1 and rows.ratio == 1:
        return source
    if whole_blocks(columns, rows):
        return block_means(source, int(columns.ratio), int(rows.ratio))
    return _area_means(source, columns, rows)


def whole_blocks(columns: Window, rows: Window) -> bool:
    """Tell whether each target pixel is the mean of a block of source pixels that `block_means` can average."""
    return columns.ratio % 1 == 0 and rows.ratio % 1 == 0 and columns.ratio * rows.ratio <= MOST_BLOCK


def block_means(source: Pixels, across: int, down: int) -> Pixels:
    """Average blocks of `across` x `down` pixels.

    Args:
        source: `(H, W, C)`, whole blocks.
        across: Width of a block, pixels.
        down: Its height; a block has at most `MOST_BLOCK` pixels.

    Returns:
        `(H // down, W // across, C)`, rounded half up.
    """
    height, width, channels = source.shape
    size = width // across, height // down
    if across == down == 2:  # where OpenCV's integer arithmetic rounds half up
        mean = cv2.resize(source, size, interpolation=cv2.INTER_AREA)
    else:
        area = across * down
        exact = np.asarray(cv2.resize(source.astype(np.float32), size, interpolation=cv2.INTER_AREA), np.float32)
        exact += np.float32(0.5 + 0.25 / area)  # means are multiples of 1 / area; what float32 loses is less
        mean = exact
    return mean.astype(np.uint8, copy=False).reshape(size[1], size[0], channels)


def _area_means(source: Pixels, columns: Window, rows: Window) -> Pixels:
    """Average along columns, then along rows; each a sum of taps whose order does not depend on the window.

    That goes strip by strip, so that what is worked on stays in the processor's cache.
    """
    height, width, channels = source.shape
    pixels, top = source.reshape(height, width * channels), rows.source_span()[0]
    area, across = np.float32(rows.footprint * columns.footprint), _weights(columns, channels)
    means = np.empty((rows.count, columns.count * channels), np.uint8)
    for strip in _strips(rows, width * channels):
        first, last = strip.source_span()
        down = _weights(strip) @ pixels[first - top : last - top].astype(np.float32)
        mean = across @ _turn(down)
        mean /= area
        mean += np.float32(0.5)
        place = strip.start - rows.start
        means[place : place + strip.count] = _turn(mean.astype(np.uint8))
    return means.reshape(rows.count, columns.count, channels)


def _strips(rows: Window, values: int) -> Iterator[Window]:
    """Cut a window into strips whose source, of so many values in each row, is at most `STRIP_BYTES` as float32."""
    most = max(1, int(STRIP_BYTES / (4 * values * rows.ratio)))
    for first in range(0, rows.count, most):
        yield Window(rows.start + first, min(most, rows.count - first), rows.ratio)


def _turn(table: npt.NDArray[_Number]) -> npt.NDArray[_Number]:
    """Exchange the axes of a table, in memory as well."""
    return np.asarray(cv2.transpose(table), table.dtype)


@lru_cache(maxsize=256)
def _weights(window: Window, channels: int = 1) -> "sparse.csr_array[np.float32]":
    """Return the taps as a matrix, from the pixels of the source span to those of the window, each of some channels."""
    from scipy import sparse  # noqa: PLC0415 -- most slides do without, and it takes long to load in every worker

    first, weights = window.taps()
    start, stop = window.source_span()
    places = np.minimum((first - start)[:, None] + np.arange(weights.shape[1]), stop - start - 1)
    places = (places * channels)[:, None] + np.arange(channels)[:, None]  # (count, channels, taps)
    weights = np.broadcast_to(weights[:, None], places.shape)
    used = weights > 0
    starts = np.append(0, np.cumsum(used.sum(axis=-1)))
    shape = window.count * channels, (stop - start) * channels
    return sparse.csr_array((weights[used], places[used], starts), shape=shape)


def resize(image: Pixels, size_px: int) -> Pixels:
    """Resample a square image `(H, W, C)` to `size_px`, its border pixels repeated beyond the edge."""
    height, width = image.shape[:2]
    rows, columns = Window(0, size_px, height / size_px), Window(0, size_px, width / size_px)
    pads = [
        (-start, max(0, stop - length))
        for (start, stop), length in ((rows.source_span(), height), (columns.source_span(), width))
    ]
    return resample(np.pad(image, [*pads, (0, 0)], mode="edge"), columns, rows)
