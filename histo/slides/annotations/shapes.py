"""Shapes drawn on a slide: polygons of a name, mended by one rule."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely

from histo.errors import Cause, SlideError
from histo.slides.tissue import Mask

WITHIN = 0.95
"""Share of a shape from which on it lies within another one; one of more than this share of the other is the same."""
DROPPED, UNNAMED = "", " "
"""In the place of a class: areas that are of none; the former cover what is below them."""
_LEAST_POINTS = 3
_SLIVER_PX = 1.0
"""Area up to which two shapes only touch, level-0 pixels²."""
_FARTHEST = 2.0**31
_PIECE_POINTS = 256

Points = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Shape:
    """An area that was drawn.

    Attributes:
        name: Its class as the file names it; None where it names none.
        area: A valid polygon or multipolygon, level-0 pixels.
        place: What messages call it, such as `feature 3`.
    """

    name: str | None
    area: shapely.Geometry
    place: str


@dataclass(frozen=True)
class Drawing:
    """The shapes of a file.

    Attributes:
        path: The file.
        shapes: In its order.
        notes: How often something was mended or left out, by the words for it.
    """

    path: str
    shapes: tuple[Shape, ...]
    notes: Counter[str]

    def names(self) -> Counter[str]:
        """Count the shapes of each name."""
        return Counter(shape.name for shape in self.shapes if shape.name is not None)


def bad(path: str, what: str) -> SlideError:
    """Return the error of an annotation that cannot be used."""
    return SlideError(Cause.BAD_ANNOTATION, f"{path}: {what}")


def polygon(rings: Sequence[Points], notes: Counter[str]) -> shapely.Geometry:
    """Make a valid polygon of its outer ring and its holes.

    An open ring is closed. Where rings cross themselves or each other, every part that the outer ring encloses counts,
    less what the holes enclose (GEOS's `make_valid`, method `structure`).

    Args:
        rings: Points `(n, 2)` of each.
        notes: Is told what was mended.

    Raises:
        ValueError: If it has no area; the message says why.
    """
    closed = []
    for ring in rings:
        farthest = np.abs(ring).max(initial=0)
        if not np.isfinite(farthest):
            raise ValueError("a coordinate is not a finite number")
        if farthest > _FARTHEST:
            raise ValueError(f"a coordinate is {farthest:g}, beyond any slide")
        is_open = len(ring) > 0 and bool((ring[0] != ring[-1]).any())
        if len(ring) + is_open <= _LEAST_POINTS:
            raise ValueError(f"a ring of fewer than {_LEAST_POINTS} different points encloses nothing")
        notes["open rings, closed"] += is_open
        closed.append(np.concatenate([ring, ring[:1]]) if is_open else ring)
    made = shapely.Polygon(closed[0], closed[1:])
    if made.is_valid and made.area > 0:
        return made
    shell, *holes = (
        shapely.make_valid(shapely.Polygon(ring), method="structure", keep_collapsed=False) for ring in closed
    )
    mended = _areal(shapely.difference(shell, shapely.union_all(holes)) if holes else shell)
    notes["shapes whose lines cross, mended"] += 1
    return mended


def _areal(geometry: shapely.Geometry) -> shapely.Geometry:
    """Return the part of a geometry that has an area.

    Raises:
        ValueError: If none has.
    """
    union = shapely.union_all([part for part in shapely.get_parts(geometry) if part.geom_type == "Polygon"])
    if not union.area > 0:
        raise ValueError("it encloses no area")
    return union


def without_overlaps(
    shapes: Iterable[Shape], class_of: Callable[[str | None], str | None]
) -> tuple[dict[str, shapely.Geometry], int]:
    """Join the shapes of each class, so that no place has two classes.

    A shape that lies within a larger one of another class is on top of it, as pathologists draw. Where shapes of two
    classes overlap otherwise, or are the same, their common part has no class.

    Args:
        shapes: All of a slide.
        class_of: Class of a name; `DROPPED` for one that is no class but covers what is below it, None for one that is
            neither.

    Returns:
        The area of each class, of what was dropped, and of what has no class (`UNNAMED`), which may lie over others;
        and the number of pairs of shapes that contradict each other.
    """
    all_of = [(shape, class_of(shape.name)) for shape in shapes]
    unnamed = [shape.area for shape, of in all_of if of is None]
    named = [(shape, of) for shape, of in all_of if of is not None]
    areas = np.array([shape.area for shape, _ in named], dtype=object)
    classes = np.array([of for _, of in named], dtype=object)
    covered: dict[int, list[shapely.Geometry]] = {}
    contradictions = 0
    for small, large, common in _overlaps(areas, classes):
        if common is None:
            covered.setdefault(large, []).append(areas[small])
            continue
        contradictions += 1
        covered.setdefault(small, []).append(common)
        covered.setdefault(large, []).append(common)
    for number, above in covered.items():
        areas[number] = shapely.difference(areas[number], shapely.union_all(above))
    found = {name: shapely.union_all(areas[classes == name]) for name in dict.fromkeys(of for _, of in named)}
    return found | ({UNNAMED: shapely.union_all(unnamed)} if unnamed else {}), contradictions


def _overlaps(
    areas: npt.NDArray[np.object_], classes: npt.NDArray[np.object_]
) -> Iterator[tuple[int, int, shapely.Geometry | None]]:
    """Yield the pairs of shapes of two classes that overlap: the smaller, the larger, and their common part.

    The common part is None if the smaller one lies within the larger one.
    """
    tree, sizes = shapely.STRtree(areas), shapely.area(areas)
    around, inside = tree.query(areas, predicate="contains")
    differ = classes[around] != classes[inside]
    within = {*zip(inside[differ].tolist(), around[differ].tolist(), strict=True)}
    first, second = tree.query(areas, predicate="intersects")
    differ = (first < second) & (classes[first] != classes[second])
    for i, j in zip(first[differ].tolist(), second[differ].tolist(), strict=True):
        small, large = sorted((i, j), key=lambda number: sizes[number])
        is_smaller = sizes[small] < WITHIN * sizes[large]
        if is_smaller and (small, large) in within:
            yield small, large, None
            continue
        common = shapely.intersection(areas[small], areas[large])
        if common.area > _SLIVER_PX:
            yield small, large, None if is_smaller and common.area >= WITHIN * sizes[small] else common


def pieces(area: shapely.Geometry) -> npt.NDArray[np.object_]:
    """Cut an area into polygons of few points each, so that a small part of it can be looked at alone."""
    waiting, small = [*shapely.get_parts(area)], []
    while waiting:
        part = waiting.pop()
        if shapely.get_num_coordinates(part) <= _PIECE_POINTS:
            small.append(part)
            continue
        left, top, right, bottom = part.bounds
        middle_x, middle_y = (left + right) / 2, (top + bottom) / 2
        halves = (
            ((left, top, middle_x, bottom), (middle_x, top, right, bottom))
            if right - left > bottom - top
            else ((left, top, right, middle_y), (left, middle_y, right, bottom))
        )
        cut = shapely.get_parts(shapely.get_parts(shapely.intersection(part, [shapely.box(*half) for half in halves])))
        waiting += [piece for piece in cut if piece.geom_type == "Polygon" and piece.area > 0]
    return np.array(small, dtype=object)


def cells_inside(area: shapely.Geometry, rows: int, columns: int, cell_width: float, cell_height: float) -> Mask:
    """Tell which cells of a raster have their centre in an area, `(rows, columns)`.

    Args:
        area: A valid polygon or multipolygon, level-0 pixels.
        rows: Of the raster, whose corner is level-0 pixel (0, 0).
        columns: Likewise.
        cell_width: Level-0 pixels.
        cell_height: Likewise.

    Examples:
        >>> cells_inside(shapely.box(0, 0, 20, 10), 2, 3, 10, 10).astype(int).tolist()
        [[1, 1, 0], [0, 0, 0]]
    """
    points, ring = shapely.get_coordinates(shapely.get_rings(shapely.get_parts(area)), return_index=True)
    points = points / (cell_width, cell_height) - 0.5  # centres are whole numbers
    edges = np.flatnonzero(ring[:-1] == ring[1:])
    (x_from, y_from), (x_to, y_to) = points[edges].T, points[edges + 1].T
    first = np.clip(np.ceil(np.minimum(y_from, y_to)), 0, rows).astype(np.int64)
    behind = np.clip(np.ceil(np.maximum(y_from, y_to)), 0, rows).astype(np.int64)
    count = behind - first
    edge = np.repeat(np.arange(len(edges)), count)
    row = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + first[edge]
    slope = (x_to - x_from)[edge] / (y_to - y_from)[edge]  # an edge along a row crosses none
    column = np.clip(np.ceil(x_from[edge] + (row - y_from[edge]) * slope), 0, columns).astype(np.int64)
    crossed = np.zeros((rows, columns + 1), np.uint8)
    np.bitwise_xor.at(crossed, (row, column), np.uint8(1))
    np.bitwise_xor.accumulate(crossed, axis=1, out=crossed)
    return np.ascontiguousarray(crossed[:, :columns]).view(np.bool_)
