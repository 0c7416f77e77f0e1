"""The laws of the box kernel."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from histo.resample import Pixels, Window, block_means, resample, resize

laws = settings(max_examples=50)
any_ratio = st.sampled_from([0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 0.9999, 2.0016]) | st.floats(0.3, 5)
seeds = st.integers(0, 2**32 - 1)


def windows(ratios: st.SearchStrategy[float], max_count: int = 24) -> st.SearchStrategy[Window]:
    return st.builds(Window, st.integers(0, 40), st.integers(1, max_count), ratios)


def noise(columns: Window, rows: Window, seed: int) -> Pixels:
    """Random pixels, exactly the source spans of two windows."""
    (left, right), (top, bottom) = columns.source_span(), rows.source_span()
    return np.random.default_rng(seed).integers(0, 256, (bottom - top, right - left, 3), np.uint8)


def square_noise(length: int, seed: int) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (length, length, 3), np.uint8)


@st.composite
def cuts(draw: st.DrawFn, window: Window) -> list[Window]:
    """A window, cut into neighbouring ones at any places."""
    inner = draw(st.sets(st.integers(1, window.count - 1), max_size=4)) if window.count > 1 else set()
    edges = [0, *sorted(inner), window.count]
    return [Window(window.start + first, last - first, window.ratio) for first, last in pairwise(edges)]


def span_within(part: Window, whole: Window) -> slice:
    """Where the source span of a part lies in the source of the whole."""
    (first, last), origin = part.source_span(), whole.source_span()[0]
    return slice(first - origin, last - origin)


def area_average(row: list[float], start: float, stop: float, origin: int) -> float:
    """The mean, from `start` to `stop`, of a function that is `row[0]` on `[origin, origin + 1)`, and so on."""
    total = 0.0
    for place, value in enumerate(row, start=origin):
        total += value * max(0.0, min(stop, place + 1) - max(start, place))
    return total / (stop - start)


@laws
@given(st.data(), windows(any_ratio), windows(any_ratio), seeds)
def test_no_cut_into_windows_changes_a_pixel(data: st.DataObject, columns: Window, rows: Window, seed: int) -> None:
    source = noise(columns, rows, seed)
    whole = resample(source, columns, rows)

    parts = [
        [
            resample(source[span_within(down, rows), span_within(across, columns)], across, down)
            for across in data.draw(cuts(columns))
        ]
        for down in data.draw(cuts(rows))
    ]

    assert np.array_equal(np.vstack([np.hstack(row) for row in parts]), whole)


@laws
@given(windows(st.integers(1, 6)), windows(st.integers(1, 6)), seeds)
def test_an_integer_ratio_is_the_block_mean_rounded_half_up(columns: Window, rows: Window, seed: int) -> None:
    source = noise(columns, rows, seed)
    blocks = source.reshape(rows.count, int(rows.ratio), columns.count, int(columns.ratio), 3)
    total, area = blocks.sum(axis=(1, 3), dtype=np.int64), int(rows.ratio * columns.ratio)

    mean = resample(source, columns, rows)

    assert np.array_equal(mean, (2 * total + area) // (2 * area))


@laws
@given(st.integers(1, 63), st.integers(1, 63), st.integers(0, 254), st.integers(-1, 1))
def test_a_block_mean_beside_a_half_is_rounded_exactly(across: int, down: int, level: int, surplus: int) -> None:
    area = across * down
    block = np.full(area, level, np.uint8)
    block[: max(0, area // 2 + surplus)] += 1

    mean = block_means(block.reshape(down, across, 1).repeat(3, axis=2), across, down)

    assert mean.tolist() == [[[(2 * block.sum(dtype=int) + area) // (2 * area)] * 3]]


@laws
@given(windows(any_ratio), windows(any_ratio), st.integers(0, 255))
def test_a_constant_image_stays_constant(columns: Window, rows: Window, level: int) -> None:
    source = np.full_like(noise(columns, rows, 0), level)

    mean = resample(source, columns, rows)

    assert mean.shape == (rows.count, columns.count, 3)
    assert (mean == level).all()


@laws
@given(windows(st.floats(1, 5), max_count=4), windows(st.floats(1, 5), max_count=4), seeds)
def test_a_fractional_ratio_is_the_area_integral(columns: Window, rows: Window, seed: int) -> None:
    source = noise(columns, rows, seed)[..., :1]
    left, top = columns.source_span()[0], rows.source_span()[0]

    mean = resample(source, columns, rows)[..., 0]

    for i, j in np.ndindex(mean.shape):
        x, y = (columns.start + j) * columns.ratio, (rows.start + i) * rows.ratio
        across = [area_average(row.tolist(), x, x + columns.ratio, left) for row in source[..., 0]]
        assert abs(mean[i, j] - area_average(across, y, y + rows.ratio, top)) <= 0.501


@laws
@given(windows(st.floats(0.3, 0.999)), windows(st.floats(0.3, 0.999)), seeds)
def test_a_ratio_below_one_is_linear_interpolation(columns: Window, rows: Window, seed: int) -> None:
    source = noise(columns, rows, seed)[..., 0]
    known_x, known_y = (np.arange(*window.source_span()) + 0.5 for window in (columns, rows))
    x, y = ((window.start + np.arange(window.count) + 0.5) * window.ratio for window in (columns, rows))
    across = np.stack([np.interp(x, known_x, row) for row in source])
    expected = np.stack([np.interp(y, known_y, column) for column in across.T], axis=1)

    enlarged = resample(source[..., np.newaxis], columns, rows)[..., 0]

    assert np.abs(enlarged - expected).max() <= 0.501


@pytest.mark.parametrize("surplus", [(1, 0), (0, 1), (-1, 0), (0, -1)])
def test_a_crop_of_another_size_is_refused(surplus: tuple[int, int]) -> None:
    source = np.zeros((6 + surplus[0], 8 + surplus[1], 3), np.uint8)

    with pytest.raises(ValueError, match=r"\[6, 8\]"):
        resample(source, columns=Window(0, 4, 2), rows=Window(0, 3, 2))


@pytest.mark.parametrize(("count", "ratio"), [(0, 1.0), (-1, 1.0), (1, 0.0), (1, -2.0)])
def test_a_window_without_pixels_is_refused(count: int, ratio: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        Window(0, count, ratio)


@laws
@given(st.integers(1, 64), st.integers(1, 64), st.integers(0, 255))
def test_resize_keeps_a_constant_image(length: int, size_px: int, level: int) -> None:
    image = np.full((length, length, 3), level, np.uint8)

    resized = resize(image, size_px)

    assert resized.shape == (size_px, size_px, 3)
    assert (resized == level).all()


def test_resize_enlarges_28_pixels_to_224() -> None:
    image = np.zeros((28, 28, 3), np.uint8)

    assert resize(image, 224).shape == (224, 224, 3)


@laws
@given(st.integers(1, 32), seeds)
def test_resize_to_its_own_size_changes_nothing(length: int, seed: int) -> None:
    image = square_noise(length, seed)

    assert np.array_equal(resize(image, length), image)


@laws
@given(st.integers(1, 48), st.integers(1, 48), seeds)
def test_resize_treats_opposite_sides_alike(length: int, size_px: int, seed: int) -> None:
    image = square_noise(length, seed)

    mirrored = resize(image[::-1, ::-1], size_px)[::-1, ::-1]

    assert np.abs(mirrored.astype(int) - resize(image, size_px)).max() <= 1


def sums_of_taps(source: Pixels, columns: Window, rows: Window) -> Pixels:
    """The mean as it is defined: taps one after the other, in float32, down and then across."""
    down = summed(source.astype(np.float32), rows)
    mean = summed(down.swapaxes(0, 1), columns).swapaxes(0, 1)
    return (mean / np.float32(rows.footprint * columns.footprint) + np.float32(0.5)).astype(np.uint8)


def summed(source: np.ndarray, window: Window) -> np.ndarray:
    first, weights = window.taps()
    total = np.zeros((window.count, *source.shape[1:]), np.float32)
    for tap in range(weights.shape[1]):
        places = np.minimum(first - window.source_span()[0] + tap, len(source) - 1)
        total += weights[:, tap, None, None] * source[places]
    return total


@laws
@given(windows(st.floats(0.3, 5)), windows(st.floats(0.3, 5)), seeds, st.integers(1, 4), st.integers(1, 4000))
def test_a_mean_is_the_same_sum_of_taps_whatever_the_strips(
    columns: Window, rows: Window, seed: int, channels: int, strip_bytes: int
) -> None:
    assume(columns.ratio % 1 or rows.ratio % 1)
    source = noise(columns, rows, seed)[..., :1].repeat(channels, axis=2)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("histo.resample.STRIP_BYTES", strip_bytes)
        mean = resample(source, columns, rows)

    assert np.array_equal(mean, sums_of_taps(source, columns, rows))
