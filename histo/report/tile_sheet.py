"""Draw the tiles that were cut from a slide: their places, and samples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from histo.remote.location import AnyPath
from histo.report.letters import legible, shorten
from histo.report.picture import write_picture
from histo.resample import Pixels
from histo.slides.slide import Slide
from histo.slides.tissue import Thumbnail

SHOWN = 6
"""Samples of each class."""
SHOWN_PLAIN = 24
"""Samples of tiles without classes."""
PLAIN = "#332288"
"""Colour of tiles without classes."""
_LONGEST_PX = 900
"""Of the thumbnail."""
_TILE_INCH, _MAP_INCH = 0.9, 6.0
_MOST_CLASSES, _LEAST_ROWS = 12, 4
_OPACITY = 0.4
_EDGES_FROM_PX = 6
_LONGEST_NAME = 24


@dataclass(frozen=True)
class Placed:
    """Tiles on a slide.

    Attributes:
        corners: Upper left corners, level-0 pixels, `(n, 2)`.
        size: Width and height of each, level-0 pixels.
        names: Their classes, `(n,)`; empty texts without annotations.
    """

    corners: npt.NDArray[np.int64]
    size: tuple[int, int]
    names: Sequence[str]


def sheet_mpp(slide: Slide) -> float:
    """Return the resolution of the thumbnail that a sheet needs, µm per pixel."""
    return max(slide.width * slide.mpp_x, slide.height * slide.mpp_y) / _LONGEST_PX


def draw_tile_sheet(
    thumbnail: Thumbnail,
    placed: Placed,
    samples: Sequence[tuple[str, Pixels]],
    colours: Mapping[str, str],
    outlines: Sequence[npt.NDArray[np.float64]],
    said: tuple[str, str],
    target: AnyPath,
) -> None:
    """Draw the sheet of a slide, and write a PNG.

    Args:
        thumbnail: The slide.
        placed: Its tiles.
        samples: Class and pixels of some of them.
        colours: Of all classes.
        outlines: Of the annotation, points `(n, 2)` each, level-0 pixels.
        said: What stands above the picture, and below the map.
        target: The picture.
    """
    counts = {name: placed.names.count(name) for name in colours if name in set(placed.names)}
    shown = [*counts][:_MOST_CLASSES]
    figure = Figure(
        figsize=(_MAP_INCH + _TILE_INCH * (SHOWN + 2), max(_MAP_INCH, (_TILE_INCH + 0.05) * len(shown)) + 0.6),
        layout="constrained",
    )
    title, below = said
    figure.suptitle(title, fontsize=11)
    left, right = figure.subfigures(1, 2, width_ratios=[_MAP_INCH, _TILE_INCH * (SHOWN + 2)])  # type: ignore[misc]
    overview = left.subplots()
    _show(overview, _painted(thumbnail, placed, colours), "antialiased")
    cell = np.array([thumbnail.cell_width, thumbnail.cell_height])
    overview.add_collection(
        LineCollection([points / cell - 0.5 for points in outlines], colors="black", linewidths=0.8)
    )
    overview.set_xlabel(below, fontsize=9, wrap=True)
    if counts and "" not in counts:
        handles = [Patch(facecolor=colours[name], label=_named(name, count)) for name, count in counts.items()]
        left.legend(handles=handles, loc="outside lower left", ncols=2, fontsize=9, frameon=False)
    if shown:
        _add_samples(right, shown, samples, counts)
    write_picture(figure, target, names=(title, *counts))


def _add_samples(
    part: Any, shown: Sequence[str], samples: Sequence[tuple[str, Pixels]], counts: Mapping[str, int]
) -> None:
    """Add a row of samples for each class."""
    panels = part.subplots(max(len(shown), _LEAST_ROWS), SHOWN + 1, squeeze=False)
    for axes in panels.ravel():
        axes.set_axis_off()
    if [*shown] == [""]:
        for axes, (_, tile) in zip(panels[:, 1:].ravel(), samples, strict=False):
            axes.set_axis_on()
            _show(axes, tile)
        return
    for row, name in zip(panels, shown, strict=False):
        row[0].text(
            0, 0.5, "\n".join(_named(name, counts[name]).rsplit(": ", 1)) if name else "", va="center", fontsize=9
        )
        for axes, tile in zip(row[1:], [tile for own, tile in samples if own == name], strict=False):
            axes.set_axis_on()
            _show(axes, tile)


def _named(name: str, count: int) -> str:
    return f"{shorten(legible(name), _LONGEST_NAME)}: {count} tile{'s' * (count != 1)}"


def _painted(thumbnail: Thumbnail, placed: Placed, colours: Mapping[str, str]) -> Pixels:
    """Lay the colours of tiles over a thumbnail."""
    image = thumbnail.pixels.astype(np.float32)
    tint, opacity = image.copy(), np.zeros(image.shape[:2], np.float32)
    cell = np.array([thumbnail.cell_width, thumbnail.cell_height])
    starts = np.round(placed.corners / cell).astype(int)
    ends = np.maximum(starts + 1, np.round((placed.corners + placed.size) / cell).astype(int))
    rgb = {name: 255 * np.array(to_rgb(colours[name]), np.float32) for name in set(placed.names)}
    for (x, y), (right, bottom), name in zip(starts.tolist(), ends.tolist(), placed.names, strict=True):
        tint[y:bottom, x:right] = rgb[name]
        opacity[y:bottom, x:right] = _OPACITY
        if right - x >= _EDGES_FROM_PX:
            opacity[y : y + 1, x:right] = opacity[y:bottom, x : x + 1] = 1
    image += opacity[..., None] * (tint - image)
    return np.clip(np.round(image), 0, 255).astype(np.uint8)


def _show(axes: Axes, pixels: Pixels, interpolation: str = "nearest") -> None:
    axes.imshow(pixels, interpolation=interpolation)
    axes.set_xticks([])
    axes.set_yticks([])
