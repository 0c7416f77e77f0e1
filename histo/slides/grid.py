"""Grid of tiles: their places, tissue fractions, and regions.

Tile `(i, j)` covers target pixels `[i * stride_px, i * stride_px + size_px)` along x and likewise along y, on the one
target grid of the slide that begins at level-0 pixel (0, 0). Everything else follows.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, floor

import numpy as np
import numpy.typing as npt

from histo.slides.tissue import TissueMask

REGION_TILES = 16
"""A region is a square of up to 16 x 16 = 256 neighbouring tiles."""

_ROUNDING = 1e-9
"""Error of a tissue fraction; a tile that is all tissue must not miss a minimum of 1."""

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Grid:
    """Every tile whose origin lies inside the slide.

    Attributes:
        slide_width: Level-0 pixels.
        slide_height: Level-0 pixels.
        size_px: Edge of a tile, target pixels.
        stride_px: Distance of neighbouring origins, target pixels.
        scale_x: Level-0 pixels per target pixel along x.
        scale_y: Level-0 pixels per target pixel along y.
    """

    slide_width: int
    slide_height: int
    size_px: int
    stride_px: int
    scale_x: float
    scale_y: float

    def __post_init__(self) -> None:
        for name in ("slide_width", "slide_height", "size_px", "stride_px", "scale_x", "scale_y"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, not {getattr(self, name)}")

    @property
    def columns(self) -> int:
        """Number of tiles along x."""
        return _count(self.slide_width, self.stride_px * self.scale_x)

    @property
    def rows(self) -> int:
        """Number of tiles along y."""
        return _count(self.slide_height, self.stride_px * self.scale_y)

    @property
    def width(self) -> int:
        """Width of every tile, level-0 pixels."""
        return floor(self.size_px * self.scale_x + 0.5)

    @property
    def height(self) -> int:
        """Height of every tile, level-0 pixels."""
        return floor(self.size_px * self.scale_y + 0.5)

    def x(self, grid_x: Indices) -> Indices:
        """Left edges, level-0 pixels."""
        return _origins(grid_x, self.stride_px * self.scale_x)

    def y(self, grid_y: Indices) -> Indices:
        """Top edges, level-0 pixels."""
        return _origins(grid_y, self.stride_px * self.scale_y)

    def places(self, tile_index: Indices) -> tuple[Indices, Indices]:
        """Return `(grid_x, grid_y)` of tiles."""
        grid_y, grid_x = np.divmod(np.asarray(tile_index, np.int64), self.columns)
        return grid_x, grid_y


@dataclass(frozen=True)
class Region:
    """The unit of work: the kept tiles of one square of the grid.

    Attributes:
        name: Unique within the slide; it depends on the grid alone.
        tile_index: Ascending, `(n,)`.
        tissue_fraction: `(n,)`.
    """

    name: str
    tile_index: Indices
    tissue_fraction: npt.NDArray[np.float32]


def keep_tissue(grid: Grid, mask: TissueMask, min_fraction: float) -> tuple[Indices, npt.NDArray[np.float32]]:
    """Return the index and tissue fraction of every tile with at least `min_fraction` of tissue, in grid order."""
    columns = np.arange(grid.columns)
    kept, fractions = [], []
    left = grid.x(columns).astype(np.float64)
    for row in range(grid.rows):
        top = float(grid.y(np.asarray([row]))[0])
        fraction = mask.fraction(left, top, grid.width, grid.height)
        chosen = np.flatnonzero(fraction >= min_fraction - _ROUNDING)
        kept.append(row * grid.columns + chosen)
        fractions.append(fraction[chosen])
    return np.concatenate(kept).astype(np.int64), np.concatenate(fractions).astype(np.float32)


def cut_regions(grid: Grid, tile_index: Indices, tissue_fraction: npt.NDArray[np.float32]) -> Iterator[Region]:
    """Group kept tiles by the square of the grid that they lie in."""
    for (row, column), members in squares(grid, tile_index, REGION_TILES):
        yield Region(f"r{row:04d}_{column:04d}", tile_index[members], tissue_fraction[members])


def squares(grid: Grid, tile_index: Indices, edge: int) -> Iterator[tuple[tuple[int, int], Indices]]:
    """Group tiles by squares of `edge` x `edge` places: `(row, column)` of each, and positions in `tile_index`."""
    grid_x, grid_y = grid.places(tile_index)
    across = ceil(grid.columns / edge)
    square = (grid_y // edge) * across + grid_x // edge
    order = np.argsort(square, kind="stable")
    numbers, starts = np.unique(square[order], return_index=True)
    for number, members in zip(numbers.tolist(), np.split(order, starts[1:]), strict=False):
        yield divmod(number, across), members


def _origins(index: Indices, step: float) -> Indices:
    return np.floor(np.asarray(index, np.float64) * step + 0.5).astype(np.int64)


def _count(extent: int, step: float) -> int:
    """Count the origins `floor(i * step + 0.5)` that lie in `[0, extent)`, at least one."""
    count = max(1, ceil((extent - 0.5) / step))
    while floor(count * step + 0.5) < extent:
        count += 1
    while count > 1 and floor((count - 1) * step + 0.5) >= extent:
        count -= 1
    return count
