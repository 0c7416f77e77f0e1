"""Label maps: images with classes as their values, and tables of tiles."""

import json
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import tifffile
from PIL import Image

from histo import tables
from histo.regular_file import require_regular
from histo.slides.annotations.shapes import bad
from histo.slides.slide import Slide
from histo.slides.tissue import Mask, TissueMask

MOST_PIXELS = 2**26
"""Of a label map, which is held whole."""
_ONE_CHANNEL = {"1", "L", "P", "I;16", "I;16B", "I"}
_MOST_CLASSES = 64
_ROUNDING = 0.005
"""Relative error of the edges of a map, beside one pixel: programs round them."""


_DAMAGED = (ValueError, SyntaxError, RuntimeError, LookupError, struct.error, zlib.error, tifffile.TiffFileError)
"""Errors of Pillow, tifffile and imagecodecs about files that are damaged; beside `OSError`."""


@dataclass(frozen=True)
class LabelMap:
    """A raster of classes over a slide.

    Attributes:
        path: Its file.
        values: Number of the class of each pixel, `(H, W)`.
        names: Of the numbers that are classes.
        left: Left edge of the raster, level-0 pixels.
        top: Likewise.
        cell_width: Level-0 pixels per pixel of it.
        cell_height: Likewise.
    """

    path: str
    values: npt.NDArray[np.integer[Any]]
    names: dict[int, str]
    left: float
    top: float
    cell_width: float
    cell_height: float

    def where(self, class_of: Callable[[str | None], str | None], name: str) -> Mask:
        """Tell which pixels have a name that stands for a class."""
        return np.isin(self.values, [number for number, own in self.names.items() if class_of(own) == name])

    def mask(self, chosen: Mask) -> TissueMask:
        """Make a mask of some pixels, as if the corner of the raster were that of the slide."""
        return TissueMask(chosen, self.cell_width, self.cell_height)

    def cells(self, chosen: Mask, rows: int, columns: int, cell_width: float, cell_height: float) -> Mask:
        """Tell which cells of another raster, from level-0 pixel (0, 0) on, have their centre in some pixels."""
        down = np.floor(((np.arange(rows) + 0.5) * cell_height - self.top) / self.cell_height).astype(np.int64)
        across = np.floor(((np.arange(columns) + 0.5) * cell_width - self.left) / self.cell_width).astype(np.int64)
        height, width = chosen.shape
        inside = ((down >= 0) & (down < height))[:, None] & ((across >= 0) & (across < width))
        cells: Mask = inside & chosen[np.ix_(np.clip(down, 0, height - 1), np.clip(across, 0, width - 1))]
        return cells


def read_label_map(path: Path, slide: Slide, bounds: bool) -> LabelMap:
    """Read a PNG or TIFF image of one channel; value 0 is no class.

    It covers the scanned part of a slide that names its bounds, or the whole slide, as its shape says; if both are of
    its shape, the former.

    Args:
        path: The image; of a TIFF pyramid, the finest level of at most `MOST_PIXELS` is taken.
        slide: The slide.
        bounds: Whether it may cover the scanned part.

    Raises:
        SlideError: If it is no such image, or not of the shape of the slide.
    """
    values = _read_values(path)
    found = np.unique(values[values != 0])
    if len(found) > _MOST_CLASSES:
        raise bad(str(path), f"has {len(found)} different values, and is no map of classes, but a picture")
    names = {int(value): str(int(value)) for value in found}
    height, width = values.shape
    frames = [slide.bounds] if bounds and slide.bounds else []
    for left, top, frame_width, frame_height in (*frames, (0, 0, slide.width, slide.height)):
        expected = width * frame_height / frame_width
        if abs(height - expected) <= 1 + frame_height / frame_width + _ROUNDING * height:
            cell = frame_width / width, frame_height / height
            return LabelMap(str(path), values, names, left, top, *cell)
    raise bad(
        str(path),
        f"is {width} x {height} px, which is not the shape of {slide.path} ({slide.width} x {slide.height} px); give a "
        "map of the whole slide",
    )


def _read_values(path: Path) -> npt.NDArray[np.integer[Any]]:
    try:
        require_regular(path)
        if path.suffix.lower() == ".png":
            return _read_png(path)
        return _read_tiff(path)
    except OSError as error:
        raise bad(str(path), f"not a readable image ({error.strerror or error})") from None
    except _DAMAGED as error:
        raise bad(str(path), f"not a readable label map ({' '.join(str(error).split())})") from None


def _read_png(path: Path) -> npt.NDArray[np.integer[Any]]:
    with Image.open(path) as image:
        if image.width * image.height > MOST_PIXELS:
            raise ValueError(f"more than {MOST_PIXELS} px; make it smaller, or a TIFF pyramid")
        if image.mode not in _ONE_CHANNEL:
            raise ValueError(f"it is {image.mode}; the classes are the values of one grey or palette channel")
        values = np.array(image)
    return values.astype(np.uint8) if values.dtype == np.bool_ else values


def _read_tiff(path: Path) -> npt.NDArray[np.integer[Any]]:
    with tifffile.TiffFile(path) as file:
        levels = [level for level in file.series[0].levels if np.prod(level.shape) <= MOST_PIXELS]
        if not levels:
            raise ValueError(f"no level of at most {MOST_PIXELS} px; make it smaller, or a pyramid")
        values = np.squeeze(levels[0].asarray())
    if values.ndim != 2 or values.dtype.kind not in "biu":
        raise ValueError(f"it is {values.shape} {values.dtype}; the classes are whole numbers of one channel")
    return values.astype(np.uint8) if values.dtype == np.bool_ else values


def read_label_table(path: Path, slide: Slide) -> LabelMap:
    """Read the tile table of a label run: the classes of its tiles, each a cell of one stride about its middle.

    Raises:
        SlideError: If it is no tile table, or of a slide of another size.
    """
    try:
        with tables.open_table(path) as file:
            footer = file.schema_arrow.metadata or {}
            classes = json.loads(footer[b"histo.classes"])
            known, tiling = json.loads(footer[b"histo.slide"]), json.loads(footer[b"histo.tiling"])
            columns = file.read(["grid_x", "grid_y", "pred"])
        grid_x, grid_y = (columns[name].to_numpy() for name in ("grid_x", "grid_y"))
        pred = columns["pred"].fill_null(-1).to_numpy()
        cell, offset = _cell(tiling, known)
        size = known["width"], known["height"]
    except (OSError, pa.ArrowException, KeyError, ValueError, TypeError) as error:
        raise bad(str(path), f"not a tile table of a label run ({' '.join(str(error).split())})") from None
    places = (size[0] / cell[0] + 1, size[1] / cell[1] + 1)
    if len(grid_x) and (grid_x.max() > places[0] or grid_y.max() > places[1] or min(grid_x.min(), grid_y.min()) < 0):
        raise bad(str(path), "names tiles beyond its slide; label the slide again")
    if size != (slide.width, slide.height):
        raise bad(
            str(path), f"of a slide of {size[0]} x {size[1]} px, and {slide.path} has {slide.width} x {slide.height}"
        )
    values = np.zeros((grid_y.max(initial=0) + 1, grid_x.max(initial=0) + 1), np.int16)
    values[grid_y, grid_x] = pred + 1
    names = dict(enumerate(classes, start=1))
    return LabelMap(str(path), values, names, *offset, *cell)


def read_table_classes(path: Path) -> tuple[str, ...]:
    """Return the classes of a tile table of a label run.

    Raises:
        SlideError: If it is none.
    """
    try:
        with tables.open_table(path) as file:
            return tuple(json.loads((file.schema_arrow.metadata or {})[b"histo.classes"]))
    except (OSError, pa.ArrowException, KeyError, ValueError, TypeError) as error:
        raise bad(str(path), f"not a tile table of a label run ({' '.join(str(error).split())})") from None


def _cell(tiling: dict[str, Any], slide: dict[str, Any]) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the size of a cell, and where the first one begins, level-0 pixels `(x, y)`."""
    scale = [mpp / slide[name] for mpp, name in zip(tiling["effective_mpp"], ("mpp_x", "mpp_y"), strict=True)]
    stride, size = tiling["stride_px"], tiling["size_px"]
    cell_x, cell_y = (stride * level_0 for level_0 in scale)
    left, top = ((size - stride) / 2 * level_0 for level_0 in scale)
    return (cell_x, cell_y), (left, top)
