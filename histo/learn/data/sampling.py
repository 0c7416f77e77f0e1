"""Load a sample of the images of a source."""

import math

import numpy as np

from histo.errors import ImageError
from histo.learn.data.source import Source
from histo.learn.data.subset import evenly
from histo.resample import Pixels

_MOST_VALUES = 2**30


def load_evenly(source: Source, size_px: int, most: int) -> tuple[Pixels, list[str]]:
    """Load at most so many images of a source, and at most a gigabyte, evenly taken, those that are broken left out.

    Returns:
        uint8, `(n, *layout.shape(size_px))`, and why images were left out.
    """
    layout = source.images.layout
    shape = layout.shape(size_px)
    tiles, broken = [], []
    for case in evenly(np.arange(len(source.cases)), min(most, max(1, _MOST_VALUES // math.prod(shape)))).tolist():
        try:
            tiles.append(layout.fit(source.images.load(case), size_px))
        except ImageError as error:
            broken.append(str(error))
    return np.stack(tiles) if tiles else np.empty((0, *shape), np.uint8), broken
