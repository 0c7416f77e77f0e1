"""Whole slide: its resolution, levels, tissue mask and tiles."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, overload

import numpy as np
import numpy.typing as npt

from histo.errors import ReadError, UsageError
from histo.interface.paths import StrPath, full_path
from histo.interface.words import in_python
from histo.resample import Pixels
from histo.slides.annotations.mask import find_masks
from histo.slides.empty_blocks import judge
from histo.slides.plan import SlidePlan, plan_slide
from histo.slides.readers.base import Level, Reader
from histo.slides.slide import Slide
from histo.slides.slide import open_slide as open_with_reader
from histo.slides.spec import ReaderChoice, TilingSpec, TissueSpec
from histo.slides.tiles import cut_blocks, read_tiles
from histo.slides.tissue import TissueMask, find_tissue, read_thumbnail
from histo.spec.keywords import from_keywords


class WholeSlide:
    """An open whole-slide image. Use it in a `with` statement, or close it; one thread at a time.

    Attributes:
        path: Its file.
        description: All that its metadata say.
    """

    def __init__(self, description: Slide, reader: Reader) -> None:
        self.path = Path(description.path)
        self.description = description
        self._reader: Reader | None = reader

    @property
    def size_px(self) -> tuple[int, int]:
        """Width and height, level-0 pixels."""
        return self.description.width, self.description.height

    @property
    def mpp(self) -> tuple[float, float]:
        """Resolution of level 0 along x and y, µm per pixel."""
        return self.description.mpp_x, self.description.mpp_y

    @property
    def levels(self) -> tuple[Level, ...]:
        """The pyramid, finest first: `width`, `height` and `downsample` of each level."""
        return self.description.levels

    @property
    def bounds(self) -> tuple[int, int, int, int] | None:
        """The scanned part `(x, y, width, height)`, level-0 pixels, if the file names one."""
        return self.description.bounds

    def tissue(self, mpp: float = 8.0, *, exclude_ink: bool = True, any_image: bool = False) -> TissueMask:
        """Find the tissue, as `histo label` does (method and sources: `histo.slides.tissue`).

        Args:
            mpp: Resolution of the mask, µm per pixel.
            exclude_ink: Leave out pen marks; False for stains other than haematoxylin and eosin.
            any_image: Take all of a slide that is no brightfield in colour as tissue.

        Returns:
            `mask`, bool `(H, W)`; and `cell_width` and `cell_height`, level-0 pixels per pixel of the mask.

        Raises:
            SlideError: If the mask would be too large, or the slide is not brightfield.
            ReadError: If the slide cannot be decoded.
        """
        chosen = from_keywords(TissueSpec, {"mpp": mpp, "exclude_ink": exclude_ink, "any_image": any_image})
        with in_python():
            slide = judge(self.description, self.reader)
            return find_tissue(self.reader, slide, chosen.mpp, chosen.exclude_ink, chosen.any_image)

    def thumbnail(self, mpp: float) -> Pixels:
        """Read the whole slide at about `mpp` µm per pixel: uint8 RGB `(H, W, 3)`, white where it is not readable.

        Raises:
            SlideError: If it would have more than 67 million pixels.
            ReadError: If the slide cannot be decoded.
        """
        if not mpp > 0:
            raise ValueError(f"mpp: {mpp}: a resolution is greater than 0 µm/px")
        with in_python():
            return read_thumbnail(self.reader, judge(self.description, self.reader), mpp).pixels

    def tiles(
        self,
        mpp: float,
        size_px: int,
        *,
        stride_px: int | None = None,
        tolerance: float = 0.02,
        allow_upsample: bool = False,
        tissue: TissueSpec | Mapping[str, Any] | None = None,
    ) -> "Tiles":
        """Find the tiles that hold tissue: those that `histo label` labels, with the same pixels.

        Args:
            mpp: Resolution of the tiles, µm per pixel.
            size_px: Edge of a tile, pixels of that resolution.
            stride_px: Distance of neighbouring tiles, likewise; default: the edge, no overlap.
            tolerance: Relative deviation from an integer reduction that is accepted instead of resampled.
            allow_upsample: Accept a slide that is coarser than `mpp`, and enlarge it.
            tissue: Settings of the tissue mask by the names of `--tissue`, such as `{"min_fraction": 0.5}`.

        Raises:
            SlideError: If the slide is too coarse, or its tissue cannot be found.
            UsageError: If a setting is wrong.
            ValueError: If the edge is no whole number of pixels.
        """
        tiling = from_keywords(
            TilingSpec,
            {"mpp": mpp, "stride_px": stride_px, "tolerance": tolerance, "allow_upsample": allow_upsample},
        )
        chosen = tissue if isinstance(tissue, TissueSpec) else from_keywords(TissueSpec, tissue or {})
        if not isinstance(size_px, int) or size_px < 1:
            raise ValueError(f"size_px: {size_px}: a whole number of pixels, the edge of a square tile")
        with in_python():
            mask = None
            if chosen.mask is not None:
                mask = str(find_masks(chosen, {self.path.name: str(self.path)})[self.path.name] or "")
            return Tiles(self, plan_slide(self.description, self.reader, size_px, mpp, tiling, chosen, mask))

    @property
    def reader(self) -> Reader:
        """The reader of its pixels.

        Raises:
            ValueError: If the slide is closed.
        """
        if self._reader is None:
            raise ValueError(f"{self.path}: the slide is closed; open it again")
        return self._reader

    def close(self) -> None:
        """Close the file."""
        if self._reader is not None:
            self._reader.close()
        self._reader = None

    def __enter__(self) -> Self:
        """Return the slide."""
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        """Close it."""
        self.close()

    def __repr__(self) -> str:
        """Say which slide it is."""
        width, height = self.size_px
        return f"<histo.WholeSlide {self.path}: {width} x {height} px at {self.mpp[0]:.4g} µm/px>"


@dataclass(frozen=True)
class Tile:
    """A tile of a slide.

    Attributes:
        tile_index: Its place in the full grid, as in the tables.
        x: Left edge, level-0 pixels.
        y: Top edge, likewise.
        width: Level-0 pixels.
        height: Likewise.
        tissue_fraction: Share of it under the tissue mask, 0 to 1.
        status: `ok`, or `read_error`: its pixels cannot be read.
    """

    tile_index: int
    x: int
    y: int
    width: int
    height: int
    tissue_fraction: float
    status: str
    _pixels: Pixels

    @property
    def pixels(self) -> Pixels:
        """uint8 RGB `(size_px, size_px, 3)`, white beyond the slide's edge.

        Raises:
            ReadError: If they cannot be read.
        """
        if self.status != "ok":
            raise ReadError(f"tile {self.tile_index} at ({self.x}, {self.y}): its pixels cannot be read")
        return self._pixels


class Tiles(Sequence[Tile]):
    """The tiles of a slide that hold tissue. Their pixels are read when they are asked for, neighbours together.

    Attributes:
        tile_index: Places in the full grid, `(n,)`; the order of the tiles is that of reading.
        x: Left edges, level-0 pixels, `(n,)`.
        y: Top edges, likewise.
        tissue_fraction: Share of each under the tissue mask, `(n,)`.
        mpp: Resolution of their pixels along x and y, µm per pixel.
    """

    def __init__(self, slide: WholeSlide, plan: SlidePlan) -> None:
        self._slide, self._plan = slide, plan
        blocks = [*cut_blocks(plan.grid, plan.tile_index)]
        order = np.concatenate(blocks) if blocks else np.empty(0, np.int64)
        self._blocks = [plan.tile_index[block] for block in blocks]
        self.tile_index: npt.NDArray[np.int64] = plan.tile_index[order]
        grid_x, grid_y = plan.grid.places(self.tile_index)
        self.x: npt.NDArray[np.int64] = plan.grid.x(grid_x)
        self.y: npt.NDArray[np.int64] = plan.grid.y(grid_y)
        self.tissue_fraction: npt.NDArray[np.float32] = plan.tissue_fraction[order]
        self.mpp = plan.sampling.effective_mpp_x, plan.sampling.effective_mpp_y

    def __repr__(self) -> str:
        """Say how many they are, and at which resolution."""
        size, (x, y) = self._plan.grid.size_px, self.mpp
        return f"<histo.Tiles: {len(self)} of {size} px at {x:.4g} x {y:.4g} µm/px>"

    def __len__(self) -> int:
        """Return their number."""
        return len(self.tile_index)

    def __iter__(self) -> Iterator[Tile]:
        """Read all tiles, in order; a block of up to 64 is held in memory."""
        start = 0
        for block in self._blocks:
            yield from self._read(np.arange(start, start + len(block)))
            start += len(block)

    @overload
    def __getitem__(self, number: int) -> Tile: ...
    @overload
    def __getitem__(self, number: slice) -> list[Tile]: ...
    def __getitem__(self, number: int | slice) -> Tile | list[Tile]:
        """Read one tile, or the tiles of a slice."""
        if isinstance(number, slice):
            return self._read(np.arange(len(self))[number])
        return self._read(np.arange(len(self))[[number]])[0]

    def _read(self, numbers: npt.NDArray[np.int64]) -> list[Tile]:
        grid = self._plan.grid
        pixels, bad = read_tiles(
            self._slide.reader, self._plan.slide, self._plan.sampling, grid, self.tile_index[numbers]
        )
        return [
            Tile(
                int(self.tile_index[number]),
                int(self.x[number]),
                int(self.y[number]),
                grid.width,
                grid.height,
                float(self.tissue_fraction[number]),
                "read_error" if is_bad else "ok",
                tile,
            )
            for number, tile, is_bad in zip(numbers.tolist(), pixels, bad.tolist(), strict=True)
        ]


def open_slide(
    path: StrPath,
    *,
    mpp_if_missing: float | None = None,
    mpp_override: float | None = None,
    reader: ReaderChoice = "auto",
) -> WholeSlide:
    """Open a whole-slide image.

    Args:
        path: Its file, the first one of a DICOM series.
        mpp_if_missing: Resolution of level 0 (µm/px) if the slide names none.
        mpp_override: Resolution of level 0 (µm/px), whatever the slide names.
        reader: Decoder: OpenSlide, the direct reader of tiled TIFF, or (`auto`) the latter where both agree.

    Raises:
        UsageError: If there is no such file.
        SlideError: If it is not a slide, its resolution is unknown or not plausible, or it contradicts itself.

    Examples:
        with histo.open_slide("slide.svs") as slide:
            tiles = slide.tiles(mpp=0.5, size_px=224)
            probabilities = model(tile.pixels for tile in tiles)
    """
    file = full_path(path)
    if not file.is_file():
        raise UsageError(f"{file}: {'a folder; give the file of a slide' if file.is_dir() else 'no such file'}")
    with in_python():
        return WholeSlide(*open_with_reader(str(file), mpp_if_missing, reader, mpp_override))
