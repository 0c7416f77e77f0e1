"""Draw a labelled slide: its thumbnail, and beside it the class of every tile."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from histo.report.picture import write_picture
from histo.slides.slide import Slide, open_slide
from histo.slides.tissue import read_thumbnail

MUTED = ("#CC6677", "#332288", "#DDCC77", "#117733", "#88CCEE", "#882255", "#44AA99", "#999933", "#AA4499", "#BBBBBB")
"""Paul Tol's muted scheme, made for colour-blind readers (SRON/EPS/TN/09-002)."""
UNREADABLE = "black"
THUMBNAIL_PX = 1200


def class_colours(classes: Sequence[str]) -> dict[str, str]:
    """Give every class its colour; beyond ten classes colours come again.

    Examples:
        >>> class_colours(["STR", "TUM"])
        {'STR': '#CC6677', 'TUM': '#332288'}
    """
    return {name: MUTED[number % len(MUTED)] for number, name in enumerate(classes)}


def draw_overlay(slide_path: Path, tiles: pa.Table, classes: Sequence[str], mpp: float | None, target: Path) -> None:
    """Draw a slide and its labelled tiles, on axes in millimetres, and write a PNG.

    Args:
        slide_path: The slide's file.
        tiles: Its tile table, see `tables.TILES`.
        classes: All classes, in order.
        mpp: µm per level-0 pixel for a slide that names none.
        target: The picture.

    Raises:
        SlideError: If the slide cannot be opened.
    """
    slide, reader = open_slide(str(slide_path), mpp)
    try:
        extent_um = max(slide.width * slide.mpp_x, slide.height * slide.mpp_y)
        thumbnail = read_thumbnail(reader, slide, extent_um / THUMBNAIL_PX).pixels
    finally:
        reader.close()
    figure = Figure(figsize=(13, 1.2 + 5.4 * slide.height / slide.width), layout="constrained")
    plain, labelled = figure.subplots(1, 2, sharex=True, sharey=True)
    size_mm = (slide.width * slide.mpp_x / 1000, slide.height * slide.mpp_y / 1000)
    for axes in (plain, labelled):
        axes.imshow(thumbnail, extent=(0, size_mm[0], size_mm[1], 0), interpolation="nearest")
        axes.set_xlabel("mm")
    plain.set_ylabel("mm")
    plain.set_title(slide_path.name)
    labelled.set_title(f"{tiles.num_rows} tiles by most probable class")
    _add_tiles(labelled, slide, tiles, class_colours(classes))
    figure.legend(handles=_legend(tiles, classes), loc="outside right center", title="class (tiles)", frameon=False)
    write_picture(figure, target)


def _add_tiles(axes: Axes, slide: Slide, tiles: pa.Table, colours: dict[str, str]) -> None:
    places = [np.asarray(tiles[name]) for name in ("x", "y", "width", "height")]
    scale = (slide.mpp_x / 1000, slide.mpp_y / 1000)
    squares = [
        Rectangle((x * scale[0], y * scale[1]), width * scale[0], height * scale[1])
        for x, y, width, height in zip(*places, strict=True)
    ]
    faces = [colours.get(label, UNREADABLE) for label in tiles["label"].to_pylist()]
    axes.add_collection(PatchCollection(squares, facecolor=faces, edgecolor="white", linewidth=0.4, alpha=0.75))


def _legend(tiles: pa.Table, classes: Sequence[str]) -> list[Patch]:
    """A patch for every class that occurs, with its number of tiles."""
    labels = tiles["label"].to_pylist()
    named = [
        Patch(facecolor=colour, label=f"{name} ({labels.count(name)})")
        for name, colour in class_colours(classes).items()
        if name in labels
    ]
    unreadable = labels.count(None)
    return [*named, *([Patch(facecolor=UNREADABLE, label=f"not readable ({unreadable})")] if unreadable else [])]
