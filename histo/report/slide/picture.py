"""Draw a slide beside its tiles, by class or by the probability of a class."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import floor, log10
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import withStroke
from PIL import Image

from histo.errors import Cause, SlideError
from histo.report.picture import write_picture
from histo.report.slide.labels import NO_TILE, UNREADABLE, Indices, SlideLabels
from histo.slides.slide import Slide, open_slide
from histo.slides.tissue import read_thumbnail

LONGEST_PX = 1200
"""Of a panel."""
_DPI = 100
_MARGIN_PX, _TITLE_PX, _LEGEND_PX, _LEAST_PX = 24, 72, 360, 360
_EDGES_FROM_PX = 8
"""Tiles have edges from this many pixels on."""
_FAINTEST, _STRONGEST = 0.15, 0.75
"""Opacity of a tile whose classes are all alike, and of a sure one."""
_PALE = 0.45
"""How dark the slide is under a map, of its darkness."""
_BAR_PX, _BAR_FROM_PX, _COLOUR_BAR_PX = 6, 100, 90
_MOST_NAMED = 16
"""Classes in a legend; the others of a larger model are counted."""
SEQUENTIAL = "viridis"
"""Colours of probabilities, uniform to the eye, and for colour-blind readers (Smith and van der Walt, 2015)."""
PLACE, KEY = "histo.place", "histo.key"
"""Keys of a picture's text: where the map lies in it, and what it was made of."""

Pixels = npt.NDArray[np.uint8]
Colours = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Place:
    """Where a map lies in a picture, and how large it is.

    Attributes:
        left: Pixels of the picture.
        top: Likewise.
        width: Likewise.
        height: Likewise.
        um_per_px: µm per pixel.
    """

    left: int
    top: int
    width: int
    height: int
    um_per_px: float


@dataclass(frozen=True)
class Map:
    """What is drawn over a slide.

    Attributes:
        colours: RGB of every place of the grid, 0 to 1, `(rows, columns, 3)`.
        opacity: Of every place, 0 to 1, `(rows, columns)`.
        legend: Patches and their names.
        title: Of the legend, or of the bar.
        has_bar: Whether a bar says what the colours mean: of probabilities.
    """

    colours: Colours
    opacity: npt.NDArray[np.float64]
    legend: tuple[Patch, ...]
    title: str
    has_bar: bool = False


def read_panel(path: Path, labels: SlideLabels) -> Pixels:
    """Read the thumbnail of a slide as a panel shows it, `(H, W, 3)`: at most `LONGEST_PX` pixels along an edge.

    Where the file has lost its pixels it is hatched.

    Raises:
        SlideError: If the slide cannot be opened, or is not the one that was labelled.
        ReadError: If nothing of it can be decoded.
    """
    slide, reader = open_slide(str(path), mpp_override=None if labels.mpp_source == "metadata" else labels.mpp[0])
    try:
        _check_same(slide, labels)
        um_per_px = _scale(slide)
        thumbnail = read_thumbnail(reader, slide, um_per_px)
    finally:
        reader.close()
    size = (max(1, round(slide.width * slide.mpp_x / um_per_px)), max(1, round(slide.height * slide.mpp_y / um_per_px)))
    box = (0.0, 0.0, slide.width / thumbnail.cell_width, slide.height / thumbnail.cell_height)
    box = (*box[:2], min(box[2], thumbnail.pixels.shape[1]), min(box[3], thumbnail.pixels.shape[0]))
    panel = np.array(Image.fromarray(thumbnail.pixels).resize(size, Image.Resampling.BOX, box))
    unknown = np.asarray(Image.fromarray(thumbnail.unknown).resize(size, Image.Resampling.NEAREST, box))
    panel[unknown & _hatching(*unknown.shape)] = 170
    return panel


def _check_same(slide: Slide, labels: SlideLabels) -> None:
    size = round(labels.x.slide_um / labels.mpp[0]), round(labels.y.slide_um / labels.mpp[1])
    if (slide.width, slide.height) != size:
        raise SlideError(
            Cause.CHANGED,
            f"{slide.path}: has {slide.width} x {slide.height} px, and {labels.slide_id} had {size[0]} x {size[1]} px "
            "when it was labelled; label it again, or give its own file",
        )


def _scale(slide: Slide) -> float:
    """Return µm per pixel of a panel: nothing is magnified."""
    longest_um = max(slide.width * slide.mpp_x, slide.height * slide.mpp_y)
    return max(longest_um / LONGEST_PX, slide.mpp_x, slide.mpp_y)


def class_map(labels: SlideLabels, colours: Mapping[str, str]) -> Map:
    """Make the map of classes: the surer a tile, the less is seen through it."""
    scheme = np.array([to_rgb(colours[name]) for name in labels.classes])
    chance = 1 / max(2, len(labels.classes))
    surety = np.clip((labels.confidence - chance) / (1 - chance), 0, 1)
    counts = [(name, labels.count(number)) for number, name in enumerate(labels.classes)]
    total = sum(count for _, count in counts)
    found = sorted((pair for pair in counts if pair[1]), key=lambda pair: -pair[1])
    entries = [
        Patch(facecolor=colours[name], label=f"{name}  {count / total:.1%}  {count * labels.tile_mm2:.4g} mm²")
        for name, count in found[:_MOST_NAMED]
    ]
    if len(found) > _MOST_NAMED:
        entries.append(Patch(facecolor="none", label=f"{len(found) - _MOST_NAMED} other classes"))
    if missing := [name for name, count in counts if not count][:_MOST_NAMED]:
        entries.append(Patch(facecolor="none", label="none: " + _wrapped(missing)))
    return Map(
        scheme[np.maximum(labels.pred, 0)],
        _FAINTEST + (_STRONGEST - _FAINTEST) * surety,
        (*entries, *_unreadable(labels)),
        "most probable class\n(fainter: less sure)",
    )


def probability_map(labels: SlideLabels, name: str) -> Map:
    """Make the map of a class's probability."""
    values = labels.probabilities[name]
    colours = colormaps[SEQUENTIAL](np.nan_to_num(values))[..., :3]
    return Map(colours, np.full(values.shape, _STRONGEST), _unreadable(labels), f"probability of {name}", True)


def _unreadable(labels: SlideLabels) -> tuple[Patch, ...]:
    count = labels.count(UNREADABLE)
    return (Patch(facecolor="white", edgecolor="black", hatch="////", label=f"not readable ({count} tiles)"),) * bool(
        count
    )


def _wrapped(names: list[str]) -> str:
    lines, line = [], ""
    for name in names:
        if line and len(line) + len(name) > 24:
            lines.append(line)
            line = ""
        line += f", {name}" if line else name
    return ",\n".join([*lines, line])


def draw(labels: SlideLabels, panel: Pixels, shown: Map, date: str, target: Path, key: str = "") -> Place:
    """Draw a slide's thumbnail beside a map of its tiles, and write a PNG.

    Args:
        labels: What was found.
        panel: The slide, see `read_panel`.
        shown: The map, see `class_map` and `probability_map`.
        date: When the slide was labelled.
        target: The picture. Its text says where the map lies (`PLACE`, JSON of a `Place`).
        key: What the picture was made of; it stands in its text as `KEY`.

    Returns:
        Where the map lies in the picture.
    """
    height, width = panel.shape[:2]
    room = max(width, _LEAST_PX)
    um_per_px = labels.x.slide_um / width
    place = Place(2 * _MARGIN_PX + room, _TITLE_PX, width, height, um_per_px)
    sheet = _Sheet(3 * _MARGIN_PX + 2 * room + _LEGEND_PX, _TITLE_PX + max(height, _LEAST_PX) + _MARGIN_PX)
    sheet.write(_MARGIN_PX, 20, labels.slide_id, fontsize=13, fontweight="bold")
    sheet.write(_MARGIN_PX, 46, _describe(labels, date), fontsize=9, color="#444444")
    for left, image in ((_MARGIN_PX, panel), (place.left, _composed(labels, panel, shown, um_per_px))):
        sheet.put(image, left, place.top)
        if min(width, height) >= _BAR_FROM_PX:
            sheet.add_scale_bar(place, left)
    right = place.left + room + _MARGIN_PX
    if shown.has_bar:
        sheet.add_colour_bar(right, place, shown.title)
    sheet.add_legend(right + _COLOUR_BAR_PX * shown.has_bar, place.top, shown)
    write_picture(sheet.figure, target, _DPI, {PLACE: json.dumps(asdict(place)), KEY: key})
    return place


class _Sheet:
    """A figure of so many pixels, on which places are pixels from the top left."""

    def __init__(self, width: int, height: int) -> None:
        self._width, self._height = width, height
        self.figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)

    def put(self, image: Pixels, left: int, top: int) -> None:
        """Put an image, pixel for pixel."""
        self.figure.figimage(image, left, self._height - top - image.shape[0], origin="upper")

    def write(self, x: float, y: float, text: str, **style: Any) -> None:
        """Write a text whose top is at y."""
        self.figure.text(x / self._width, 1 - y / self._height, text, **{"va": "top"} | style)

    def add_scale_bar(self, place: Place, left: int) -> None:
        """Add a bar to the lower right of an image, of a round length."""
        um = _round_below(place.width * place.um_per_px / 4)
        length, right, bottom = um / place.um_per_px, left + place.width - 16, place.top + place.height - 16
        for rim, colour in ((2, "white"), (0, "black")):
            bar = Rectangle(
                ((right - length - rim) / self._width, 1 - (bottom + rim) / self._height),
                (length + 2 * rim) / self._width,
                (_BAR_PX + 2 * rim) / self._height,
                transform=self.figure.transFigure,
                facecolor=colour,
                linewidth=0,
                zorder=5,
            )
            self.figure.add_artist(bar)
        halo = [withStroke(linewidth=3, foreground="white")]
        y = bottom - _BAR_PX - 4
        said = f"{um / 1000:g} mm" if um >= 1000 else f"{um:g} µm"
        self.write(right - length / 2, y, said, ha="center", va="bottom", fontsize=10, path_effects=halo, zorder=6)

    def add_colour_bar(self, left: int, place: Place, title: str) -> None:
        """Add the scale of probabilities."""
        height = max(place.height, _LEAST_PX)
        axes = self.figure.add_axes(
            (left / self._width, 1 - (place.top + height) / self._height, 16 / self._width, height / self._height)
        )
        axes.imshow(np.linspace(1, 0, 256)[:, None], cmap=SEQUENTIAL, aspect="auto", extent=(0, 1, 0, 1))
        axes.set_xticks([])
        axes.yaxis.tick_right()
        axes.yaxis.set_label_position("right")
        axes.set_ylabel(title)

    def add_legend(self, left: int, top: int, shown: Map) -> None:
        """Add what the colours mean."""
        self.figure.legend(
            handles=list(shown.legend),
            title=None if shown.has_bar else shown.title,
            loc="upper left",
            bbox_to_anchor=(left / self._width, 1 - top / self._height),
            borderaxespad=0,
            frameon=False,
            alignment="left",
            fontsize=12,
            title_fontsize=12,
        )


def _composed(labels: SlideLabels, panel: Pixels, shown: Map, um_per_px: float) -> Pixels:
    """Lay a map over a slide in pale grey."""
    height, width = panel.shape[:2]
    rows, columns = labels.y.pixels(height, labels.y.slide_um / height), labels.x.pixels(width, um_per_px)
    cells = np.ix_(rows, columns)
    inside = (rows[:, None] != NO_TILE) & (columns != NO_TILE)
    pred = np.where(inside, labels.pred[cells], NO_TILE)
    grey = 255 - _PALE * (255 - panel.astype(np.float64).mean(axis=2, keepdims=True))
    opacity = np.where(pred >= 0, shown.opacity[cells], 0)[..., None]
    image = opacity * 255 * shown.colours[cells] + (1 - opacity) * grey
    if labels.x.stride_um >= _EDGES_FROM_PX * um_per_px:
        edges = _edges(rows, columns) & (pred >= 0)
        image[edges] = (image[edges] + 255) / 2
    hatched = np.where(_hatching(height, width), 0, 255)[..., None]
    image = np.where((pred == UNREADABLE)[..., None], hatched, image)
    return np.round(image).astype(np.uint8)


def _edges(rows: Indices, columns: Indices) -> npt.NDArray[np.bool_]:
    """Return the first pixel of every tile along either axis."""
    starts: list[npt.NDArray[np.bool_]] = [np.diff(tiles, prepend=NO_TILE) != 0 for tiles in (rows, columns)]
    return starts[0][:, None] | starts[1]


def _hatching(height: int, width: int) -> npt.NDArray[np.bool_]:
    """Return diagonal lines."""
    diagonal: npt.NDArray[np.int64] = np.arange(height)[:, None] + np.arange(width)
    return diagonal % 6 < 2


def _round_below(um: float) -> float:
    """Return the longest round length that is not longer: 1, 2 or 5 times a power of ten.

    Examples:
        >>> _round_below(4900), _round_below(130)
        (2000.0, 100.0)
    """
    power = 10.0 ** floor(log10(um))
    return max(factor * power for factor in (1, 2, 5) if factor * power <= um * (1 + 1e-9))


def _describe(labels: SlideLabels, date: str) -> str:
    given = "" if labels.mpp_source == "metadata" else " (given)"
    return (
        f"{labels.mpp[0]:.4g} µm/px{given}; {(labels.pred != NO_TILE).sum()} tiles of {labels.size_px} px at "
        f"{labels.effective_mpp[0]:.4g} µm/px; model {labels.model_sha256[:12]}; labelled {date}"
    )
