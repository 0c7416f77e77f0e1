"""Fabricated tiles and slides: they are what their names say, and are where the map says."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import openslide
import pytest
from PIL import Image

from histo.demo.fabricate import (
    CLASSES,
    Area,
    Layout,
    SlideTruth,
    fabricate_slide,
    fabricate_slides,
    fabricate_tiles,
    paint,
    write_pyramid,
)
from histo.resample import Pixels
from histo.slides.slide import open_slide
from histo.slides.tissue import find_tissue

BACK, LYM, TUM = (CLASSES.index(name) for name in ("BACK", "LYM", "TUM"))
SMALL = Layout(
    "small.tif",
    0.25,
    (Area("TUM", 100, 100, 1000, 1000), Area("LYM", 900, 100, 1800, 1000)),
    pen=((2100, 300), (2300, 1000)),
    width=2560,
    height=1280,
)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> SlideTruth:
    return fabricate_slide(tmp_path_factory.mktemp("small"), SMALL, np.random.default_rng(5))


def noise(height: int, width: int) -> Pixels:
    return np.random.default_rng(7).integers(0, 256, (height, width, 3), np.uint8)


def read(path: Path, level: int = 0) -> Pixels:
    with openslide.OpenSlide(path) as slide:
        return np.asarray(slide.read_region((0, 0), level, slide.level_dimensions[level]))[..., :3]


def tissue_share(path: Path, x: int, y: int, size: int) -> float:
    slide, reader = open_slide(str(path), mpp_if_missing=0.25)
    share = find_tissue(reader, slide).fraction(np.array([float(x)]), y, size, size)
    reader.close()
    return float(share[0])


def describe(folder: Path, name: str) -> npt.NDArray[np.float64]:
    """Colour and contrast of every tile of one class, `(tiles, 8)`."""
    tiles = np.stack([np.asarray(Image.open(path), np.float64) for path in sorted((folder / name).iterdir())])
    grey = tiles.mean(axis=3)
    steps = [abs(np.diff(grey, axis=axis)).mean(axis=(1, 2))[:, None] for axis in (1, 2)]
    return np.concatenate([tiles.mean(axis=(1, 2)), tiles.std(axis=(1, 2)), *steps], axis=1)


@pytest.mark.parametrize("name", CLASSES)
def test_paint_gives_a_patch_of_any_shape_and_resolution(name: str) -> None:
    patch = paint(name, 61, 130, np.random.default_rng(0), mpp=0.5)

    assert patch.shape == (61, 130, 3)
    assert patch.dtype == np.uint8


def test_paint_refuses_a_class_that_it_does_not_know() -> None:
    with pytest.raises(ValueError, match="class 'TUMOR'"):
        paint("TUMOR", 8, 8, np.random.default_rng(0))


@pytest.mark.parametrize("name", CLASSES)
def test_tissue_is_found_where_it_is_painted_and_not_on_glass(name: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    image = paint("BACK", 2048, 2048, rng)
    image[512:1536, 512:1536] = paint(name, 1024, 1024, rng)

    write_pyramid(tmp_path / "slide.tif", image, mpp=0.25, downsamples=(1, 16), quality=None)

    share = tissue_share(tmp_path / "slide.tif", 640, 640, 768)
    assert share == 0 if name == "BACK" else share > 0.9


def test_tiles_have_names_sizes_and_counts_as_promised(tmp_path: Path) -> None:
    fabricate_tiles(tmp_path, per_class=1)

    assert sorted(folder.name for folder in tmp_path.iterdir()) == list(CLASSES)
    for name in CLASSES:
        (path,) = (tmp_path / name).iterdir()
        assert path.name == f"{name}_0000.png"
        assert np.asarray(Image.open(path)).shape == (224, 224, 3)


@pytest.mark.slow
def test_tiles_depend_on_the_seed_alone(tmp_path: Path) -> None:
    for folder, count, seed in (("few", 1, 3), ("more", 2, 3), ("other", 1, 4)):
        fabricate_tiles(tmp_path / folder, per_class=count, seed=seed)

    few, more, other = ((tmp_path / f / "TUM" / "TUM_0000.png").read_bytes() for f in ("few", "more", "other"))
    assert few == more
    assert few != other


@pytest.mark.slow
def test_classes_are_told_apart_by_simple_statistics(tmp_path: Path) -> None:
    for seed in (0, 1):
        fabricate_tiles(tmp_path / str(seed), per_class=4, seed=seed)

    known = np.stack([describe(tmp_path / "0", name) for name in CLASSES])
    new = np.stack([describe(tmp_path / "1", name) for name in CLASSES])
    difference = (new[:, :, None] - known.mean(axis=1)) / known.std(axis=(0, 1))
    nearest = (difference**2).sum(axis=-1).argmin(axis=-1)
    assert (nearest == np.arange(len(CLASSES))[:, None]).mean() >= 0.9


def test_map_covers_the_slide_and_knows_every_kind_of_cell(small: SlideTruth) -> None:
    assert small.classes.shape == (1280 // small.cell_px, 2560 // small.cell_px)
    assert set(np.unique(small.classes)) == {-1, BACK, LYM, TUM}


def test_map_agrees_with_the_pixels(small: SlideTruth) -> None:
    rows, columns = small.classes.shape
    cells = read(small.path).reshape(rows, small.cell_px, columns, small.cell_px, 3).mean(axis=(1, 3))

    pale = cells.min(axis=-1) > 235
    assert pale[small.classes == BACK].all()
    assert not pale[(small.classes == TUM) | (small.classes == LYM)].any()


def test_pen_is_neither_judged_nor_taken_for_tissue(small: SlideTruth) -> None:
    assert small.pure_class(2168, 618, 64, 64) is None
    assert tissue_share(small.path, 2168, 618, 64) == 0


def test_pure_class_is_none_beyond_the_slide_and_across_classes(small: SlideTruth) -> None:
    assert small.pure_class(300, 300, 448, 448) == "TUM"
    assert small.pure_class(1250, 300, 400, 448) == "LYM"
    assert small.pure_class(1050, 1100, 448, 180) == "BACK"
    assert small.pure_class(1050, 1100, 448, 181) is None
    assert small.pure_class(-1, 1100, 448, 100) is None
    assert small.pure_class(700, 300, 600, 448) is None


@pytest.mark.parametrize("mpp", [0.25, 0.2498])
def test_pyramid_keeps_pixels_and_resolution(mpp: float, tmp_path: Path) -> None:
    image = noise(500, 700)

    write_pyramid(tmp_path / "slide.tif", image, mpp, downsamples=(1, 2), quality=None)

    with openslide.OpenSlide(tmp_path / "slide.tif") as slide:
        assert slide.properties["openslide.vendor"] == "generic-tiff"
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(mpp, rel=1e-6)
        assert slide.level_dimensions == ((700, 500), (350, 250))
    assert (read(tmp_path / "slide.tif") == image).all()


def test_levels_are_box_averages_of_level_0(tmp_path: Path) -> None:
    image = noise(501, 703)

    write_pyramid(tmp_path / "slide.tif", image, 0.25, downsamples=(1, 4), quality=None, tile_px=64)

    blocks = image[:500, :700].reshape(125, 4, 175, 4, 3).mean(axis=(1, 3))
    assert (read(tmp_path / "slide.tif", level=1) == np.floor(blocks + 0.5)).all()


def test_pyramid_without_resolution_reports_none(tmp_path: Path) -> None:
    write_pyramid(tmp_path / "slide.tif", noise(100, 100), mpp=None, downsamples=(1,))

    with openslide.OpenSlide(tmp_path / "slide.tif") as slide:
        assert "openslide.mpp-x" not in slide.properties


def test_jpeg_keeps_colours_up_to_the_edge(tmp_path: Path) -> None:
    image = np.full((300, 300, 3), (200, 120, 160), np.uint8)

    write_pyramid(tmp_path / "slide.tif", image, 0.25, downsamples=(1, 2))

    assert abs(read(tmp_path / "slide.tif").astype(int) - image).max() <= 3


@pytest.mark.slow
def test_slides_show_every_class_on_many_tiles(tmp_path: Path) -> None:
    truths = fabricate_slides(tmp_path)

    places = [(x, y) for x in range(0, 5376, 448) for y in range(0, 4480, 448)]
    found = [truth.pure_class(x, y, 448, 448) for truth in truths for x, y in places]
    assert [truth.path.name for truth in truths] == ["demo_1.tif", "demo_2.tif", "demo_3_no_mpp.tif"]
    assert all(found.count(name) >= 8 for name in CLASSES)
