"""Regions: neighbouring tiles of a class as one polygon."""

from collections.abc import Callable

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from histo.export.regions import merge, smoothed
from histo.report.slide.labels import NO_TILE, UNREADABLE, Axis, SlideLabels

CLASSES = ("BACK", "STR", "TUM")
grids = arrays(np.int16, st.tuples(st.integers(1, 8), st.integers(1, 8)), elements=st.integers(UNREADABLE, 2))


def labels_of(pred: np.ndarray, stride_px: float = 448.0, size_px: float = 448.0, mpp: float = 0.25) -> SlideLabels:
    """Tiles of 448 px at level 0 unless said otherwise."""
    rows, columns = pred.shape
    x, y = (Axis(tiles * stride_px * mpp, stride_px * mpp, size_px * mpp, tiles) for tiles in (columns, rows))
    confidence = np.linspace(0.4, 1, pred.size, dtype=np.float32).reshape(pred.shape)
    return SlideLabels("s", CLASSES, x, y, (mpp, mpp), "metadata", 224, (0.5, 0.5), pred, confidence, "f", "m")


@given(grids, st.sampled_from([(448.0, 448.0), (224.3, 448.0), (447.7, 448.0), (600.0, 448.0)]))
def test_regions_cover_each_tile_of_their_class_once_and_nothing_else(
    pred: np.ndarray, lengths: tuple[float, float]
) -> None:
    labels = labels_of(pred, *lengths)
    edges_x, edges_y = labels.x.edges_px(0.25), labels.y.edges_px(0.25)

    regions = [*merge(labels, pred)]

    for number, name in enumerate(CLASSES):
        own = [region for region in regions if region.name == name]
        rows, columns = np.nonzero(pred == number)
        cells = shapely.box(edges_x[columns], edges_y[rows], edges_x[columns + 1], edges_y[rows + 1])
        assert sum(region.polygon.area for region in own) == pytest.approx(sum(cell.area for cell in cells))
        assert sum(region.n_tiles for region in own) == len(cells)
        assert all(region.polygon.is_valid for region in own)
        for cell in cells:
            assert sum(region.polygon.contains(cell) for region in own) == 1
    assert sum(region.area_mm2 for region in regions) == pytest.approx((pred >= 0).sum() * labels.tile_mm2)


def test_a_ring_has_a_hole_and_a_corner_joins_nothing() -> None:
    pred = np.array([[2, 2, 2, NO_TILE], [2, 1, 2, NO_TILE], [2, 2, 2, NO_TILE], [NO_TILE] * 3 + [2]], np.int16)
    labels = labels_of(pred)

    regions = {(region.name, region.n_tiles): region for region in merge(labels, pred)}

    assert set(regions) == {("TUM", 8), ("STR", 1), ("TUM", 1)}
    ring = regions["TUM", 8]
    assert len(ring.polygon.interiors) == 1
    assert ring.polygon.bounds == (0, 0, 1344, 1344)
    assert shapely.Polygon(ring.polygon.interiors[0]).equals(regions["STR", 1].polygon)
    assert ring.area_mm2 == pytest.approx(8 * 0.112**2)
    assert ring.mean_confidence == pytest.approx(labels.confidence[:3, :3][pred[:3, :3] == 2].mean())


@given(grids, st.integers(0, 3))
def test_smoothing_keeps_places_without_a_class_and_uniform_tissue(pred: np.ndarray, rounds: int) -> None:
    found = smoothed(pred, 3, rounds)

    assert ((found < 0) == (pred < 0)).all()
    assert (found[pred < 0] == pred[pred < 0]).all()
    if len(set(pred[pred >= 0].tolist())) == 1:
        assert (found == pred).all()


def majority(pred: np.ndarray, row: int, column: int) -> int:
    """The plain rule, one tile at a time."""
    around = pred[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2].ravel().tolist()
    counts = [around.count(number) for number in range(3)]
    own = int(pred[row, column])
    return own if counts[own] == max(counts) else counts.index(max(counts))


@given(grids)
def test_a_round_of_smoothing_is_the_majority_of_the_nine_tiles(pred: np.ndarray) -> None:
    found = smoothed(pred, 3, 1)

    for row, column in zip(*np.nonzero(pred >= 0), strict=True):
        assert found[row, column] == majority(pred, row, column)


@pytest.mark.parametrize("draw", [np.zeros, lambda shape, dtype: np.indices(shape).sum(axis=0).astype(dtype) % 2])
def test_many_tiles_are_merged(draw: Callable[..., np.ndarray]) -> None:
    pred = draw((200, 300), np.int16)

    regions = [*merge(labels_of(pred), pred)]

    assert sum(region.n_tiles for region in regions) == 60_000
