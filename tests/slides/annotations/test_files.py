"""Annotations are found by the name of their slide, and refused where they are not of it."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import shapely
from helpers.fake_slides import fake_slide
from PIL import Image

from histo.errors import SlideError, UsageError
from histo.slides.annotations.files import AnnotationFolder, read_areas
from histo.slides.annotations.naming import Naming
from histo.slides.annotations.shapes import DROPPED

SLIDE = fake_slide(1000, 600)


def write(path: Path, area: shapely.Geometry, name: str = "TUM") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    geometry = json.loads(shapely.to_geojson(area))
    feature = {"type": "Feature", "geometry": geometry, "properties": {"classification": {"name": name}}}
    path.write_text(json.dumps([feature]))
    return path


def find(folder: Path, *slides: str, files: tuple[str, ...] = ()) -> list[str | None]:
    """Find the annotations of slides, by their paths below the folder."""
    annotations = AnnotationFolder(folder, dict(zip(slides, files or slides, strict=True)), "--annotations")
    found = [annotations.of(slide) for slide in slides]
    return [path and path.relative_to(folder).as_posix() for path in found]


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


@pytest.mark.parametrize(
    "name", ["a/s.svs.geojson", "a/s.geojson", "a/s.json", "a/s.xml", "a/s.svs.png", "a/s.tif", "a/s.GeoJSON"]
)
def test_an_annotation_has_the_name_of_its_slide(tmp_path: Path, name: str) -> None:
    touch(tmp_path, name, "a/s2.geojson", "a/s.txt")

    assert find(tmp_path, "a/s.svs", "b/t.svs") == [name, None]


def test_annotations_in_one_folder_are_those_of_slides_in_several_if_names_are_unique(tmp_path: Path) -> None:
    touch(tmp_path, "s.geojson", "t.svs.geojson", "twice.geojson")

    assert find(tmp_path, "a/s.svs", "b/t.svs", "a/twice.svs", "b/twice.svs") == [
        "s.geojson",
        "t.svs.geojson",
        None,
        None,
    ]


def test_slides_that_differ_in_their_extension_alone_have_annotations_of_their_whole_names(tmp_path: Path) -> None:
    touch(tmp_path, "s.geojson", "s.tif.geojson")

    assert find(tmp_path, "s.svs", "s.tif") == [None, "s.tif.geojson"]


def test_the_tables_of_a_label_run_and_its_exports_are_found(tmp_path: Path) -> None:
    touch(tmp_path, "tiles/%5Fs.svs.parquet", "geo/%5Fs.svs.geojson")

    assert find(tmp_path, "_s.svs") == ["tiles/%5Fs.svs.parquet"]
    assert find(tmp_path / "geo", "_s.svs") == ["%5Fs.svs.geojson"]


def test_several_annotations_of_one_slide_are_an_error(tmp_path: Path) -> None:
    touch(tmp_path, "s.svs.geojson", "s.xml")

    with pytest.raises(UsageError, match=r"s.svs has 2 annotations \(s.svs.geojson, s.xml\); leave one of them"):
        find(tmp_path, "s.svs")


def test_slides_are_no_annotations(tmp_path: Path) -> None:
    touch(tmp_path, "s.tif", "s.svs", "t.tif")

    assert find(tmp_path, "s.tif", "s.svs", files=(str(tmp_path / "s.tif"), str(tmp_path / "s.svs"))) == [None, None]


def test_what_is_not_used_is_listed(tmp_path: Path) -> None:
    touch(tmp_path, "s.geojson", "typo.geojson", "notes.json")
    annotations = AnnotationFolder(tmp_path, {"s.svs": "s.svs"}, "--annotations")
    used = annotations.of("s.svs")

    assert annotations.others({used}) == [tmp_path / "typo.geojson"]


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


def test_values_without_a_name_are_refused_together(tmp_path: Path) -> None:
    values = np.full((60, 100), 7, np.uint8)
    values[:10] = 12
    Image.fromarray(values).save(tmp_path / "s.png")
    read = partial(read_areas, tmp_path / "s.png", SLIDE, bounds=True)

    for naming in (Naming({"1": "TUM"}), Naming(classes=("TUM",))):
        with pytest.raises(SlideError, match=r"s.png: values 12, 7 are no classes; give --names 12=CLASS, or --drop"):
            read(class_of=naming.class_of, unknown=naming.unknown)
    naming = Naming({"12": "TUM"}, frozenset("7"))
    areas = read(class_of=naming.class_of, unknown=naming.unknown).areas
    assert set(areas.classes) == {"TUM", DROPPED}


def test_coordinates_that_are_no_pixels_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "s.geojson", shapely.box(0.1, 0.2, 0.6, 0.9))

    with pytest.raises(SlideError, match="all its shapes lie within 2 px"):
        read_areas(path, SLIDE, Naming().class_of, bounds=True)


def test_one_file_is_the_annotation_of_the_only_slide(tmp_path: Path) -> None:
    touch(tmp_path, "drawn.geojson")

    assert (
        AnnotationFolder(tmp_path / "drawn.geojson", {"a/s.svs": ""}, "--x").of("a/s.svs") == tmp_path / "drawn.geojson"
    )
    with pytest.raises(UsageError, match=r"--x .*drawn\.geojson: one file, and there are 2 slides; give a folder"):
        AnnotationFolder(tmp_path / "drawn.geojson", {"s.svs": "", "t.svs": ""}, "--x")
