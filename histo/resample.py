"""Area resampling on one fixed grid: the kernel `box`, shared by labelling and training.

Target pixel `j` of an axis is the average of the source over `max(1, ratio)` source pixels around its centre
`(j + 0.5) * ratio`, where `ratio` is source pixels per target pixel. With ratio 2 that is the plain average of 2x2
blocks; with a fractional ratio the border pixels count by the share that is covered; below 1 (enlarging) it is linear
interpolation. Each target pixel depends on its own index alone, so cutting the target into windows of any size cannot
change a pixel.
"""

from dataclasses import dataclass
from math import ceil, floor

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
KERNEL = "box"


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
    total = _average(_average(source.astype(np.float32), rows, axis=0), columns, axis=1)
    mean: Pixels = np.floor(total / np.float32(rows.footprint * columns.footprint) + np.float32(0.5)).astype(np.uint8)
    return mean


def _average(values: npt.NDArray[np.float32], window: Window, axis: int) -> npt.NDArray[np.float32]:
    """Sum the weighted taps along one axis, in an order that does not depend on the window."""
    first, weights = window.taps()
    first = first - window.source_span()[0]
    length = values.shape[axis]
    total: npt.NDArray[np.float32] | None = None
    for tap in range(weights.shape[1]):
        weight = weights[:, tap]
        if not weight.any():
            continue
        picked = np.take(values, np.minimum(first + tap, length - 1), axis=axis)
        picked *= weight.reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        total = picked if total is None else total + picked
    assert total is not None, "every window has a tap of positive weight"
    return total


def resize(image: Pixels, size_px: int) -> Pixels:
    """Resample a square image `(H, W, C)` to `size_px`, its border pixels repeated beyond the edge."""
    height, width = image.shape[:2]
    rows, columns = Window(0, size_px, height / size_px), Window(0, size_px, width / size_px)
    pads = [
        (-start, max(0, stop - length))
        for (start, stop), length in ((rows.source_span(), height), (columns.source_span(), width))
    ]
    return resample(np.pad(image, [*pads, (0, 0)], mode="edge"), columns, rows)
