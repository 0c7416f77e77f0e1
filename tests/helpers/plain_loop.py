"""A plain loop that labels a slide without histo's readers, grids or Ray: what the tables are held against."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pyarrow.parquet as pq

from histo.learn.predict.torch_predictor import TorchPredictor
from histo.remote.location import AnyPath
from histo.resample import Pixels


@dataclass(frozen=True)
class PlainLoop:
    """Open, read, reduce by whole blocks, predict: what a person would write in ten lines."""

    slide: Path
    block: int

    def probabilities(self, bundle: Path, rows: list[dict[str, Any]]) -> np.ndarray:
        """Classify the tiles at the rows' places, one by one."""
        predict, slide = TorchPredictor(bundle), openslide.OpenSlide(str(self.slide))
        return np.concatenate([predict(self.tile(slide, row["x"], row["y"])[None]) for row in rows])

    def tile(self, slide: openslide.OpenSlide, x: int, y: int, size_px: int = 224) -> np.ndarray:
        """Read a tile at level 0, white beyond the edge, and average whole blocks, rounded half up."""
        edge = size_px * self.block
        rgba = np.asarray(slide.read_region((x, y), 0, (edge, edge))).astype(np.int64)
        rgba[rgba[..., 3] == 0] = 255
        sums = rgba[..., :3].reshape(size_px, self.block, size_px, self.block, 3).sum(axis=(1, 3))
        means: Pixels = ((sums + self.block**2 // 2) // self.block**2).astype(np.uint8)
        return means


def rows_of(path: AnyPath) -> list[dict[str, Any]]:
    """Read a table as dicts."""
    rows: list[dict[str, Any]] = pq.ParquetFile(path if isinstance(path, Path) else path.open("rb")).read().to_pylist()
    return rows


def assert_equal_to_plain_loop(rows: list[dict[str, Any]], loop: PlainLoop, bundle: Path) -> None:
    """The grid is every `224 * block` pixels; the probabilities are within 1e-4."""
    step = 224 * loop.block
    assert [(row["x"], row["y"]) for row in rows] == [(row["grid_x"] * step, row["grid_y"] * step) for row in rows]
    assert {(row["width"], row["height"]) for row in rows} == {(step, step)}
    found = np.array([[row[f"prob_{name}"] for name in ("MUS", "STR", "TUM")] for row in rows])
    np.testing.assert_allclose(found, loop.probabilities(bundle, rows), atol=1e-4)
    assert np.ptp(found, axis=0).max() > 0.05, "the tiles must differ, or equality says nothing"
