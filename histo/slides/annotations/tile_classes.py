"""Give tiles the classes of the areas that they lie in."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from histo.slides.annotations.areas import Areas
from histo.slides.grid import Grid

NO_CLASS = -1
_ROUNDING = 1e-9
"""Error of a share; a tile that lies in its class as a whole must not miss a minimum of 1."""


@dataclass(frozen=True)
class TileClasses:
    """Classes of all tiles of a grid, in its order.

    Attributes:
        number: Of each tile's class, `NO_CLASS` where none has the least share of it, `(n,)`.
        share: Of the class that has most of the tile, `(n,)`.
        touched: Whether any area touches the tile, `(n,)`.
    """

    number: npt.NDArray[np.int16]
    share: npt.NDArray[np.float32]
    touched: npt.NDArray[np.bool_]


def classify_tiles(grid: Grid, areas: Areas, classes: Sequence[str], min_share: float) -> TileClasses:
    """Give each tile the class that has most of it, if it has enough; of equals, the first.

    Args:
        grid: All tiles.
        areas: Of the classes.
        classes: All classes, in order.
        min_share: Least share of a tile, 0 to 1.
    """
    count = grid.columns * grid.rows
    found = TileClasses(np.full(count, NO_CLASS, np.int16), np.zeros(count, np.float32), np.zeros(count, np.bool_))
    left = grid.x(np.arange(grid.columns)).astype(np.float64)
    names = [name for name in classes if name in areas.classes]
    numbers = np.array([classes.index(name) for name in names], np.int16)
    for row in range(grid.rows):
        top = float(grid.y(np.array([row]))[0])
        here = np.s_[row * grid.columns : (row + 1) * grid.columns]
        shares = {name: areas.shares(name, left, top, grid.width, grid.height) for name in areas.classes}
        for share in shares.values():
            found.touched[here] |= share > _ROUNDING
        if names and found.touched[here].any():
            of_classes = np.stack([shares[name] for name in names])
            found.share[here] = of_classes.max(axis=0)
            enough = of_classes.max(axis=0) >= max(min_share - _ROUNDING, 2 * _ROUNDING)
            found.number[here] = np.where(enough, numbers[of_classes.argmax(axis=0)], NO_CLASS)
    return found
