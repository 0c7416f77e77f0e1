"""Write a slide's class map as a pyramidal TIFF, for QuPath and OpenSlide."""

import json
from collections.abc import Iterator, Mapping
from math import ceil

import numpy as np
import numpy.typing as npt
import tifffile
from matplotlib.colors import to_rgb

from histo import store
from histo.remote.location import AnyPath
from histo.report.slide.labels import NO_TILE, UNREADABLE, SlideLabels

_STEPS = (1, 2, 4, 8, 16)
"""Pixels of the finest level per pixel of each level."""
_PER_TILE = 16
"""Pixels of the finest level along a tile, so that tiles begin at pixels on every level."""
_BLOCK_PX = 256
_GLASS, _UNREADABLE = (255, 255, 255), (0, 0, 0)


def write_class_map(labels: SlideLabels, colours: Mapping[str, str], target: AnyPath, key: str = "") -> None:
    """Write the class of every tile in its colour: white where there is no tile, black where it could not be read.

    The finest level has 16 pixels along a tile; the resolution tags say their size. Blocks are made while they are
    written, and compressed without loss (deflate).

    Args:
        labels: What was found.
        colours: Of all classes, `#RRGGBB`.
        target: The file. Its description is JSON: the colours, the model, and the key.
        key: What the file was made of.
    """
    assert (UNREADABLE, NO_TILE) == (-2, -1)
    scheme = [tuple(round(255 * part) for part in to_rgb(colours[name])) for name in labels.classes]
    palette = np.array([*scheme, _UNREADABLE, _GLASS], np.uint8)
    mpp = labels.x.stride_um / _PER_TILE, labels.y.stride_um / _PER_TILE
    said = {"colours": dict(colours), "model_sha256": labels.model_sha256, "key": key}
    with store.put_atomic(target) as file, tifffile.TiffWriter(file, bigtiff=True) as tiff:
        for step in _STEPS:
            pixel = mpp[0] * step, mpp[1] * step
            shape = max(1, ceil(labels.y.slide_um / pixel[1])), max(1, ceil(labels.x.slide_um / pixel[0]))
            tiff.write(
                _blocks(labels, palette, shape, pixel),
                shape=(*shape, 3),
                dtype=np.uint8,
                photometric="rgb",
                tile=(_BLOCK_PX, _BLOCK_PX),
                compression="zlib",
                resolution=(10_000 / pixel[0], 10_000 / pixel[1]),
                resolutionunit="CENTIMETER",
                subfiletype=1 if step > 1 else 0,
                description=json.dumps(said) if step == 1 else None,
                metadata=None,
            )
            if max(shape) <= _BLOCK_PX:
                break


def _blocks(
    labels: SlideLabels, palette: npt.NDArray[np.uint8], shape: tuple[int, int], pixel: tuple[float, float]
) -> Iterator[npt.NDArray[np.uint8]]:
    for top in range(0, shape[0], _BLOCK_PX):
        rows = labels.y.pixels(_BLOCK_PX, pixel[1], top)
        for left in range(0, shape[1], _BLOCK_PX):
            columns = labels.x.pixels(_BLOCK_PX, pixel[0], left)
            inside = (rows[:, None] != NO_TILE) & (columns != NO_TILE)
            yield palette[np.where(inside, labels.pred[np.ix_(rows, columns)], NO_TILE)]
