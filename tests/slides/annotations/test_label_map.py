"""Label maps and tile tables: place, scale, values, and what is refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import shapely
import tifffile
from helpers.fake_slides import fake_slide, noise, write_tiff
from helpers.label_loop import found, label, make_job
from PIL import Image

from histo.errors import SlideError
from histo.slides.annotations.areas import Areas, MapAreas, ShapeAreas
from histo.slides.annotations.label_map import read_label_map, read_label_table
from histo.slides.annotations.naming import Naming
from histo.slides.slide import Slide, open_slide
from histo.slides.spec import TilingSpec, TissueSpec

SLIDE = fake_slide(1000, 600)
VALUES = np.zeros((60, 100), np.uint8)
VALUES[10:30, 20:70] = 1
VALUES[30:50, 20:40] = 3
SHAPES = {"1": shapely.box(200, 100, 700, 300), "3": shapely.box(200, 300, 400, 500)}


def write(folder: Path, values: np.ndarray, name: str = "s.png") -> Path:
    Image.fromarray(values).save(folder / name)
    return folder / name


def areas(path: Path, slide: Slide = SLIDE, bounds: bool = True) -> Areas:
    return MapAreas(read_label_map(path, slide, bounds), Naming().class_of)


def assert_alike(one: Areas, other: Areas, offset: tuple[float, float] = (0, 0)) -> None:
    """Both give the same shares of tiles, and cover the same cells."""
    assert set(one.classes) == set(other.classes)
    x = np.arange(0.0, 1000, 64)
    for name in one.classes:
        for y in range(0, 600, 64):
            mine = one.shares(name, x + offset[0], y + offset[1], 96, 96)
            np.testing.assert_allclose(mine, other.shares(name, x, y, 96, 96), atol=1e-9)
        if offset == (0, 0):
            np.testing.assert_array_equal(one.cells(name, 75, 125, 8, 8), other.cells(name, 75, 125, 8, 8))


def test_a_map_is_the_same_as_the_shapes_that_it_was_drawn_from(tmp_path: Path) -> None:
    assert_alike(areas(write(tmp_path, VALUES)), ShapeAreas(SHAPES))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
def test_grey_tiff_of_any_depth_is_read(tmp_path: Path, dtype: type) -> None:
    tifffile.imwrite(tmp_path / "s.tif", VALUES.astype(dtype))

    assert_alike(areas(tmp_path / "s.tif"), ShapeAreas(SHAPES))


def test_palette_and_bilevel_images_are_their_indices(tmp_path: Path) -> None:
    palette = Image.fromarray(VALUES, "L").convert("P")
    palette.putdata(VALUES.ravel().tolist())
    palette.putpalette([number for value in range(256) for number in (255 - value, 0, value)])
    palette.save(tmp_path / "p.png")
    Image.fromarray(VALUES == 1).save(tmp_path / "b.png")

    assert_alike(areas(tmp_path / "p.png"), ShapeAreas(SHAPES))
    assert_alike(areas(tmp_path / "b.png"), ShapeAreas({"1": SHAPES["1"]}))


def test_of_a_pyramid_the_finest_level_that_can_be_held_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fine = np.kron(VALUES, np.ones((4, 4), np.uint8))
    with tifffile.TiffWriter(tmp_path / "s.tif") as file:
        file.write(fine, subifds=1, tile=(64, 64))
        file.write(VALUES, subfiletype=1, tile=(64, 64))
    assert_alike(areas(tmp_path / "s.tif"), ShapeAreas(SHAPES))

    monkeypatch.setattr("histo.slides.annotations.label_map.MOST_PIXELS", VALUES.size)

    assert_alike(areas(tmp_path / "s.tif"), ShapeAreas(SHAPES))


def test_a_map_of_the_scanned_part_starts_there(tmp_path: Path) -> None:
    wide = replace(fake_slide(3000, 700), bounds=(1500, 50, 1000, 600))
    path = write(tmp_path, VALUES)

    assert_alike(areas(path, wide), ShapeAreas(SHAPES), offset=(1500, 50))
    with pytest.raises(SlideError, match="not the shape"):
        areas(path, wide, bounds=False)


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (np.zeros((60, 90), np.uint8), "is 90 x 60 px, which is not the shape of"),
        (np.zeros((100, 60), np.uint8), "is 60 x 100 px, which is not the shape of"),
        (np.zeros((60, 100, 3), np.uint8), "it is RGB"),
        (np.zeros((60, 100, 4), np.uint8), "it is RGBA"),
    ],
)
def test_what_is_no_label_map_of_the_slide_is_refused(tmp_path: Path, image: np.ndarray, said: str) -> None:
    with pytest.raises(SlideError) as caught:
        areas(write(tmp_path, image))

    assert said in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "s.png"))


def test_damaged_large_and_float_images_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, VALUES)
    whole = path.read_bytes()
    for name, content in {"cut.png": whole[:80], "none.png": b"", "text.tif": b"no TIFF at all"}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(SlideError, match=name):
            areas(tmp_path / name)
    tifffile.imwrite(tmp_path / "f.tif", VALUES.astype(np.float32))
    with pytest.raises(SlideError, match="whole numbers of one channel"):
        areas(tmp_path / "f.tif")
    monkeypatch.setattr("histo.slides.annotations.label_map.MOST_PIXELS", 100)
    with pytest.raises(SlideError, match="more than 100 px"):
        areas(path)


def test_a_picture_is_no_label_map(tmp_path: Path) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (60, 100), np.uint8)

    with pytest.raises(SlideError, match="has 255 different values, and is no map of classes, but a picture"):
        areas(write(tmp_path, grey))


def test_sizes_that_programs_round_are_of_the_shape(tmp_path: Path) -> None:
    odd = fake_slide(1003, 607)

    assert areas(write(tmp_path, VALUES), odd).classes == ("1", "3")


@pytest.mark.parametrize("stride", [224, 96])
def test_a_tile_table_is_the_cells_of_its_tiles(tiny_bundle: Path, tmp_path: Path, stride: int) -> None:
    path = write_tiff(tmp_path / "s.tif", [noise(1152, 768), noise(72, 48)], mpp=0.5)
    tiling = TilingSpec(stride_px=stride).model_dump(mode="json")
    tissue = TissueSpec(min_fraction=0).settings()
    job = make_job(tiny_bundle, tmp_path / "out", tissue=tissue, tiling=tiling, stride_px=stride)
    row = label(job, found(Path(path)))
    slide, reader = open_slide(path)
    reader.close()

    labels = read_label_table(job.out / row["tiles_path"], slide)

    assert labels.cell_width == stride * 0.5 / slide.mpp_x == labels.cell_height
    assert set(labels.names.values()) == set(job.classes)
    assert np.count_nonzero(labels.values) == row["n_ok"]
    with pytest.raises(SlideError, match="of a slide of 1152 x 768 px"):
        read_label_table(job.out / row["tiles_path"], SLIDE)
    with pytest.raises(SlideError, match="not a tile table"):
        read_label_table(Path(path), slide)
