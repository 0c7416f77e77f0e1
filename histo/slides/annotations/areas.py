"""Areas of classes on a slide: their share of tiles, their cells of a mask."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt
import shapely

from histo.slides.annotations.label_map import LabelMap
from histo.slides.annotations.shapes import cells_inside, pieces
from histo.slides.tissue import Mask

Values = npt.NDArray[np.float64]


class Areas(ABC):
    """The area of each class; no place has two."""

    classes: tuple[str, ...]
    """Those that have one, and `shapes.DROPPED` and `shapes.UNNAMED`, if there are such areas."""

    @abstractmethod
    def shares(self, name: str, x: Values, y: float, width: float, height: float) -> Values:
        """Return the share, 0 to 1, that a class has of each rectangle of one row, exactly.

        Args:
            name: The class.
            x: Left edges, ascending, `(n,)`, level-0 pixels.
            y: Top edge, level-0 pixels.
            width: Level-0 pixels.
            height: Level-0 pixels.
        """

    @abstractmethod
    def cells(self, name: str, rows: int, columns: int, cell_width: float, cell_height: float) -> Mask:
        """Tell which cells of a raster have their centre in a class, `(rows, columns)`; see `cells_inside`."""

    @abstractmethod
    def outlines(self, name: str) -> list[Values]:
        """Return the outlines of a class, points `(n, 2)` each, level-0 pixels."""


class ShapeAreas(Areas):
    """Areas with outlines.

    Args:
        of: A valid polygon or multipolygon for each class, level-0 pixels.
    """

    def __init__(self, of: dict[str, shapely.Geometry]) -> None:
        self._of = of
        self.classes = tuple(of)
        self._parts = {name: pieces(area) for name, area in of.items()}
        self._trees = {name: shapely.STRtree(parts) for name, parts in self._parts.items()}

    def shares(self, name: str, x: Values, y: float, width: float, height: float) -> Values:
        """See `Areas.shares`."""
        share = np.zeros(len(x))
        if not len(x):
            return share
        row = shapely.box(x[0], y, x[-1] + width, y + height)
        near = self._trees[name].query(row, predicate="intersects")
        strips = shapely.intersection(self._parts[name][near], row)
        tiles = shapely.box(x, y, x + width, y + height)
        strip, tile = shapely.STRtree(tiles).query(strips, predicate="intersects")
        np.add.at(share, tile, shapely.area(shapely.intersection(strips[strip], tiles[tile])))
        return share / (width * height)

    def cells(self, name: str, rows: int, columns: int, cell_width: float, cell_height: float) -> Mask:
        """See `Areas.cells`."""
        return cells_inside(self._of[name], rows, columns, cell_width, cell_height)

    def outlines(self, name: str) -> list[Values]:
        """See `Areas.outlines`."""
        rings = shapely.get_rings(shapely.get_parts(self._of[name]))
        return [shapely.get_coordinates(ring) for ring in rings]


class MapAreas(Areas):
    """Areas of a label map.

    Args:
        labels: The map.
        class_of: Class of each of its names; see `shapes.without_overlaps`.
    """

    def __init__(self, labels: LabelMap, class_of: Callable[[str | None], str | None]) -> None:
        self._labels = labels
        self.classes = tuple(dict.fromkeys(of for name in labels.names.values() if (of := class_of(name)) is not None))
        self._chosen = {name: labels.where(class_of, name) for name in self.classes}
        self._masks = {name: labels.mask(chosen) for name, chosen in self._chosen.items()}

    def shares(self, name: str, x: Values, y: float, width: float, height: float) -> Values:
        """See `Areas.shares`."""
        left, top = x - self._labels.left, y - self._labels.top
        return self._masks[name].fraction(left, top, width, height)

    def cells(self, name: str, rows: int, columns: int, cell_width: float, cell_height: float) -> Mask:
        """See `Areas.cells`."""
        return self._labels.cells(self._chosen[name], rows, columns, cell_width, cell_height)

    def outlines(self, name: str) -> list[Values]:
        """See `Areas.outlines`; they go through the middles of the outermost pixels."""
        labels = self._labels
        found, _ = cv2.findContours(self._chosen[name].astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
        corner, cell = np.array([labels.left, labels.top]), np.array([labels.cell_width, labels.cell_height])
        lines = [np.concatenate([line, line[:1]]).reshape(-1, 2) for line in map(np.asarray, found)]
        return [corner + (line + 0.5) * cell for line in lines]
