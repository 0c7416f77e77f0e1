"""`histo.open_slide`: a slide's resolution, tissue and tiles, as a label run has them."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import openslide
import pytest
from helpers.fake_slides import damage_block, noise, omit_block, write_tiff
from helpers.label_loop import found, label
from helpers.plain_loop import PlainLoop, rows_of

import histo
from histo.errors import ReadError, SlideError, UsageError
from histo.pipelines.labelling.tasks import LabelJob

NO_MINIMUM = {"min_fraction": 0}


def test_a_slide_says_its_size_resolution_and_levels(pyramid: Path) -> None:
    with histo.open_slide(pyramid / "two textures.tif") as slide:
        assert slide.size_px == (9000, 3000)
        assert slide.mpp == (0.25, 0.25)
        assert slide.levels[0].width == 9000
        assert all(a.width > b.width for a, b in pairwise(slide.levels))
        assert slide.bounds is None
        assert slide.thumbnail(4.0).shape == (187, 562, 3)
        assert "9000 x 3000 px at 0.25 µm/px" in repr(slide)


def test_its_tiles_are_those_of_a_label_run(pyramid: Path, label_job: LabelJob) -> None:
    path = pyramid / "two textures.tif"
    label(label_job, found(path))
    rows = rows_of(label_job.out / "tiles" / "two textures.tif.parquet")
    names = ("tile_index", "x", "y", "width", "height", "tissue_fraction", "status")

    with histo.open_slide(str(path)) as slide:
        tiles = [*slide.tiles(mpp=0.5, size_px=96)]

    mine = [{name: getattr(tile, name) for name in names} for tile in tiles]
    assert sorted(mine, key=lambda row: row["tile_index"]) == [{name: row[name] for name in names} for row in rows]
    assert len(rows) > 64, "several blocks"


def test_pixels_are_those_of_a_plain_loop_in_the_order_of_the_places(pyramid: Path) -> None:
    path = pyramid / "two textures.tif"
    with histo.open_slide(path) as slide, openslide.OpenSlide(path) as plain:
        tiles = slide.tiles(0.5, 96, tissue={"min_fraction": 0.9})
        read = [*tiles]
        assert [tile.tile_index for tile in read] == tiles.tile_index.tolist()
        assert [(tile.x, tile.y) for tile in read] == [*zip(tiles.x.tolist(), tiles.y.tolist(), strict=True)]
        for place in range(0, len(read), 40):
            expected = PlainLoop(path, 2).tile(plain, read[place].x, read[place].y, 96)
            np.testing.assert_array_equal(read[place].pixels, expected)
            np.testing.assert_array_equal(tiles[place].pixels, expected)
        assert tiles[-1].tile_index == tiles.tile_index[-1]
        assert [tile.x for tile in tiles[3:6]] == tiles.x[3:6].tolist()
        assert len(tiles) == len(tiles.tissue_fraction) > 80
        assert repr(tiles) == f"<histo.Tiles: {len(tiles)} of 96 px at 0.5 x 0.5 µm/px>"
        assert tiles.tissue_fraction.min() >= 0.9
        assert tiles.mpp == (0.5, 0.5)
        with pytest.raises(IndexError):
            tiles[len(tiles)]


def test_a_model_takes_a_slides_tiles(pyramid: Path, tiny_bundle: Path, label_job: LabelJob) -> None:
    path = pyramid / "two textures.tif"
    model = histo.load_model(tiny_bundle, device="cpu")
    label(label_job, found(path))
    rows = {row["tile_index"]: row for row in rows_of(label_job.out / "tiles" / "two textures.tif.parquet")}

    assert model.mpp is not None
    with histo.open_slide(path) as slide:
        tiles = slide.tiles(model.mpp, model.size_px)
        probabilities = model(tile.pixels for tile in tiles)

    expected = [[rows[index][f"prob_{name}"] for name in model.classes] for index in tiles.tile_index.tolist()]
    np.testing.assert_allclose(probabilities, expected, atol=1e-4)


def test_overlapping_tiles_and_the_share_of_tissue_are_settings(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "s.tif", [noise(512, 256)], mpp=0.5)

    with histo.open_slide(path) as slide:
        assert len(slide.tiles(0.5, 128, tissue=NO_MINIMUM)) == 8
        assert len(slide.tiles(0.5, 128, stride_px=64, tissue=NO_MINIMUM)) == 32
        with pytest.raises(UsageError, match="min_fractoin: unknown field; did you mean min_fraction"):
            slide.tiles(0.5, 128, tissue={"min_fractoin": 0.5})
        with pytest.raises(UsageError, match="mpp: -1"):
            slide.tiles(-1, 128)
        with pytest.raises(SlideError, match=r"coarser than the 0\.25 .* with tiling\.allow_upsample"):
            slide.tiles(0.25, 128)
        with pytest.raises(ValueError, match=r"size_px: 0\.5: a whole number of pixels"):
            slide.tiles(224, 0.5)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="mpp: -1: a resolution is greater than 0"):
            slide.thumbnail(-1)
        assert len(slide.tiles(0.25, 128, allow_upsample=True, tissue=NO_MINIMUM)) == 32


def test_the_tissue_mask_is_that_of_a_label_run(pyramid: Path, label_job: LabelJob) -> None:
    path = pyramid / "two textures.tif"
    row = label(label_job, found(path))

    with histo.open_slide(path) as slide:
        mask = slide.tissue()
        area = mask.area_um2(*slide.mpp) / 1e6
        coarse = slide.tissue(32.0)

    assert area == pytest.approx(row["tissue_mm2"])
    assert mask.mask.shape == (94, 281)
    assert coarse.mask.shape == (24, 71)


def test_blocks_that_were_left_out_on_purpose_are_glass(tmp_path: Path, label_job: LabelJob) -> None:
    image = np.full((1024, 2048, 3), 244, np.uint8)
    image[:512, :512] = (200, 90, 160)
    path = Path(write_tiff(tmp_path / "s.tif", [image, image[::8, ::8]], mpp=0.5))
    for block in (20, 21, 52, 53):
        omit_block(str(path), 0, block)
    row = label(label_job, found(path))

    with histo.open_slide(path) as slide:
        mask, fine, thumbnail = slide.tissue(), slide.tissue(1.0).mask, slide.thumbnail(0.5)

    assert not fine[:, 512:].any()
    assert fine.any()
    assert mask.area_um2(*slide.mpp) / 1e6 == pytest.approx(row["tissue_mm2"])
    assert row["blocks_left_out"] == 4
    assert thumbnail[:, 1024:].min() >= 244


def test_a_tile_that_cannot_be_read_has_no_pixels(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "s.tif", [noise(512, 256), noise(64, 32)], mpp=0.5)
    damage_block(path, 0, 3)

    with histo.open_slide(path) as slide:
        tiles = [*slide.tiles(0.5, 64, tissue=NO_MINIMUM)]

    bad = [tile for tile in tiles if tile.status != "ok"]
    assert [(tile.x, tile.y, tile.status) for tile in bad] == [(192, 0, "read_error")]
    assert len(tiles) == 32
    with pytest.raises(ReadError, match=r"at \(192, 0\): its pixels cannot be read"):
        bad[0].pixels  # noqa: B018 -- it raises


def test_a_slide_without_resolution_needs_one(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "s.tif", [noise(256, 256)], mpp=None)

    with pytest.raises(SlideError, match="no resolution in the metadata; give one with mpp_if_missing"):
        histo.open_slide(path)
    with histo.open_slide(path, mpp_if_missing=0.5) as slide:
        assert slide.mpp == (0.5, 0.5)
    with pytest.raises(ValueError, match="the slide is closed; open it again"):
        slide.tissue()


def test_what_is_no_file_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nope\.svs: no such file"):
        histo.open_slide(tmp_path / "nope.svs")
    with pytest.raises(UsageError, match="a folder; give the file of a slide"):
        histo.open_slide(tmp_path)


def test_a_slide_on_which_nothing_is_tissue_has_no_tiles(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "s.tif", [np.full((512, 512, 3), 244, np.uint8)], mpp=0.5)

    with histo.open_slide(path) as slide:
        tiles = slide.tiles(0.5, 128)

        assert len(tiles) == 0
        assert [*tiles] == []


@pytest.mark.realdata
def test_real_slides_open_and_have_tissue(shared: Path) -> None:
    with histo.open_slide(shared / "slides" / "CMU-1-Small-Region.svs") as slide:
        tiles = slide.tiles(0.5, 224)

        assert slide.description.vendor == "aperio"
        assert len(tiles) > 10
        assert tiles[0].pixels.shape == (224, 224, 3)
