"""Pictures of labelled slides: what is drawn lies where the tables say."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import openslide
import pyarrow as pa
import pytest
from helpers.fake_slides import damage_block, omit_block, write_tiff
from helpers.vendor_slides import write_scn
from matplotlib.colors import to_rgb
from PIL import Image

from histo import tables
from histo.demo.fabricate import write_pyramid
from histo.errors import HistoError, SlideError, UsageError
from histo.report.slide.colours import GLASS, MUTED, class_colours
from histo.report.slide.labels import NO_TILE, UNREADABLE, Axis, SlideLabels, read_labels
from histo.report.slide.panel import read_panel
from histo.report.slide.picture import KEY, PLACE, Place, class_map, draw, probability_map
from histo.report.slide.tiff import write_class_map

CLASSES = ("BACK", "STR", "TUM")
WIDTH, HEIGHT, MPP = 4100, 2300, 0.25


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    path = tmp_path / "glass.tif"
    write_pyramid(path, np.full((HEIGHT, WIDTH, 3), 244, np.uint8), mpp=None, downsamples=(1, 4))
    return path


def write_tiles(
    path: Path,
    tiles: dict[tuple[int, int], tuple[int | None, float]],
    stride_px: int = 224,
    size: tuple[int, int] = (WIDTH, HEIGHT),
) -> Path:
    """A slide's table: by place in the grid, the class and its probability; none where a tile could not be read."""
    footer = {
        "classes": json.dumps(CLASSES),
        "tiling": json.dumps({"size_px": 224, "stride_px": stride_px, "effective_mpp": [0.5, 0.5]}),
        "slide": json.dumps(
            {"width": size[0], "height": size[1], "mpp_x": MPP, "mpp_y": MPP, "mpp_source": "override"}
        ),
        "fingerprint": "f" * 64,
        "model_sha256": "m" * 64,
    }
    places = list(tiles)
    columns = {
        "grid_x": pa.array([x for x, _ in places], pa.int32()),
        "grid_y": pa.array([y for _, y in places], pa.int32()),
        "pred": pa.array([tiles[place][0] for place in places], pa.int16()),
        "confidence": pa.array(
            [tiles[place][1] if tiles[place][0] is not None else None for place in places], pa.float32()
        ),
        "prob_TUM": pa.array([tiles[place][1] if tiles[place][0] == 2 else None for place in places], pa.float32()),
    }
    table = pa.table(columns).replace_schema_metadata({f"histo.{name}": value for name, value in footer.items()})
    tables.write_table(path, table)
    return path


def pixels_of(picture: Path) -> np.ndarray:
    with Image.open(picture) as image:
        return np.asarray(image.convert("RGB"))


def place_in(picture: Path) -> Place:
    with Image.open(picture) as image:
        return Place(**json.loads(image.info[PLACE]))


def middle(labels: SlideLabels, place: Place, x: int, y: int) -> tuple[int, int]:
    """Pixel of a picture in the middle of a tile: row, column."""
    return (
        place.top + int((y * labels.y.stride_um + labels.y.size_um / 2 - place.top_um) / place.um_per_px),
        place.left + int((x * labels.x.stride_um + labels.x.size_um / 2 - place.left_um) / place.um_per_px),
    )


@pytest.mark.parametrize("stride_px", [112, 224, 300])
def test_each_tile_has_the_colour_of_its_class_in_its_place(slide: Path, tmp_path: Path, stride_px: int) -> None:
    tiles: dict[tuple[int, int], tuple[int | None, float]] = {
        (0, 0): (1, 1.0),
        (4, 3): (2, 1.0),
        (5, 3): (2, 0.4),
        (2, 1): (None, 0.0),
        (6, 2): (0, 1.0),
    }
    labels = read_labels(write_tiles(tmp_path / "t.parquet", tiles, stride_px), "glass.tif")
    colours, target = class_colours(CLASSES), tmp_path / "p.png"

    draw(labels, read_panel(slide, labels), class_map(labels, colours), "2026-11-30", target, "the key")

    seen, place = pixels_of(target), place_in(target)
    glass = seen[middle(labels, place, 3, 0)].astype(float)
    for at, (number, confidence) in tiles.items():
        pixel = seen[middle(labels, place, *at)].astype(float)
        if number is None:
            row, column = middle(labels, place, *at)
            assert set(np.unique(seen[row - 3 : row + 3, column - 3 : column + 3])) == {0, 255}, "hatched"
            continue
        surety = (confidence - 1 / 3) / (2 / 3)
        opacity = 0.15 + 0.6 * surety
        expected = opacity * 255 * np.array(to_rgb(colours[CLASSES[number]])) + (1 - opacity) * glass
        assert np.abs(pixel - expected).max() <= 1.5, at
    with Image.open(target) as image:
        assert image.info[KEY] == "the key"
    assert place.um_per_px == pytest.approx(WIDTH * MPP / 1200, rel=1e-3)


def test_tiles_that_are_apart_leave_the_slide_between_them(slide: Path, tmp_path: Path) -> None:
    axis = Axis(slide_um=1000, stride_um=150, size_um=112, tiles=6)

    assert axis.at(np.array([0.0, 111.9, 112.1, 149.9, 150.0, 899.0, 910.0])).tolist() == [0, 0, -1, -1, 1, -1, -1]


def test_tiles_that_overlap_share_what_they_cover(tmp_path: Path) -> None:
    axis = Axis(slide_um=1000, stride_um=56, size_um=112, tiles=17)

    assert axis.at(np.array([27.9, 28.0, 83.9, 84.0])).tolist() == [-1, 0, 0, 1]


def test_the_scale_bar_is_as_long_as_it_says(slide: Path, tmp_path: Path) -> None:
    labels = read_labels(write_tiles(tmp_path / "t.parquet", {}), "glass.tif")

    place = draw(labels, read_panel(slide, labels), class_map(labels, class_colours(CLASSES)), "", tmp_path / "p.png")

    black = (pixels_of(tmp_path / "p.png")[: place.top + place.height, place.left :] == 0).all(axis=2)
    longest = max(np.diff(np.flatnonzero(np.diff(np.concatenate([[0], row, [0]])))).max(initial=0) for row in black)
    assert longest * place.um_per_px == pytest.approx(200, abs=2 * place.um_per_px), (
        "a quarter of 1025 µm, rounded down"
    )


def test_a_slide_too_small_for_a_scale_bar_has_none(tmp_path: Path) -> None:
    write_pyramid(tmp_path / "small.tif", np.full((16, 16, 3), 244, np.uint8), mpp=MPP, downsamples=(1,))
    labels = read_labels(write_tiles(tmp_path / "t.parquet", {}, size=(16, 16)), "small.tif")
    panel = read_panel(tmp_path / "small.tif", labels)

    place = draw(labels, panel, class_map(labels, class_colours(CLASSES)), "", tmp_path / "p.png")

    around = pixels_of(tmp_path / "p.png")[place.top - 10 : place.top + 40, : place.left + 40]
    assert around.min() > 200


def test_probabilities_have_the_colours_of_their_scale(slide: Path, tmp_path: Path) -> None:
    table = write_tiles(tmp_path / "t.parquet", {(1, 1): (2, 0.5), (3, 1): (2, 1.0)})
    labels = read_labels(table, "glass.tif", ["TUM"])

    shown = probability_map(labels, "TUM")

    assert shown.colours[1, 3] == pytest.approx((0.993, 0.906, 0.144), abs=0.01), "the end of viridis"
    assert shown.colours[1, 1] == pytest.approx((0.128, 0.567, 0.551), abs=0.02), "its middle"
    place = draw(labels, read_panel(slide, labels), shown, "", tmp_path / "p.png")
    pixel = pixels_of(tmp_path / "p.png")[middle(labels, place, 3, 1)]
    assert pixel[2] < 120 < pixel[0], "yellow"


def test_the_class_map_is_a_pyramid_at_its_resolution_tile_for_tile(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    tiles = {
        (int(x), int(y)): (int(random.integers(3)), 1.0) for x in range(9) for y in range(5) if random.random() < 0.7
    }
    tiles[1, 1] = (None, 0.0)
    labels = read_labels(write_tiles(tmp_path / "t.parquet", tiles), "glass.tif")
    colours = class_colours(CLASSES)

    write_class_map(labels, colours, tmp_path / "map.tif", "the key")

    with openslide.OpenSlide(tmp_path / "map.tif") as slide:
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(7)
        assert slide.dimensions == (147, 83), "1025 x 575 µm"
        pixels = np.asarray(slide.read_region((0, 0), 0, slide.dimensions).convert("RGB"))
    for row in range(labels.pred.shape[0]):
        for column in range(labels.pred.shape[1]):
            cell = pixels[16 * row : 16 * row + 16, 16 * column : 16 * column + 16]
            number = labels.pred[row, column]
            fixed = {NO_TILE: (255, 255, 255), UNREADABLE: (0, 0, 0)}
            expected = fixed.get(int(number)) or tuple(round(255 * part) for part in to_rgb(colours[CLASSES[number]]))
            assert (cell == expected).all(), (row, column)


def test_a_large_map_has_levels_that_agree(tmp_path: Path) -> None:
    pred = np.random.default_rng(0).integers(-1, 3, (70, 90)).astype(np.int16)
    x, y = Axis(90 * 112, 112, 112, 90), Axis(70 * 112, 112, 112, 70)
    ones = np.ones(pred.shape, np.float32)
    labels = SlideLabels("s", CLASSES, x, y, (0.25, 0.25), "metadata", 224, (0.5, 0.5), pred, ones, "f", "m")

    write_class_map(labels, class_colours(CLASSES), tmp_path / "map.tif")

    with openslide.OpenSlide(tmp_path / "map.tif") as slide:
        assert slide.level_downsamples == pytest.approx((1, 2, 4, 8))
        levels = [np.asarray(slide.read_region((0, 0), n, slide.level_dimensions[n])) for n in range(4)]
    for number, level in enumerate(levels):
        assert (level == levels[0][:: 2**number, :: 2**number]).all(), number


def test_a_slide_that_is_not_magnified_and_one_without_tiles_have_pictures(tmp_path: Path) -> None:
    write_pyramid(tmp_path / "small.tif", np.full((300, 200, 3), 244, np.uint8), mpp=MPP, downsamples=(1,))
    labels = read_labels(write_tiles(tmp_path / "t.parquet", {}, size=(200, 300)), "small.tif")

    panel = read_panel(tmp_path / "small.tif", labels)
    draw(labels, panel, class_map(labels, class_colours(CLASSES)), "2026-11-30", tmp_path / "p.png")

    assert panel.pixels.shape == (300, 200, 3)
    assert pixels_of(tmp_path / "p.png").shape[1] > 1000


def test_of_a_slide_with_bounds_the_scanned_part_is_shown(tmp_path: Path) -> None:
    image = np.full((768, 1280, 3), (200, 90, 160), np.uint8)
    path = write_scn(tmp_path, image, MPP)
    with openslide.OpenSlide(path) as opened:
        size, bounds = opened.dimensions, [int(opened.properties[f"openslide.bounds-{name}"]) for name in ("x", "y")]
    assert min(bounds) > 100
    on_tissue = bounds[0] // 448 + 1, bounds[1] // 448
    labels = read_labels(write_tiles(tmp_path / "t.parquet", {on_tissue: (2, 1.0)}, size=size), "s.scn")
    colours = class_colours(CLASSES)

    panel = read_panel(path, labels)
    place = draw(labels, panel, class_map(labels, colours), "", tmp_path / "p.png")

    assert (panel.left_um, panel.top_um) == (bounds[0] * MPP, bounds[1] * MPP)
    assert panel.width_um < 0.6 * size[0] * MPP
    row, column = middle(labels, place, *on_tissue)
    seen = pixels_of(tmp_path / "p.png").astype(float)
    grey = 255 - 0.45 * (255 - np.mean((200, 90, 160)))
    expected = 0.75 * 255 * np.array(to_rgb(colours["TUM"])) + 0.25 * grey
    assert np.abs(seen[row, column] - expected).max() < 5
    shown = seen[row, 24 + column - place.left]
    assert np.abs(shown - (200, 90, 160)).max() < 12, "the tile lies on the same tissue in the thumbnail"


def test_where_the_file_has_no_pixels_the_slide_is_hatched(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "s.tif", [np.full((256, 512, 3), 244, np.uint8)], mpp=MPP)
    damage_block(path, 0, 2)
    labels = read_labels(write_tiles(tmp_path / "t.parquet", {}, size=(512, 256)), "s.tif")

    pixels = read_panel(Path(path), labels).pixels

    damaged = pixels[:128, 128:256]  # what is tried at a time
    assert {tuple(colour) for colour in np.unique(damaged.reshape(-1, 3), axis=0)} == {(170,) * 3, (255,) * 3}
    assert (pixels[:, 256:] == 244).all()
    assert (pixels[128:] == 244).all()


def test_blocks_that_were_left_out_on_purpose_are_glass_and_not_hatched(tmp_path: Path) -> None:
    image = np.full((512, 1024, 3), 244, np.uint8)
    path = write_tiff(tmp_path / "s.tif", [image, image[::8, ::8]], mpp=MPP)
    omit_block(path, 0, 2)
    labels = read_labels(write_tiles(tmp_path / "t.parquet", {}, size=(1024, 512)), "s.tif")

    pixels = read_panel(Path(path), labels).pixels

    assert pixels.min() == 244


@pytest.mark.parametrize("names", [["Tumour epithelium, moderately differentiated", "b"], ["肿瘤" * 20, "b"]])
def test_long_names_and_many_classes_fit_beside_a_small_slide(tmp_path: Path, names: list[str]) -> None:
    write_pyramid(tmp_path / "small.tif", np.full((120, 200, 3), 244, np.uint8), mpp=MPP, downsamples=(1,))
    labels = read_labels(write_tiles(tmp_path / "t.parquet", {}, size=(200, 120)), "small.tif")
    classes = (*names, *(f"{names[0]} {number}" for number in range(20)))
    pred = np.arange(24, dtype=np.int16).reshape(4, 6) % len(classes)
    many = replace(labels, classes=classes, pred=pred, confidence=np.ones(pred.shape, np.float32))

    draw(
        many, read_panel(tmp_path / "small.tif", many), class_map(many, class_colours(classes)), "", tmp_path / "p.png"
    )

    seen = pixels_of(tmp_path / "p.png")
    assert seen[:, -8:].min() == 255, "nothing is cut off at the right"
    assert seen[-22:-18].min() == 255, "nor at the bottom, above the line on transliteration"
    legend = seen[72:, -360:]
    scheme = {tuple(round(255 * part) for part in to_rgb(colour)) for colour in class_colours(classes).values()}
    found = {tuple(colour) for colour in np.unique(legend.reshape(-1, 3), axis=0).tolist()}
    assert len(scheme & found) == 16


def test_another_slide_than_the_labelled_one_is_refused(tmp_path: Path) -> None:
    write_pyramid(tmp_path / "other.tif", np.full((300, 200, 3), 244, np.uint8), mpp=MPP, downsamples=(1,))
    labels = read_labels(write_tiles(tmp_path / "t.parquet", {}), "glass.tif")

    with pytest.raises(SlideError, match=r"other.tif: has 200 x 300 px, and glass.tif had 4100 x 2300 px"):
        read_panel(tmp_path / "other.tif", labels)


def test_colours_are_chosen_or_told_apart() -> None:
    assert class_colours(CLASSES) == {"BACK": GLASS, "STR": MUTED[0], "TUM": MUTED[1]}
    assert len(set(class_colours([f"c{number}" for number in range(27)]).values())) == 27
    with pytest.raises(UsageError, match=r"--colours TUMOR: no class of these tables; did you mean TUM\?"):
        class_colours(CLASSES, {"TUMOR": "red"})
    with pytest.raises(UsageError, match=r"--colours TUM: 'redd' is no colour; give #RRGGBB"):
        class_colours(CLASSES, {"TUM": "redd"})


def test_what_is_no_tile_table_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_bytes(b"no table")
    with pytest.raises(HistoError, match=r"t.parquet: not a whole tile table of a label run"):
        read_labels(tmp_path / "t.parquet", "s")
    with pytest.raises(UsageError, match="--probabilities TU: no class of these tables"):
        read_labels(write_tiles(tmp_path / "u.parquet", {}), "s", ["TU"])
