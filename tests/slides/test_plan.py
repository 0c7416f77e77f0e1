"""A slide is planned from end to end: resolution, tissue, grid and regions agree."""

from pathlib import Path

import numpy as np
import pytest
from fabricated.huge import write_huge
from helpers.fake_slides import damage_block, plan_file, write_tiff
from pydantic import ValidationError

from histo.errors import Cause, SlideError
from histo.slides.plan import SlidePlan
from histo.slides.spec import TilingSpec, TissueSpec


def plan(path: str, tiling: TilingSpec | None = None, tissue: TissueSpec | None = None) -> SlidePlan:
    """Plan tiles of 32 px at 4 µm/px, 64 level-0 pixels of the fabricated slide."""
    return plan_file(path, 32, 4.0, tiling or TilingSpec(), tissue or TissueSpec())


@pytest.fixture(scope="module")
def island(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A slide of 700 x 400 px at 2 µm/px whose tissue is tiles 2 to 6 across and 1 to 3 down, of 64 px each."""
    pixels = np.full((400, 700, 3), 244, np.uint8)
    pixels[64:256, 128:448] = (225, 150, 190)
    return write_tiff(tmp_path_factory.mktemp("plan") / "island.tif", [pixels], mpp=2.0)


def test_the_kept_tiles_are_those_on_tissue(island: str) -> None:
    planned = plan(island)

    grid_x, grid_y = planned.grid.places(planned.tile_index)
    assert (planned.grid.columns, planned.grid.rows) == (11, 7)
    assert list(zip(grid_x, grid_y, strict=True)) == [(x, y) for y in (1, 2, 3) for x in (2, 3, 4, 5, 6)]
    assert (planned.tissue_fraction > 0.95).all()
    assert planned.tissue_mm2 == pytest.approx(192 * 320 * 2 * 2 / 1e6, rel=0.03)


def test_the_regions_of_a_plan_hold_its_tiles(island: str) -> None:
    planned = plan(island, TilingSpec(stride_px=4))

    regions = list(planned.regions())

    assert len(regions) > 1
    assert np.array_equal(np.sort(np.concatenate([r.tile_index for r in regions])), planned.tile_index)


def test_without_a_stride_tiles_do_not_overlap(island: str) -> None:
    assert plan(island).grid.stride_px == 32
    assert plan(island, TilingSpec(stride_px=16)).grid.stride_px == 16


def test_the_grid_has_the_scale_of_the_sampling(island: str) -> None:
    planned = plan(island)

    assert (
        (planned.grid.scale_x, planned.grid.scale_y) == (planned.sampling.scale_x, planned.sampling.scale_y) == (2, 2)
    )
    assert planned.sampling.effective_mpp == pytest.approx(4.0)


def test_less_tissue_asked_for_keeps_more_tiles_of_the_same_index(island: str) -> None:
    strict, lenient = (
        set(plan(island, tissue=TissueSpec(min_fraction=least)).tile_index.tolist()) for least in (0.5, 0.0)
    )

    assert strict < lenient == set(range(11 * 7))


def test_a_slide_of_glass_has_no_tiles_and_no_regions(tmp_path: Path) -> None:
    planned = plan(write_tiff(tmp_path / "glass.tif", [np.full((400, 700, 3), 244, np.uint8)], mpp=2.0))

    assert (len(planned.tile_index), list(planned.regions()), planned.tissue_mm2) == (0, [], 0)


def test_a_slide_that_is_too_coarse_cannot_be_planned(island: str) -> None:
    with pytest.raises(SlideError) as caught:
        plan_file(island, 32, 0.5, TilingSpec(), TissueSpec())

    assert caught.value.cause is Cause.TOO_COARSE


def test_a_slide_of_which_no_pixel_can_be_read_is_refused_by_name(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "damaged.tif", [np.full((400, 700, 3), 244, np.uint8)], mpp=2.0)
    for block in range(11 * 7):
        damage_block(path, level=0, block=block)

    with pytest.raises(SlideError, match=r"damaged\.tif: opens, but its pixels cannot be read") as caught:
        plan(path)

    assert caught.value.cause is Cause.UNREADABLE


@pytest.mark.parametrize("block", [(11, 11), (25, 27)], ids=["in the tissue", "in the glass"])
def test_a_damaged_block_changes_no_tile_beside_its_leaf_and_loses_none(tmp_path: Path, block: tuple[int, int]) -> None:
    pixels = np.full((2048, 2048, 3), 244, np.uint8)
    pixels[512:1024, 512:1088] = (225, 150, 190)
    path = write_tiff(tmp_path / "one level.tif", [pixels], mpp=1.0)
    whole = plan_file(path, 32, 2.0, TilingSpec(), TissueSpec())
    column, row = block
    damage_block(path, level=0, block=row * 32 + column)

    damaged = plan_file(path, 32, 2.0, TilingSpec(), TissueSpec())

    leaf = {y * 32 + x for x in (column // 2 * 2, column // 2 * 2 + 1) for y in (row // 2 * 2, row // 2 * 2 + 1)}
    assert fractions(damaged) == fractions(whole) | dict.fromkeys(leaf, 1.0)


def fractions(planned: SlidePlan) -> dict[int, float]:
    return dict(zip(planned.tile_index.tolist(), planned.tissue_fraction.tolist(), strict=True))


def test_a_pyramid_whose_coarse_level_is_damaged_is_planned(tmp_path: Path) -> None:
    pixels = np.full((2048, 2048, 3), 244, np.uint8)
    pixels[640:1152, 640:1152] = (225, 150, 190)
    path = write_tiff(tmp_path / "pyramid.tif", [pixels, pixels[::4, ::4]], mpp=2.0)
    whole = plan(path)
    damage_block(path, level=1, block=0)
    damage_block(path, level=1, block=7 * 8 + 7)

    damaged = plan(path)

    in_leaves = {y * 32 + x for start in (0, 24) for x in range(start, start + 8) for y in range(start, start + 8)}
    assert fractions(damaged) == fractions(whole) | dict.fromkeys(in_leaves, 1.0)


def test_a_grid_that_cannot_be_numbered_is_refused_before_the_tissue_is_sought(tmp_path: Path) -> None:
    path = write_huge(tmp_path / "huge.tif", 100_000, 100_000, [])

    with pytest.raises(SlideError, match=r"100000 x 100000 tiles.* use a larger stride") as caught:
        plan_file(str(path), 224, 0.25, TilingSpec(stride_px=1), TissueSpec())

    assert caught.value.cause is Cause.TOO_MANY_TILES


@pytest.mark.parametrize(
    ("spec", "field", "value"),
    [
        (TilingSpec, "mpp", 0),
        (TilingSpec, "stride_px", 0),
        (TilingSpec, "tolerance", 0.5),
        (TissueSpec, "min_fraction", 1.1),
        (TissueSpec, "mpp", 0),
    ],
)
def test_a_setting_out_of_range_is_refused(spec: type[TilingSpec | TissueSpec], field: str, value: float) -> None:
    with pytest.raises(ValidationError, match=field):
        spec.model_validate({field: value})


@pytest.mark.realdata
def test_a_real_slide_has_the_grid_of_its_size(shared: Path) -> None:
    planned = plan_file(
        str(shared / "slides" / "CMU-1-Small-Region.svs"), 224, 0.5, TilingSpec(), TissueSpec(), mpp_if_missing=None
    )

    assert (planned.slide.width, planned.slide.height) == (2220, 2967)
    assert (planned.grid.columns, planned.grid.rows) == (10, 14)
    assert (planned.grid.width, planned.grid.height) == (224, 224)
    assert planned.sampling.effective_mpp == pytest.approx(0.499)
    assert (planned.slide.mpp_source, planned.slide.objective_power) == ("metadata", 20)
    assert 0 < len(planned.tile_index) < 140
