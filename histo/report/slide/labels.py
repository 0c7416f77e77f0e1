"""Read a slide's tile table as maps over the grid of tiles."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from histo import tables
from histo.errors import Cause, InputError, UsageError
from histo.remote.location import AnyPath
from histo.slides.grid import Grid
from histo.spec.names import nearest

NO_TILE, UNREADABLE = -1, -2
"""In the place of a class: there is no tile, or it could not be read."""

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Axis:
    """The tiles along one axis.

    Attributes:
        slide_um: Length of the slide, µm.
        stride_um: Distance of neighbouring tiles, µm.
        size_um: Edge of a tile, µm.
        tiles: Places of the grid.
    """

    slide_um: float
    stride_um: float
    size_um: float
    tiles: int

    def at(self, um: npt.NDArray[np.floating]) -> Indices:
        """Return the tile at each place, given in µm; `NO_TILE` beside the grid and between tiles that are apart.

        Where tiles overlap, each has the stride's length around its middle.
        """
        shown_um = min(self.stride_um, self.size_um)
        along = (um - (self.size_um - shown_um) / 2) / self.stride_um
        tile = np.floor(along).astype(np.int64)
        inside = (tile >= 0) & (tile < self.tiles) & ((along - tile) * self.stride_um < shown_um) & (um < self.slide_um)
        return np.where(inside, tile, NO_TILE)

    def edges_px(self, mpp: float) -> Indices:
        """Return the edges of the tiles' cells, level-0 pixels, `(tiles + 1,)`: one stride apart, a tile amid each two.

        Args:
            mpp: µm per level-0 pixel.
        """
        starts_um = np.arange(self.tiles + 1) * self.stride_um + (self.size_um - self.stride_um) / 2
        edges: Indices = np.floor(starts_um / mpp + 0.5).astype(np.int64)
        return edges

    def pixels(self, count: int, um_per_px: float, first: int = 0) -> Indices:
        """Return the tile at the middle of each of `count` pixels, from the `first` one of the slide on."""
        return self.at((np.arange(first, first + count) + 0.5) * um_per_px)


@dataclass(frozen=True)
class SlideLabels:
    """What a label run found on a slide.

    Attributes:
        slide_id: The slide.
        classes: All classes, in order.
        x: The tiles along x.
        y: The tiles along y.
        mpp: µm per level-0 pixel `(x, y)`.
        mpp_source: `metadata`, `if_missing` or `override`.
        size_px: Edge of a tile, pixels of the model.
        effective_mpp: µm per pixel of the model `(x, y)`.
        pred: Most probable class, `NO_TILE` or `UNREADABLE`, `(rows, columns)`.
        confidence: Its probability, 0 where there is none, `(rows, columns)`.
        probabilities: Of each class that was asked for, NaN where there is none, `(rows, columns)`.
        fingerprint: Of the table.
        model_sha256: Of the bundle.
    """

    slide_id: str
    classes: tuple[str, ...]
    x: Axis
    y: Axis
    mpp: tuple[float, float]
    mpp_source: str
    size_px: int
    effective_mpp: tuple[float, float]
    pred: npt.NDArray[np.int16]
    confidence: npt.NDArray[np.float32]
    fingerprint: str
    model_sha256: str
    probabilities: Mapping[str, npt.NDArray[np.float32]] = field(default_factory=dict)

    def count(self, value: int) -> int:
        """Return the number of tiles of a class, or of those that are `UNREADABLE`."""
        return int((self.pred == value).sum())

    @property
    def tile_mm2(self) -> float:
        """Area that a tile stands for: its stride's, as in the ledger."""
        return self.x.stride_um * self.y.stride_um / 1e6


def read_labels(path: AnyPath, slide_id: str, probabilities: Sequence[str] = ()) -> SlideLabels:
    """Read a slide's tile table.

    Args:
        path: The table.
        slide_id: The slide.
        probabilities: Classes of which every tile's probability is wanted.

    Raises:
        InputError: If it is no tile table of a label run, or cannot be read.
        UsageError: If it has no such class.
    """
    columns = ["grid_x", "grid_y", "pred", "confidence"]
    try:
        with tables.open_table(path) as file:
            footer = {key.decode(): value for key, value in (file.schema_arrow.metadata or {}).items()}
            classes = tuple(json.loads(footer["histo.classes"]))
            for name in probabilities:
                if name not in classes:
                    raise UsageError(f"--probabilities {name}: no class of these tables{nearest(name, list(classes))}")
            table = file.read([*columns, *(f"prob_{name}" for name in probabilities)])
        slide, tiling = json.loads(footer["histo.slide"]), json.loads(footer["histo.tiling"])
        grid_x, grid_y = (table[name].to_numpy() for name in columns[:2])
        grid, (mpp_x, mpp_y) = _grid(slide, tiling), (slide["mpp_x"], slide["mpp_y"])
        shape = (max(grid.rows, grid_y.max(initial=0) + 1), max(grid.columns, grid_x.max(initial=0) + 1))

        def spread(name: str, fill: float, empty: float, dtype: type) -> Any:
            values = table[name].to_numpy()
            values = np.where(np.isnan(values.astype(np.float64)), fill, values)
            whole = np.full(shape, empty, dtype)
            whole[grid_y, grid_x] = values
            return whole

        return SlideLabels(
            slide_id,
            classes,
            _axis(slide["width"], mpp_x, grid.stride_px * grid.scale_x, grid.size_px * grid.scale_x, shape[1]),
            _axis(slide["height"], mpp_y, grid.stride_px * grid.scale_y, grid.size_px * grid.scale_y, shape[0]),
            (mpp_x, mpp_y),
            slide["mpp_source"],
            grid.size_px,
            tuple(tiling["effective_mpp"]),
            spread("pred", UNREADABLE, NO_TILE, np.int16),
            spread("confidence", 0, 0, np.float32),
            footer["histo.fingerprint"].decode(),
            footer["histo.model_sha256"].decode(),
            {name: spread(f"prob_{name}", np.nan, np.nan, np.float32) for name in probabilities},
        )
    except (OSError, pa.ArrowException, KeyError, IndexError, TypeError) as error:
        said = " ".join(str(error).split())
        raise InputError(
            Cause.UNREADABLE, f"{path}: not a whole tile table of a label run ({said}); label the slide again"
        ) from error


def _grid(slide: dict[str, Any], tiling: dict[str, Any]) -> Grid:
    scale = [mpp / slide[name] for mpp, name in zip(tiling["effective_mpp"], ("mpp_x", "mpp_y"), strict=True)]
    return Grid(slide["width"], slide["height"], tiling["size_px"], tiling["stride_px"], *scale)


def _axis(slide_px: int, mpp: float, stride_px: float, size_px: float, tiles: int) -> Axis:
    return Axis(slide_px * mpp, stride_px * mpp, size_px * mpp, tiles)
