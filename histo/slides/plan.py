"""Everything about a slide that is decided before its first tile is read."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from histo.errors import Cause, ReadError, SlideError
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
    sampling = choose_sampling(slide, mpp, tiling.tolerance, tiling.allow_upsample)
    grid = _lay_grid(slide, sampling, size_px, tiling.stride_px or size_px)
    slide = judge(slide, reader)
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
    area = found.area_um2(slide.mpp_x, slide.mpp_y) / 1e6
    return SlidePlan(as_shown(slide, reader), sampling, grid, tile_index, tissue_fraction, area, reader.name)


def _lay_grid(slide: Slide, sampling: Sampling, size_px: int, stride_px: int) -> Grid:
    grid = Grid(slide.width, slide.height, size_px, stride_px, sampling.scale_x, sampling.scale_y)
    if grid.columns * grid.rows > MOST_TILES:
        raise SlideError(
            Cause.TOO_MANY_TILES,
            f"{slide.path}: its grid has {grid.columns} x {grid.rows} tiles, more than can be numbered; use a larger "
            "stride",
        )
    return grid
