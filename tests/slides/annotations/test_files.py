"""Annotations are found by the name of their slide, and refused where they are not of it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import shapely
from helpers.fake_slides import fake_slide
from PIL import Image

from histo.errors import SlideError, UsageError
from histo.slides.annotations.files import find_annotation, read_areas
from histo.slides.annotations.naming import Naming, check_known

SLIDE = fake_slide(1000, 600)


def write(path: Path, area: shapely.Geometry, name: str = "TUM") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    geometry = json.loads(shapely.to_geojson(area))
    feature = {"type": "Feature", "geometry": geometry, "properties": {"classification": {"name": name}}}
    path.write_text(json.dumps([feature]))
    return path


@pytest.mark.parametrize("name", ["a/s.svs.geojson", "a/s.geojson", "a/s.json", "a/s.xml", "a/s.svs.png", "a/s.tif"])
def test_an_annotation_has_the_name_of_its_slide(tmp_path: Path, name: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / name).touch()
    (tmp_path / "a" / "s2.geojson").touch()

    assert find_annotation(tmp_path, "a/s.svs", "") == tmp_path / name
    assert find_annotation(tmp_path, "s.svs", "") is None


def test_the_tables_of_a_label_run_and_its_exports_are_found(tmp_path: Path) -> None:
    for name in ("tiles/%5Fs.svs.parquet", "%5Fs.svs.geojson"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    assert find_annotation(tmp_path / "tiles", "_s.svs", "") == tmp_path / "tiles/%5Fs.svs.parquet"
    with pytest.raises(UsageError, match=r"_s.svs has 2 annotations \(%5Fs.svs.geojson, %5Fs.svs.parquet\)"):
        find_annotation(tmp_path, "_s.svs", "")


def test_a_slide_is_not_its_own_annotation(tmp_path: Path) -> None:
    (tmp_path / "s.tif").touch()

    assert find_annotation(tmp_path, "s.tif", str(tmp_path / "s.tif")) is None


@pytest.mark.parametrize("area", [shapely.box(1000, 0, 1100, 50), shapely.box(-50, -50, 0, 0)])
def test_a_shape_beside_the_slide_is_refused(tmp_path: Path, area: shapely.Geometry) -> None:
    path = write(tmp_path / "s.geojson", area)

    with pytest.raises(SlideError, match=r"s.geojson: feature 1 is at x .* beside fake.svs \(1000 x 600 px\)"):
        read_areas(path, SLIDE, Naming().class_of, bounds=True)


def test_coordinates_of_a_slide_with_bounds_count_from_them(tmp_path: Path) -> None:
    path = write(tmp_path / "s.geojson", shapely.box(0, 0, 100, 50))
    slide = replace(SLIDE, bounds=(500, 100, 400, 400))

    (inside,) = read_areas(path, slide, Naming().class_of, bounds=True).areas.shares(
        "TUM", np.array([500.0]), 100, 100, 50
    )
    (plain,) = read_areas(path, slide, Naming().class_of, bounds=False).areas.shares("TUM", np.array([0.0]), 0, 100, 50)

    assert inside == plain == 1


def test_a_value_without_a_name_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.full((60, 100), 7, np.uint8)).save(tmp_path / "s.png")

    areas = read_areas(tmp_path / "s.png", SLIDE, Naming({"1": "TUM"}).class_of, bounds=True).areas

    with pytest.raises(SlideError, match=r"s.png: 7 is no class; give --names 7=CLASS, or --drop 7"):
        check_known(str(tmp_path / "s.png"), areas.classes, ["TUM"])
    dropped = read_areas(tmp_path / "s.png", SLIDE, Naming({}, frozenset("7")).class_of, bounds=True).areas
    check_known(str(tmp_path / "s.png"), dropped.classes, ["TUM"])
