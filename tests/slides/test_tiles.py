"""Tiles show the right place at the right resolution, however they are cut."""

import numpy as np
import numpy.typing as npt
import pytest
from helpers.fake_slides import FakeReader, Places, array_slide, fake_slide, noise
from hypothesis import given, settings
from hypothesis import strategies as st

from histo.resample import Window, resample
from histo.slides.grid import Grid
from histo.slides.resolution import Sampling, choose_sampling
from histo.slides.slide import Slide
from histo.slides.tiles import read_tile
from histo.slides.window import read_window

laws = settings(max_examples=40)
ratios = st.sampled_from([1.0, 2.0, 4.0, 1.5, 2.0016]) | st.floats(0.4, 4)


def position(level: int, x: Places, y: Places) -> npt.NDArray[np.float64]:
    """Colour each pixel by where it lies: red and green count steps of 8 level-0 pixels; blue is the level."""
    return np.stack(np.broadcast_arrays(x // 8, y // 8, np.full(1, level * 100)), axis=-1)


def grid_of(slide: Slide, sampling: Sampling, size_px: int, stride_px: int) -> Grid:
    return Grid(slide.width, slide.height, size_px, stride_px, sampling.scale_x, sampling.scale_y)


def sampling_of(ratio_x: float, ratio_y: float) -> Sampling:
    """Read level 0 at these ratios; the resolution does not matter."""
    return Sampling(0, ratio_x, ratio_y, ratio_x, ratio_y, ratio_x, ratio_y)


@pytest.mark.parametrize(("downsamples", "level"), [((1,), 0), ((1, 4), 1), ((1, 2, 8), 2)])
def test_a_tile_shows_the_place_that_its_origin_names(downsamples: tuple[int, ...], level: int) -> None:
    slide, reader = fake_slide(1536, 768, downsamples, mpp=0.25), FakeReader(position)
    sampling = choose_sampling(slide, 2.0)
    grid = grid_of(slide, sampling, size_px=16, stride_px=16)

    tile = read_tile(reader, slide, sampling, grid, grid_x=7, grid_y=3)

    assert (grid.columns, grid.rows, grid.x(np.array([7])), grid.y(np.array([3]))) == (12, 6, 7 * 128, 3 * 128)
    assert (tile[..., 0] == 7 * 16 + np.arange(16)[None, :]).all()
    assert (tile[..., 1] == 3 * 16 + np.arange(16)[:, None]).all()
    assert (tile[..., 2] == level * 100).all()


def test_overlapping_tiles_show_the_same_pixels_where_they_overlap() -> None:
    slide, reader = array_slide(noise(120, 90))
    sampling = sampling_of(1.7, 1.7)
    grid = grid_of(slide, sampling, size_px=16, stride_px=12)

    left, right = (read_tile(reader, slide, sampling, grid, grid_x, 1) for grid_x in (1, 2))

    assert np.array_equal(left[:, 12:], right[:, :4])


@pytest.mark.parametrize("downsample", [1, 4])
def test_what_hangs_over_the_edge_is_white(downsample: int) -> None:
    slide, reader = fake_slide(1200, 720, (1, downsample), mpp=0.25), FakeReader(lambda *_: np.zeros((1, 1, 3)))
    sampling = choose_sampling(slide, 1.0)
    grid = grid_of(slide, sampling, size_px=64, stride_px=64)

    tile = read_tile(reader, slide, sampling, grid, grid.columns - 1, grid.rows - 1)

    width, height = 1200 // 4 % 64, 720 // 4 % 64
    assert (tile[:height, :width] == 0).all()
    assert (tile[height:] == 255).all()
    assert (tile[:, width:] == 255).all()


def test_a_pixel_half_over_the_edge_is_half_white() -> None:
    slide, reader = array_slide(np.zeros((8, 7, 3), np.uint8))
    sampling = sampling_of(2, 2)

    tile = read_tile(reader, slide, sampling, grid_of(slide, sampling, 5, 5), 0, 0)

    assert tile[0, :, 0].tolist() == [0, 0, 0, 128, 255]


@laws
@given(ratios, ratios, st.integers(1, 16), st.integers(1, 16), st.integers(0, 2**32 - 1))
def test_every_tile_is_a_cut_of_the_whole_slide_resampled(
    ratio_x: float, ratio_y: float, size_px: int, stride_px: int, seed: int
) -> None:
    slide, reader = array_slide(noise(53, 37, seed))
    sampling = sampling_of(ratio_x, ratio_y)
    grid = grid_of(slide, sampling, size_px, stride_px)
    columns = Window(0, (grid.columns - 1) * stride_px + size_px, ratio_x)
    rows = Window(0, (grid.rows - 1) * stride_px + size_px, ratio_y)
    whole = read_window(reader, slide, 0, columns, rows)

    for i, j in {(0, 0), (grid.columns // 2, grid.rows - 1), (grid.columns - 1, grid.rows // 2)}:
        tile = read_tile(reader, slide, sampling, grid, i, j)

        x, y = i * stride_px, j * stride_px
        assert np.array_equal(tile, whole[y : y + size_px, x : x + size_px])


def test_a_window_of_a_level_is_the_average_of_that_level() -> None:
    slide, reader = fake_slide(800, 600, (1, 4)), FakeReader(position)
    columns, rows = Window(3, 10, 2.5), Window(5, 7, 1.5)
    (left, right), (top, bottom) = columns.source_span(), rows.source_span()
    level = position(1, 4.0 * np.arange(left, right)[None, :], 4.0 * np.arange(top, bottom)[:, None])

    pixels = read_window(reader, slide, 1, columns, rows)

    assert np.array_equal(pixels, resample(level.astype(np.uint8), columns, rows))


def test_a_tile_lies_where_its_row_says_to_within_a_target_pixel() -> None:
    slide, reader = fake_slide(2000, 1000, mpp=0.3), FakeReader(position)
    sampling = choose_sampling(slide, 0.5)
    grid = grid_of(slide, sampling, size_px=32, stride_px=32)

    tile = read_tile(reader, slide, sampling, grid, 20, 11)

    x, y = grid.x(np.array([20]))[0], grid.y(np.array([11]))[0]
    assert abs(8 * float(tile[..., 0].mean()) + 3.5 - (x + (grid.width - 1) / 2)) <= sampling.scale_x
    assert abs(8 * float(tile[..., 1].mean()) + 3.5 - (y + (grid.height - 1) / 2)) <= sampling.scale_y


def test_one_tile_reads_no_more_than_its_own_pixels() -> None:
    slide, reader = array_slide(noise(200, 200))
    sampling = sampling_of(2, 2)

    read_tile(reader, slide, sampling, grid_of(slide, sampling, 16, 16), 2, 3)

    assert reader.areas == [32 * 32]
