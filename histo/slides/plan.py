"""Everything about a slide that is decided before its first tile is read."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from histo import tables
from histo.errors import Cause, ReadError, SlideError
from histo.remote.location import AnyPath
from histo.slides.annotations.mask import masked
from histo.slides.empty_blocks import as_shown, judge
from histo.slides.grid import Grid, Indices, Region, cut_regions, keep_tissue
from histo.slides.readers.base import Reader
from histo.slides.resolution import Sampling, choose_sampling
from histo.slides.slide import Slide
from histo.slides.spec import TilingSpec, TissueSpec
from histo.slides.tissue import find_tissue

MOST_TILES = 2**31 - 1
"""`tile_index` is a 32-bit number."""


@dataclass(frozen=True)
class SlidePlan:
    """A slide that is ready to be read.

    Attributes:
        slide: Its description, which of its empty blocks are white included.
        sampling: Which level is read, and how it is reduced.
        grid: All tiles.
        tile_index: The kept tiles, ascending, `(n,)`.
        tissue_fraction: Of each kept tile, `(n,)`.
        tissue_mm2: Area of the tissue mask.
        reader: Name of the reader that decodes it.
    """

    slide: Slide
    sampling: Sampling
    grid: Grid
    tile_index: Indices
    tissue_fraction: npt.NDArray[np.float32]
    tissue_mm2: float
    reader: str

    def regions(self) -> Iterator[Region]:
        """Yield the units of work, in grid order."""
        return cut_regions(self.grid, self.tile_index, self.tissue_fraction)


@dataclass(frozen=True)
class KeptTiles:
    """Tiles of a slide that have enough tissue, as they were found before.

    Attributes:
        tile_index: Their places in the grid, ascending, `(n,)`.
        tissue_fraction: Of each, `(n,)`.
        tissue_mm2: Area of the tissue mask.
    """

    tile_index: Indices
    tissue_fraction: npt.NDArray[np.float32]
    tissue_mm2: float

    def write(self, path: AnyPath, key: str) -> None:
        """Write them to a Parquet file.

        Args:
            path: The file.
            key: Of all that they depend on.
        """
        layout = tables.schema(tables.KEPT_TILES, metadata={"key": key, "tissue_mm2": repr(self.tissue_mm2)})
        tables.write_table(path, pa.table([self.tile_index, self.tissue_fraction], schema=layout))

    @classmethod
    def read(cls, path: AnyPath, key: str) -> "KeptTiles | None":
        """Read them; None if there are none that depend on the same."""
        try:
            with tables.open_table(path) as file:
                said: dict[bytes, bytes] = file.schema_arrow.metadata or {}
                if said.get(b"histo.key") != key.encode():
                    return None
                rows = file.read([column.name for column in tables.KEPT_TILES])
                index, share = (column.to_numpy() for column in rows.columns)
                return cls(index, share, float(said[b"histo.tissue_mm2"]))
        except (OSError, KeyError, ValueError, pa.ArrowException):
            return None


def lay_tiles(slide: Slide, size_px: int, mpp: float, tiling: TilingSpec) -> tuple[Sampling, Grid]:
    """Choose the level that is read, and lay the grid, by the header of a slide alone.

    Args:
        slide: Its description.
        size_px: Edge of a tile, target pixels.
        mpp: Requested resolution, µm per target pixel.
        tiling: Stride and tolerance.

    Raises:
        SlideError: If the slide is too coarse, or has too many tiles.
    """
    sampling = choose_sampling(slide, mpp, tiling.tolerance, tiling.allow_upsample)
    return sampling, _lay_grid(slide, sampling, size_px, tiling.stride_px or size_px)


def plan_slide(
    slide: Slide,
    reader: Reader,
    size_px: int,
    mpp: float,
    tiling: TilingSpec,
    tissue: TissueSpec,
    mask: str | None = None,
) -> SlidePlan:
    """Find the tissue of an open slide, and lay the grid.

    Args:
        slide: Its description.
        reader: Decodes its pixels.
        size_px: Edge of a tile, target pixels.
        mpp: Requested resolution, µm per target pixel.
        tiling: Stride and tolerance.
        tissue: What counts as tissue.
        mask: File of the slide's mask, empty if it has none; None if masks from elsewhere are not asked for.

    Raises:
        SlideError: If the slide or its mask cannot be used.
    """
    sampling, grid = lay_tiles(slide, size_px, mpp, tiling)
    slide = judge(slide, reader)
    return _planned(slide, reader, sampling, grid, _find_tiles(slide, reader, grid, tissue, mask))


def plan_again(
    slide: Slide, reader: Reader, size_px: int, mpp: float, tiling: TilingSpec, kept: KeptTiles
) -> SlidePlan:
    """Lay the grid of an open slide whose tiles were found before; see `plan_slide`.

    Raises:
        SlideError: If the slide cannot be used.
    """
    sampling, grid = lay_tiles(slide, size_px, mpp, tiling)
    return _planned(judge(slide, reader), reader, sampling, grid, kept)


def _planned(slide: Slide, reader: Reader, sampling: Sampling, grid: Grid, kept: KeptTiles) -> SlidePlan:
    shown = as_shown(slide, reader)
    return SlidePlan(shown, sampling, grid, kept.tile_index, kept.tissue_fraction, kept.tissue_mm2, reader.name)


def _find_tiles(slide: Slide, reader: Reader, grid: Grid, tissue: TissueSpec, mask: str | None) -> KeptTiles:
    try:
        found = find_tissue(reader, slide, tissue.mpp, tissue.exclude_ink, tissue.any_image)
    except ReadError as error:
        raise SlideError(
            Cause.UNREADABLE,
            f"{slide.path}: opens, but its pixels cannot be read ({error}); the file is damaged, copy or export it "
            "again",
        ) from error
    if mask is not None:
        found = masked(found, slide, tissue, mask)
    tile_index, tissue_fraction = keep_tissue(grid, found, tissue.min_fraction)
    return KeptTiles(tile_index, tissue_fraction, found.area_um2(slide.mpp_x, slide.mpp_y) / 1e6)


def _lay_grid(slide: Slide, sampling: Sampling, size_px: int, stride_px: int) -> Grid:
    grid = Grid(slide.width, slide.height, size_px, stride_px, sampling.scale_x, sampling.scale_y)
    if grid.columns * grid.rows > MOST_TILES:
        raise SlideError(
            Cause.TOO_MANY_TILES,
            f"{slide.path}: its grid has {grid.columns} x {grid.rows} tiles, more than can be numbered; use a larger "
            "stride",
        )
    return grid
