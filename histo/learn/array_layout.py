"""Array layout of one case: a tile, or a volume of several series. No torch.

Axes: H height, W width, C colour channel, S series, D slice.
"""

import math
from dataclasses import dataclass
from statistics import fmean
from typing import Any, ClassVar, Literal, Protocol

import numpy as np

from histo.resample import Pixels, resize

Task = Literal["tiles", "volumes"]


class Layout(Protocol):
    """What the arrays of a source's cases, and of a network's input, have in common."""

    @property
    def task(self) -> Task:
        """What a case is."""

    @property
    def noun(self) -> str:
        """What messages call several cases."""

    @property
    def planes_first(self) -> tuple[int, ...]:
        """The order of an array's axes that puts height and width last."""

    def shape(self, size_px: int) -> tuple[int, ...]:
        """Return the shape of an array whose planes have this edge."""

    def channels(self, dimensions: int) -> int | None:
        """Return the channels of a network that convolves along so many axes; None if it cannot see such arrays."""

    def of_channels(self, rgb: tuple[float, ...]) -> tuple[float, ...]:
        """Return what numbers for red, green and blue, such as a mean, are for the channels here: as many, or one."""

    def edges(self, array: Pixels) -> tuple[int, int]:
        """Return height and width, px."""

    def fit(self, array: Pixels, size_px: int) -> Pixels:
        """Resample an array in its (square) planes to this edge."""

    def picture(self, array: Pixels) -> Pixels:
        """Return a picture of an array for a person, `(H, W, 3)`."""


@dataclass(frozen=True)
class TileLayout:
    """A tile, RGB, `(H, W, C)`."""

    noun: ClassVar[str] = "images"

    task: Task = "tiles"
    planes_first: tuple[int, ...] = (2, 0, 1)

    def shape(self, size_px: int) -> tuple[int, ...]:
        """See `Layout.shape`."""
        return (size_px, size_px, 3)

    def channels(self, dimensions: int) -> int | None:
        """See `Layout.channels`."""
        return 3 if dimensions == 2 else None

    def of_channels(self, rgb: tuple[float, ...]) -> tuple[float, ...]:
        """See `Layout.of_channels`."""
        return rgb

    def edges(self, array: Pixels) -> tuple[int, int]:
        """See `Layout.edges`."""
        height, width = array.shape[:2]
        return height, width

    def fit(self, array: Pixels, size_px: int) -> Pixels:
        """See `Layout.fit`."""
        return resize(array, size_px)

    def picture(self, array: Pixels) -> Pixels:
        """Return the tile itself."""
        return array

    def __str__(self) -> str:
        return "tiles"


@dataclass(frozen=True)
class VolumeLayout:
    """A prepared volume, `(S, D, H, W)`, see `histo.volume_file`.

    Attributes:
        series: S.
        slices: D.
        preparation: How it was made of a study; None where the files do not say so.
    """

    noun: ClassVar[str] = "studies"

    series: int
    slices: int
    preparation: dict[str, Any] | None = None
    task: Task = "volumes"
    planes_first: tuple[int, ...] = (0, 1, 2, 3)

    def shape(self, size_px: int) -> tuple[int, ...]:
        """See `Layout.shape`."""
        return (self.series, self.slices, size_px, size_px)

    def channels(self, dimensions: int) -> int | None:
        """In two dimensions every slice is a channel, in three every series."""
        return self.series * self.slices if dimensions == 2 else self.series

    def of_channels(self, rgb: tuple[float, ...]) -> tuple[float, ...]:
        """Channels are no colours: they all get the mean."""
        return (fmean(rgb),)

    def edges(self, array: Pixels) -> tuple[int, int]:
        """See `Layout.edges`."""
        height, width = array.shape[2:]
        return height, width

    def fit(self, array: Pixels, size_px: int) -> Pixels:
        """See `Layout.fit`."""
        if self.edges(array) == (size_px, size_px):
            return array
        planes = array.reshape(-1, *self.edges(array))
        return np.stack([resize(plane[..., None], size_px)[..., 0] for plane in planes]).reshape(self.shape(size_px))

    def picture(self, array: Pixels) -> Pixels:
        """Return the middle slice of every series, in a square grid, as radiologists see it.

        That is from the feet: anterior on top, the patient's right on the left.
        """
        middle = array[:, array.shape[1] // 2, ::-1, ::-1]
        side = math.ceil(math.sqrt(len(middle)))
        height, width = self.edges(array)
        sheet = np.zeros((side * height, side * width), np.uint8)
        for place, plane in enumerate(middle):
            top, left = place // side * height, place % side * width
            sheet[top : top + height, left : left + width] = plane
        return np.repeat(sheet[..., None], 3, axis=2)

    def __str__(self) -> str:
        return f"volumes of {self.series} series of {self.slices} slices"


TILES = TileLayout()


def batch_axes(layout: Layout) -> tuple[int, ...]:
    """Return the order of a batch's axes that puts height and width last.

    Examples:
        >>> batch_axes(TILES), batch_axes(VolumeLayout(3, 20))
        ((0, 3, 1, 2), (0, 1, 2, 3, 4))
    """
    return (0, *(axis + 1 for axis in layout.planes_first))


def planes_shape(layout: Layout, size_px: int) -> tuple[int, ...]:
    """Return the shape of an array whose axes are in that order.

    Examples:
        >>> planes_shape(TILES, 224), planes_shape(VolumeLayout(3, 20), 512)
        ((3, 224, 224), (3, 20, 512, 512))
    """
    shape = layout.shape(size_px)
    return tuple(shape[axis] for axis in layout.planes_first)
