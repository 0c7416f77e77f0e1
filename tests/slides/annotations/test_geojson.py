"""GeoJSON of QuPath and of others: what is taken, mended, left out, and refused in one line."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely

from histo.errors import Cause, SlideError
from histo.slides.annotations.geojson import read_geojson
from histo.slides.annotations.shapes import Drawing

SQUARE = [[0, 0], [10, 0], [10, 10], [0, 10], [0, 0]]
HOLE = [[2, 2], [4, 2], [4, 4], [2, 4], [2, 2]]
BOW_TIE = [[0, 0], [10, 10], [10, 0], [0, 10], [0, 0]]


def feature(geometry: Any, **properties: Any) -> dict[str, Any]:
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def square(rings: Any = None, **properties: Any) -> dict[str, Any]:
    return feature({"type": "Polygon", "coordinates": rings if rings is not None else [SQUARE]}, **properties)


def read(folder: Path, document: Any) -> Drawing:
    path = folder / "s.geojson"
    path.write_text(document if isinstance(document, str) else json.dumps(document), encoding="utf-8")
    return read_geojson(path)


def collection(*features: Any) -> dict[str, Any]:
    return {"type": "FeatureCollection", "features": [*features]}


def areas(drawing: Drawing) -> list[float]:
    return [shape.area.area for shape in drawing.shapes]


@pytest.mark.parametrize(
    ("properties", "name"),
    [
        ({"classification": {"name": "Tumor", "color": [200, 0, 0]}}, "Tumor"),
        ({"classification": {"names": ["Tumor", "Positive"]}}, "Tumor: Positive"),
        ({"classification": "Tumor"}, "Tumor"),
        ({"classification": {"name": " Tumor "}}, "Tumor"),
        ({"classification": None}, None),
        ({"name": "a note"}, None),
    ],
)
def test_the_name_is_that_of_the_classification(
    tmp_path: Path, properties: Mapping[str, Any], name: str | None
) -> None:
    (shape,) = read(tmp_path, collection(square(objectType="annotation", **properties))).shapes

    assert shape.name == name


@pytest.mark.parametrize("of", [collection, lambda *features: [*features]], ids=["collection", "list"])
def test_collections_lists_and_single_features_are_read(tmp_path: Path, of: Any) -> None:
    assert areas(read(tmp_path, of(square(), square([SQUARE, HOLE])))) == [100, 96]
    assert areas(read(tmp_path, square())) == [100]


def test_holes_multipolygons_and_nested_collections_keep_their_area(tmp_path: Path) -> None:
    far = (np.array(SQUARE) + 100).tolist()
    multi = {"type": "MultiPolygon", "coordinates": [[SQUARE, HOLE], [far]]}
    nested = {"type": "GeometryCollection", "geometries": [multi, {"type": "Point", "coordinates": [1, 1]}]}

    drawing = read(
        tmp_path, collection(feature(multi), feature({"type": "GeometryCollection", "geometries": [nested]}))
    )

    assert areas(drawing) == [196, 196]
    assert drawing.notes == {"points and lines, left out": 1}


def test_what_is_no_region_is_counted_and_left_out(tmp_path: Path) -> None:
    line = {"type": "LineString", "coordinates": [[0, 0], [5, 5]]}

    drawing = read(
        tmp_path,
        collection(
            feature(line),
            square(objectType="cell"),
            square(objectType="detection"),
            square(objectType="tile"),
            feature(None),
        ),
    )

    assert areas(drawing) == [100]
    assert drawing.notes == {
        "points and lines, left out": 1, "detections, left out": 2, "features without a geometry, left out": 1,
    }  # fmt: skip


def test_open_rings_are_closed_and_crossing_lines_mended_and_that_is_noted(tmp_path: Path) -> None:
    drawing = read(tmp_path, collection(square([SQUARE[:-1]]), square([BOW_TIE]), square([SQUARE, HOLE[:-1]])))

    assert areas(drawing) == [100, 50, 96]
    assert all(shape.area.is_valid for shape in drawing.shapes)
    assert drawing.notes == {"open rings, closed": 2, "shapes whose lines cross, mended": 1}


def test_a_byte_order_mark_and_a_third_coordinate_are_no_trouble(tmp_path: Path) -> None:
    text = json.dumps(square([[[*point, 0.0] for point in SQUARE]]))

    assert areas(read(tmp_path, "\ufeff" + text)) == [100]


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('"text"', "not GeoJSON"),
        ({"type": "Topology"}, "not GeoJSON"),
        ({"type": "FeatureCollection", "features": {}}, "not GeoJSON"),
        (collection(square(), collection(square())), "feature 2 is no Feature but 'FeatureCollection'"),
        (collection(7), "feature 1 is no Feature but 'int'"),
        (collection(square([[[0, 0]]]) | {"id": "an-id"}), "feature 1 (an-id): a ring of fewer than 3"),
        (collection(square([[[0, 0], [5, 5], [9, 9], [0, 0]]])), "feature 1: it encloses no area"),
        (collection(square([])), "feature 1: a polygon without rings"),
        (collection(square([[[0, 0], [None, 5], [9, 9], [0, 0]]])), "feature 1: a point is '[None, 5]'"),
        (collection(square([[[0, 0], [True, 5], [9, 9], [0, 0]]])), "feature 1: a point is '[True, 5]'"),
        (collection(square([SQUARE, "hole"])), "feature 1: a ring is 'hole'"),
        (collection(square([[[0, 0], [float("nan"), 5], [9, 9], [0, 0]]])), "feature 1: a coordinate is not a finite"),
        (collection(square([[[0, 0], [1e400, 5], [9, 9], [0, 0]]])), "feature 1: a coordinate is not a finite"),
        (collection(square([[[0, 0], [10**400, 5], [9, 9], [0, 0]]])), "feature 1: "),
        (collection(square([[[0, 0], [1e300, 5], [9, 9], [0, 0]]])), "feature 1: a coordinate is 1e+300, beyond any"),
        (collection(feature({"type": "Circle", "coordinates": [0, 0]})), "feature 1: its geometry is 'Circle'"),
        (collection(square(classification={"name": 7})), "feature 1: its classification is 7"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_one_line_that_names_file_and_feature(tmp_path: Path, document: Any, said: str) -> None:
    with pytest.raises(SlideError) as caught:
        read(tmp_path, document)

    assert caught.value.cause is Cause.BAD_ANNOTATION
    assert said in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "s.geojson"))
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "d.geojson").mkdir()
    for name in ("none.geojson", "d.geojson"):
        with pytest.raises(SlideError, match=name):
            read_geojson(tmp_path / name)


def test_shapely_writes_what_is_read_back(tmp_path: Path) -> None:
    shape = shapely.Point(500, 400).buffer(100).difference(shapely.Point(500, 400).buffer(30))

    (read_back,) = read(tmp_path, feature(json.loads(shapely.to_geojson(shape)))).shapes

    assert read_back.area.equals(shape)
