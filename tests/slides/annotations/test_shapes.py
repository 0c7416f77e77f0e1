"""Shapes: which lies on top, which contradict each other, and which cells of a raster they cover."""

from collections import Counter

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from histo.slides.annotations.areas import ShapeAreas
from histo.slides.annotations.naming import Naming
from histo.slides.annotations.shapes import DROPPED, UNNAMED, Shape, cells_inside, pieces, polygon, without_overlaps


def box(name: str | None, x: float, y: float, size: float) -> Shape:
    return Shape(name, shapely.box(x, y, x + size, y + size), "feature 1")


def joined(*shapes: Shape, drop: tuple[str, ...] = (), classes: tuple[str, ...] | None = None) -> dict[str, float]:
    areas, _ = without_overlaps(shapes, Naming({}, frozenset(drop), classes).class_of)
    return {name: area.area for name, area in areas.items()}


@pytest.mark.parametrize("order", [1, -1])
def test_a_shape_within_another_is_on_top_of_it_whichever_was_drawn_first(order: int) -> None:
    nested = (box("TUM", 0, 0, 100), box("NEC", 20, 20, 40), box("TUM", 30, 30, 10))[::order]

    assert joined(*nested) == {"TUM": 10000 - 1600 + 100, "NEC": 1600 - 100}


def test_shapes_of_one_class_are_joined() -> None:
    assert joined(box("TUM", 0, 0, 10), box("TUM", 5, 0, 10)) == {"TUM": 150}


def test_where_shapes_of_two_classes_overlap_otherwise_nothing_has_a_class() -> None:
    shapes = box("TUM", 0, 0, 10), box("STR", 5, 0, 10)

    areas, contradictions = without_overlaps(shapes, Naming().class_of)

    assert {name: area.area for name, area in areas.items()} == {"TUM": 50, "STR": 50}
    assert contradictions == 1


def test_one_shape_drawn_twice_with_two_classes_has_none() -> None:
    areas, contradictions = without_overlaps((box("TUM", 0, 0, 100), box("STR", 1, 0, 100)), Naming().class_of)

    assert {name: area.area for name, area in areas.items()} == {"TUM": 100, "STR": 100}
    assert contradictions == 1


def test_what_touches_does_not_overlap() -> None:
    areas, contradictions = without_overlaps((box("TUM", 0, 0, 10), box("STR", 10, 0, 10)), Naming().class_of)

    assert {name: area.area for name, area in areas.items()} == {"TUM": 100, "STR": 100}
    assert contradictions == 0


def test_what_is_dropped_is_cut_out_and_what_has_no_name_is_as_if_it_were_not_there() -> None:
    shapes = box("TUM", 0, 0, 100), box("Ignore*", 10, 10, 20), box(None, 50, 50, 20)

    assert joined(*shapes, drop=("Ignore*",)) == {"TUM": 9600, DROPPED: 400, UNNAMED: 400}
    assert joined(*shapes, classes=("TUM",)) == {"TUM": 9600, DROPPED: 400, UNNAMED: 400}
    assert joined(*shapes) == {"TUM": 9600, DROPPED: 400, UNNAMED: 400}, "an asterisk is QuPath's sign of no class"


def test_a_hole_beside_its_outline_takes_and_adds_nothing() -> None:
    outline, beside, across = (
        np.array(shapely.box(*bounds).exterior.coords)
        for bounds in ((0, 0, 100, 100), (200, 0, 300, 100), (50, 0, 150, 100))
    )

    assert polygon([outline, beside], Counter()).area == 10000
    assert polygon([outline, across], Counter()).area == 5000
    assert polygon([outline, across, beside], Counter()).area == 5000


def test_edges_that_rounding_makes_overlap_are_no_contradiction() -> None:
    left = Shape("TUM", shapely.box(0, 0, 100.000001, 100), "feature 1")

    _, contradictions = without_overlaps((left, box("STR", 100, 0, 100)), Naming().class_of)

    assert contradictions == 0


@given(
    corners=st.lists(st.tuples(st.integers(-40, 140), st.integers(-40, 140)), min_size=3, max_size=12, unique=True),
    hole=st.tuples(st.integers(0, 90), st.integers(0, 90), st.integers(1, 60)),
    cell=st.tuples(st.sampled_from([3.0, 7.25, 10.0]), st.sampled_from([4.0, 6.5])),
)
@settings(deadline=None, max_examples=200)
def test_cells_are_those_whose_centre_lies_inside(
    corners: list[tuple[int, int]], hole: tuple[int, int, int], cell: tuple[float, float]
) -> None:
    area = shapely.make_valid(shapely.Polygon(corners), method="structure", keep_collapsed=False)
    area = area.difference(shapely.box(hole[0], hole[1], hole[0] + hole[2], hole[1] + hole[2]))
    columns, rows = int(100 / cell[0]), int(90 / cell[1])
    x, y = np.meshgrid((np.arange(columns) + 0.5) * cell[0], (np.arange(rows) + 0.5) * cell[1])

    found = cells_inside(area, rows, columns, *cell)

    sure = shapely.distance(shapely.points(x, y), area.boundary) > 1e-6
    np.testing.assert_array_equal(found[sure], shapely.contains_xy(area, x, y)[sure])


def test_an_area_of_many_points_is_cut_into_pieces_that_make_it_up() -> None:
    random = np.random.default_rng(0)
    angles = np.linspace(0, 2 * np.pi, 5000, endpoint=False)
    radius = 1000 * (1 + 0.2 * random.random(len(angles)))
    area = shapely.Polygon(np.stack([radius * np.cos(angles), radius * np.sin(angles)], axis=1))
    area = shapely.union_all([area.difference(shapely.box(-300, -300, 200, 100)), shapely.box(2000, 0, 2100, 50)])

    parts = pieces(area)

    assert shapely.get_num_coordinates(parts).max() <= 256
    assert shapely.area(parts).sum() == pytest.approx(area.area, rel=1e-9)
    assert shapely.union_all(parts).symmetric_difference(area).area < 1e-6 * area.area


def test_shares_of_tiles_are_exact() -> None:
    ring = shapely.Point(500, 400).buffer(300, quad_segs=2000).difference(shapely.Point(500, 400).buffer(120))
    areas = ShapeAreas({"TUM": shapely.union_all([ring, shapely.box(900, 0, 950, 1000)])})
    x = np.arange(0.0, 1000, 64)

    for y in range(-64, 900, 64):
        expected = [areas._of["TUM"].intersection(shapely.box(left, y, left + 100, y + 80)).area / 8000 for left in x]
        np.testing.assert_allclose(areas.shares("TUM", x, y, 100, 80), expected, atol=1e-12)
