"""The laws of DESIGN.md, section 5, Grid."""

from math import floor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from histo.slides.grid import Grid, Indices, cut_regions, keep_tissue
from histo.slides.tissue import TissueMask

laws = settings(max_examples=50)
extents = st.integers(1, 3000)
sizes = st.integers(1, 64)
scales = st.floats(0.3, 9)
exact_scales = st.integers(3, 72).map(lambda eighths: eighths / 8)
seeds = st.integers(0, 2**32 - 1)


def grids(
    extents: st.SearchStrategy[int] = extents, scales: st.SearchStrategy[float] = scales
) -> st.SearchStrategy[Grid]:
    return st.builds(Grid, extents, extents, sizes, sizes, scales, scales)


wide_grids = st.builds(Grid, st.integers(1, 6000), st.integers(1, 6000), sizes, st.integers(30, 64), scales, scales)


def some_tiles(grid: Grid, seed: int) -> Indices:
    """About half of the tiles of a grid, ascending."""
    return np.flatnonzero(np.random.default_rng(seed).random(grid.columns * grid.rows) < 0.5)


def region_of_each_tile(grid: Grid, tile_index: Indices) -> dict[int, str]:
    regions = cut_regions(grid, tile_index, np.ones(len(tile_index), np.float32))
    return {int(index): region.name for region in regions for index in region.tile_index}


def random_mask(seed: int, cell: float = 16.0, share: float = 0.5) -> TissueMask:
    return TissueMask(np.random.default_rng(seed).random((12, 15)) < share, cell, cell)


@laws
@given(grids(scales=exact_scales), st.integers(0, 500))
def test_an_origin_is_the_index_times_the_stride_rounded_half_up(grid: Grid, index: int) -> None:
    eighths_x, eighths_y = (round(index * grid.stride_px * scale * 8) for scale in (grid.scale_x, grid.scale_y))

    assert grid.x(np.array([index])) == (eighths_x + 4) // 8
    assert grid.y(np.array([index])) == (eighths_y + 4) // 8


@laws
@given(grids(), st.integers(0, 500))
def test_an_origin_is_at_most_half_a_pixel_from_its_true_place(grid: Grid, index: int) -> None:
    assert abs(grid.x(np.array([index])) - index * grid.stride_px * grid.scale_x) <= 0.5 + 1e-6
    assert abs(grid.y(np.array([index])) - index * grid.stride_px * grid.scale_y) <= 0.5 + 1e-6


@laws
@given(grids())
def test_the_grid_holds_every_tile_whose_origin_lies_inside_and_no_other(grid: Grid) -> None:
    many = np.arange(grid.columns + grid.rows + 5)

    inside_x, inside_y = grid.x(many) < grid.slide_width, grid.y(many) < grid.slide_height

    assert np.flatnonzero(inside_x).tolist() == list(range(grid.columns))
    assert np.flatnonzero(inside_y).tolist() == list(range(grid.rows))


@laws
@given(grids())
def test_all_tiles_have_the_size_rounded_half_up(grid: Grid) -> None:
    assert grid.width == floor(grid.size_px * grid.scale_x + 0.5)
    assert grid.height == floor(grid.size_px * grid.scale_y + 0.5)


@laws
@given(grids(), st.data())
def test_a_tile_index_is_its_row_times_the_columns_plus_its_column(grid: Grid, data: st.DataObject) -> None:
    column, row = data.draw(st.integers(0, grid.columns - 1)), data.draw(st.integers(0, grid.rows - 1))

    grid_x, grid_y = grid.places(np.array([row * grid.columns + column]))

    assert (grid_x[0], grid_y[0]) == (column, row)


@laws
@given(seeds, st.floats(0, 1), st.integers(8, 40), st.integers(12, 40))
def test_the_kept_tiles_are_those_with_enough_tissue_in_grid_order(
    seed: int, least: float, size_px: int, stride_px: int
) -> None:
    grid, mask = Grid(240, 192, size_px, stride_px, 1, 1), random_mask(seed)
    pixels = np.zeros((300, 300))
    pixels[:192, :240] = np.kron(mask.mask, np.ones((16, 16)))
    shares = [
        pixels[y : y + size_px, x : x + size_px].mean()
        for y in range(0, 192, stride_px)
        for x in range(0, 240, stride_px)
    ]
    clear = [abs(share - least) > 1e-9 or least == 0 for share in shares]  # a tie is not decided by rounding

    kept, fractions = keep_tissue(grid, mask, least)

    assert [i for i in kept if clear[i]] == [i for i, share in enumerate(shares) if clear[i] and share >= least]
    assert np.allclose(fractions, [shares[i] for i in kept], atol=1e-6)


def test_a_tile_with_exactly_the_least_tissue_is_kept() -> None:
    quarter = TissueMask(np.array([[True, False], [False, False]]), 16, 16)

    kept, fractions = keep_tissue(Grid(32, 32, 32, 32, 1, 1), quarter, 0.25)

    assert (kept.tolist(), fractions.tolist()) == ([0], [0.25])


@laws
@given(st.integers(1, 300), st.integers(1, 300), st.integers(4, 64), st.integers(4, 64), scales)
def test_without_a_least_tissue_every_tile_is_kept(
    width: int, height: int, size_px: int, stride_px: int, scale: float
) -> None:
    grid = Grid(width, height, size_px, stride_px, scale, scale)

    kept, _ = keep_tissue(grid, random_mask(0), 0)

    assert np.array_equal(kept, np.arange(grid.columns * grid.rows))


@laws
@given(seeds, st.floats(0, 1))
def test_tissue_settings_change_neither_index_nor_fraction_of_a_tile(seed: int, least: float) -> None:
    grid, mask = Grid(240, 192, 20, 13, 1.3, 1.7), random_mask(seed)
    everything, all_fractions = keep_tissue(grid, mask, 0)

    kept, fractions = keep_tissue(grid, mask, least)

    assert np.isin(kept, everything).all()
    assert np.array_equal(fractions, all_fractions[kept])


@laws
@given(st.integers(1, 200), st.integers(1, 200), st.integers(3, 20), st.integers(1, 5), st.integers(1, 5))
def test_tiles_without_overlap_cover_each_pixel_once(
    width: int, height: int, size_px: int, scale_x: int, scale_y: int
) -> None:
    grid = Grid(width, height, size_px, size_px, scale_x, scale_y)
    visits = np.zeros((height, width), int)

    for y in grid.y(np.arange(grid.rows)):
        for x in grid.x(np.arange(grid.columns)):
            visits[y : y + grid.height, x : x + grid.width] += 1

    assert (visits == 1).all()


@laws
@given(wide_grids, seeds)
def test_regions_are_a_partition_of_the_kept_tiles(grid: Grid, seed: int) -> None:
    kept = some_tiles(grid, seed)
    fractions = np.random.default_rng(seed).random(len(kept)).astype(np.float32)

    regions = list(cut_regions(grid, kept, fractions))

    together = [tile for region in regions for tile in zip(region.tile_index, region.tissue_fraction, strict=True)]
    assert sorted(together) == list(zip(kept, fractions, strict=True))
    assert all((np.diff(region.tile_index) > 0).all() for region in regions)
    assert len({region.name for region in regions}) == len(regions)


@laws
@given(wide_grids, seeds)
def test_a_region_lies_in_a_square_of_16_by_16_tiles(grid: Grid, seed: int) -> None:
    kept = some_tiles(grid, seed)

    for region in cut_regions(grid, kept, np.ones(len(kept), np.float32)):
        grid_x, grid_y = grid.places(region.tile_index)
        assert np.ptp(grid_x) < 16
        assert np.ptp(grid_y) < 16
        assert 1 <= len(region.tile_index) <= 256


@laws
@given(wide_grids, seeds)
def test_a_tile_is_in_the_same_region_whichever_others_are_kept(grid: Grid, seed: int) -> None:
    whole = region_of_each_tile(grid, np.arange(grid.columns * grid.rows))

    part = region_of_each_tile(grid, some_tiles(grid, seed))

    assert part.items() <= whole.items()


def test_a_slide_without_kept_tiles_has_no_regions() -> None:
    grid = Grid(1000, 1000, 10, 10, 1, 1)

    assert list(cut_regions(grid, np.array([], np.int64), np.array([], np.float32))) == []


@pytest.mark.parametrize("name", ["slide_width", "slide_height", "size_px", "stride_px", "scale_x", "scale_y"])
@pytest.mark.parametrize("value", [0, -1])
def test_a_length_that_is_not_positive_is_refused_by_name(name: str, value: int) -> None:
    lengths = dict.fromkeys(["slide_width", "slide_height", "size_px", "stride_px"], 100)

    with pytest.raises(ValueError, match=f"{name} must be positive, not {value}"):
        Grid(**(lengths | {"scale_x": 1.0, "scale_y": 1.0} | {name: value}))


@pytest.mark.parametrize("scale", [2.0, 2.0016, 1.9984, 1.7])
def test_a_tile_that_is_all_tissue_meets_a_minimum_of_one(scale: float) -> None:
    mask = TissueMask(np.ones((400, 400), np.bool_), 16 * scale, 16 * scale)
    edge = int(400 * 16 * scale / (224 * scale)) * int(224 * scale)

    kept, _ = keep_tissue(Grid(edge, edge, 224, 224, scale, scale), mask, min_fraction=1.0)

    assert len(kept) == 28 * 28
