import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from histo.volumes.geometry.framing import fit
from histo.volumes.intensity import IntensityWindow

extents, distances = st.integers(2, 600), st.floats(0.1, 9)
IDENTITY = IntensityWindow(0, 255)


@given(extents, extents, distances, distances, st.integers(8, 600))
def test_the_longer_side_fills_the_square_and_pixels_are_square(
    rows: int, columns: int, row_mm: float, column_mm: float, size_px: int
) -> None:
    frame = fit(rows, columns, (row_mm, column_mm), size_px)

    assert max(frame.height, frame.width) == size_px
    assert frame.height == pytest.approx(rows * row_mm / frame.pixel_mm, abs=0.5001) or frame.height == 1
    assert frame.width == pytest.approx(columns * column_mm / frame.pixel_mm, abs=0.5001) or frame.width == 1


def test_a_slice_of_the_size_of_the_square_is_not_touched() -> None:
    plane = np.random.default_rng(0).integers(0, 256, (32, 32)).astype(np.float32)

    assert np.array_equal(fit(32, 32, (0.7, 0.7), 32).put(plane, IDENTITY), plane)


def test_shrinking_averages_areas() -> None:
    plane = np.random.default_rng(0).integers(0, 256, (64, 48)).astype(np.float32)

    framed = fit(64, 48, (1, 1), 16).put(plane, IDENTITY)

    means = plane.reshape(16, 4, 12, 4).mean(axis=(1, 3))
    assert np.array_equal(framed[:, 2:14], np.floor(means + 0.5))
    assert not framed[:, [0, 1, 14, 15]].any()


def test_one_axis_may_shrink_while_the_other_grows() -> None:
    plane = np.repeat(np.arange(64, dtype=np.float32)[:, None], 4, axis=1)

    framed = fit(64, 4, (1, 16), 16).put(plane, IDENTITY)

    assert np.array_equal(framed, np.repeat(np.floor(np.arange(16) * 4 + 2.0)[:, None], 16, axis=1))


def test_growing_is_linear() -> None:
    plane = np.array([[0, 40], [0, 40]], np.float32)

    framed = fit(2, 2, (1, 1), 8).put(plane, IDENTITY)

    assert framed[0].tolist() == [0, 0, 5, 15, 25, 35, 40, 40]


def test_an_odd_black_line_is_the_last() -> None:
    framed = fit(8, 5, (1, 1), 8).put(np.full((8, 5), 255, np.float32), IDENTITY)

    assert framed[0].tolist() == [0, 255, 255, 255, 255, 255, 0, 0]
