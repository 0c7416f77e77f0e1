"""Draw training tiles, beside their augmented forms if they are augmented."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from histo.remote.location import AnyPath
from histo.report.letters import legible, shorten
from histo.report.picture import write_picture

TILE_INCH = 1.5
GAP = 0.15
"""Width of the empty column that sets the originals apart (share of a tile)."""
_PER_ROW = 5
_LONGEST = 16
"""Characters of a title above a tile."""


def draw_samples(
    originals: np.ndarray, changed: np.ndarray, titles: Sequence[str], target: AnyPath, caption: str
) -> None:
    """Draw a row per tile, the original first and its changed versions beside it, and write a PNG.

    Args:
        originals: uint8 (n, H, W, 3).
        changed: uint8 (n, m, H, W, 3).
        titles: What stands at the left of each row, such as the tile's class.
        target: The picture.
        caption: A line below the picture.

    Raises:
        ValueError: If there is not one title and one row of changed tiles per original.
    """
    rows, columns = changed.shape[:2]
    if not len(originals) == rows == len(titles):
        raise ValueError(f"{len(originals)} originals, {rows} rows of changed tiles, {len(titles)} titles")
    figure = Figure(figsize=(TILE_INCH * (columns + 1.8), TILE_INCH * rows + 0.8), layout="constrained")
    grid = figure.subplots(rows, columns + 2, squeeze=False, width_ratios=[1, GAP, *[1] * columns])
    for row, title in enumerate(titles):
        first, gap, *others = grid[row]
        gap.set_axis_off()
        _show(first, originals[row])
        first.set_ylabel(title, rotation=0, ha="right", va="center", fontsize=12)
        for axes, tile in zip(others, changed[row], strict=True):
            _show(axes, tile)
    grid[0, 0].set_title("original")
    grid[0, 2].set_title("augmented", loc="left")
    figure.supxlabel(caption, fontsize=10, wrap=True)
    write_picture(figure, target, dpi=150)


def draw_unchanged(originals: np.ndarray, titles: Sequence[str], target: AnyPath, caption: str) -> None:
    """Draw tiles that training sees as they are, a few in a row, and write a PNG.

    Args:
        originals: uint8 (n, H, W, 3).
        titles: What stands above each of them, such as the tile's class.
        target: The picture.
        caption: A line below the picture.

    Raises:
        ValueError: If there is not one title per tile.
    """
    rows = math.ceil(len(originals) / _PER_ROW)
    figure = Figure(figsize=(TILE_INCH * _PER_ROW, (TILE_INCH + 0.3) * rows + 0.5), layout="constrained")
    panels = figure.subplots(rows, _PER_ROW, squeeze=False).ravel()
    for axes in panels[len(originals) :]:
        axes.set_axis_off()
    for axes, tile, title in zip(panels[: len(originals)], originals, titles, strict=True):
        _show(axes, tile)
        axes.set_title(shorten(legible(title), _LONGEST), fontsize=11)
    figure.supxlabel(caption, fontsize=10, wrap=True)
    write_picture(figure, target, dpi=150, names=titles)


def _show(axes: Axes, tile: np.ndarray) -> None:
    axes.imshow(tile, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
