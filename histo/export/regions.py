"""Merge neighbouring tiles of one class into regions: polygons with holes."""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import shapely

from histo.report.slide.labels import SlideLabels

Cells = npt.NDArray[np.int16]


@dataclass(frozen=True)
class Region:
    """Tiles of one class that share edges.

    Attributes:
        name: Its class.
        polygon: Level-0 pixels, with holes.
        n_tiles: Its tiles.
        area_mm2: Area that they stand for: their number x stride².
        mean_confidence: Mean over its tiles.
    """

    name: str
    polygon: shapely.Polygon
    n_tiles: int
    area_mm2: float
    mean_confidence: float


def smoothed(pred: Cells, n_classes: int, rounds: int) -> Cells:
    """Give each tile the class that most of the nine tiles around and in it have; its own, if that is one of the most.

    Args:
        pred: Class of every place of the grid, below 0 where there is none, `(rows, columns)`; such places stay so.
        n_classes: Number of classes.
        rounds: How often.

    Examples:
        >>> smoothed(np.array([[0, 0, 0], [0, 1, 0], [0, 0, -1]], np.int16), 2, rounds=1).tolist()
        [[0, 0, 0], [0, 0, 0], [0, 0, -1]]
    """
    for _ in range(rounds):
        most, winner = np.zeros(pred.shape, np.float32), pred.copy()
        own = np.zeros(pred.shape, np.float32)
        for number in range(n_classes):
            here = (pred == number).astype(np.float32)
            votes = cv2.boxFilter(here, -1, (3, 3), normalize=False, borderType=cv2.BORDER_CONSTANT)
            own = np.where(pred == number, votes, own)
            winner = np.where(votes > most, np.int16(number), winner)
            most = np.maximum(most, votes)
        pred = np.where((pred < 0) | (own == most), pred, winner).astype(np.int16)
    return pred


def merge(labels: SlideLabels, pred: Cells) -> Iterator[Region]:
    """Merge tiles that share an edge and have the same class; those that only touch at a corner stay apart.

    Each tile is a cell of the grid, one stride large, so that neighbours meet without gap or overlap. The polygons of a
    class are unions of a coverage (GEOS, by shapely).

    Args:
        labels: What was found on the slide.
        pred: Class of every place of the grid, as in `labels`, or smoothed.
    """
    edges_x, edges_y = (axis.edges_px(mpp) for axis, mpp in zip((labels.x, labels.y), labels.mpp, strict=True))
    for number, name in enumerate(labels.classes):
        _, parts = cv2.connectedComponents((pred == number).astype(np.uint8), connectivity=4)
        rows, columns = np.nonzero(parts)
        order = np.argsort(parts[rows, columns], kind="stable")
        rows, columns = rows[order], columns[order]
        starts = np.flatnonzero(np.diff(parts[rows, columns], prepend=0))
        cells = shapely.box(edges_x[columns], edges_y[rows], edges_x[columns + 1], edges_y[rows + 1])
        confidence = labels.confidence[rows, columns]
        for own, sure in zip(np.split(cells, starts[1:]), np.split(confidence, starts[1:]), strict=True):
            if len(own):
                union = shapely.get_parts(shapely.coverage_union_all(own))
                assert len(union) == 1, "cells that share edges are one polygon"
                area = len(own) * labels.tile_mm2
                yield Region(name, union[0], len(own), area, float(sure.mean(dtype=np.float64)))
