"""Draw a slide beside its tiles, by class or by the probability of a class."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import floor, log10
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import withStroke

from histo.remote.location import AnyPath
from histo.report.letters import legible, shorten
from histo.report.picture import write_picture
from histo.report.slide.labels import NO_TILE, UNREADABLE, Indices, SlideLabels
from histo.report.slide.panel import Panel, hatching
from histo.resample import Pixels

_DPI = 100
_MARGIN_PX, _TITLE_PX, _LEGEND_PX, _LEAST_PX = 24, 72, 360, 360
_EDGES_FROM_PX = 8
"""Tiles have edges from this many pixels on."""
_FAINTEST, _STRONGEST = 0.15, 0.75
"""Opacity of a tile whose classes are all alike, and of a sure one."""
_PALE = 0.45
"""How dark the slide is under a map, of its darkness."""
_BAR_PX, _BAR_FROM_PX, _COLOUR_BAR_PX = 6, 100, 90
_LINE_PX, _TITLE_LETTER_PX = 26, 13
"""Height of a line of the legend, and width of a letter of the title."""
_SHORT_NAME, _LONGEST_NAME = 12, 26
"""Letters of a class's name that stand in a line of the legend beside its share, and in one of their own."""
_NO_TILE = "#D0D0D0"
"""Of the slide below a map, in the legend."""
_MOST_NAMED = 16
"""Classes in a legend; the others of a larger model are counted."""
SEQUENTIAL = "viridis"
"""Colours of probabilities, uniform to the eye, and for colour-blind readers (Smith and van der Walt, 2015)."""
PLACE, KEY = "histo.place", "histo.key"
"""Keys of a picture's text: where the map lies in it, and what it was made of."""

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
        left_um: Its left edge on the slide, µm.
        top_um: Its top edge, likewise.
    """

    left: int
    top: int
    width: int
    height: int
    um_per_px: float
    left_um: float
    top_um: float


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


def class_map(labels: SlideLabels, colours: Mapping[str, str]) -> Map:
    """Make the map of classes: the surer a tile, the less is seen through it."""
    scheme = np.array([to_rgb(colours[name]) for name in labels.classes])
    chance = 1 / max(2, len(labels.classes))
    surety = np.clip((labels.confidence - chance) / (1 - chance), 0, 1)
    counts = [(name, labels.count(number)) for number, name in enumerate(labels.classes)]
    total = sum(count for _, count in counts)
    found = sorted((pair for pair in counts if pair[1]), key=lambda pair: -pair[1])
    entries = [
        Patch(facecolor=colours[name], label=_entry(name, f"{count / total:.1%}  {count * labels.tile_mm2:.3g} mm²"))
        for name, count in found[:_MOST_NAMED]
    ]
    if len(found) > _MOST_NAMED:
        entries.append(Patch(facecolor="none", label=f"{len(found) - _MOST_NAMED} other classes"))
    if missing := [name for name, count in counts if not count][:_MOST_NAMED]:
        entries.append(Patch(facecolor="none", label="none: " + _wrapped(missing)))
    return Map(
        scheme[np.maximum(labels.pred, 0)],
        _FAINTEST + (_STRONGEST - _FAINTEST) * surety,
        (*entries, *_unreadable(labels), Patch(facecolor=_NO_TILE, label="no tile: glass, ink, little tissue")),
        "most probable class (fainter: less sure),\nshare and area of its tiles",
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


def _entry(name: str, said: str) -> str:
    """Return a line of the legend, or two of a long name."""
    name = shorten(legible(name), _LONGEST_NAME)
    return f"{name}{'  ' if len(name) <= _SHORT_NAME else chr(10)}{said}"


def _wrapped(names: list[str]) -> str:
    lines, line = [], ""
    for name in (shorten(legible(name), _LONGEST_NAME) for name in names):
        if line and len(line) + len(name) > _LONGEST_NAME:
            lines.append(line)
            line = ""
        line += f", {name}" if line else name
    return ",\n".join([*lines, line])


def draw(labels: SlideLabels, panel: Panel, shown: Map, date: str, target: AnyPath, key: str = "") -> Place:
    """Draw a slide's thumbnail beside a map of its tiles, and write a PNG.

    Args:
        labels: What was found.
        panel: The slide, see `panel.read_panel`.
        shown: The map, see `class_map` and `probability_map`.
        date: When the slide was labelled.
        target: The picture. Its text says where the map lies (`PLACE`, JSON of a `Place`).
        key: What the picture was made of; it stands in its text as `KEY`.

    Returns:
        Where the map lies in the picture.
    """
    height, width = panel.pixels.shape[:2]
    room = max(width, _LEAST_PX)
    left = 2 * _MARGIN_PX + room
    place = Place(left, _TITLE_PX, width, height, panel.width_um / width, panel.left_um, panel.top_um)
    lines = 3 + sum(1 + str(patch.get_label()).count("\n") for patch in shown.legend)
    sheet_width = 3 * _MARGIN_PX + 2 * room + _LEGEND_PX
    sheet = _Sheet(sheet_width, _TITLE_PX + max(height, _LEAST_PX, lines * _LINE_PX) + _MARGIN_PX)
    name = shorten(legible(labels.slide_id), sheet_width // _TITLE_LETTER_PX)
    sheet.write(_MARGIN_PX, 20, name, fontsize=13, fontweight="bold")
    sheet.write(_MARGIN_PX, 46, _describe(labels, date), fontsize=9, color="#444444")
    for left, image in ((_MARGIN_PX, panel.pixels), (place.left, _composed(labels, panel, shown))):
        sheet.put(image, left, place.top)
        if min(width, height) >= _BAR_FROM_PX:
            sheet.add_scale_bar(place, left)
    right = place.left + room + _MARGIN_PX
    if shown.has_bar:
        sheet.add_colour_bar(right, place, shown.title)
    sheet.add_legend(right + _COLOUR_BAR_PX * shown.has_bar, place.top, shown)
    names = (labels.slide_id, *labels.classes)
    write_picture(sheet.figure, target, _DPI, {PLACE: json.dumps(asdict(place)), KEY: key}, names)
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


def _composed(labels: SlideLabels, panel: Panel, shown: Map) -> Pixels:
    """Lay a map over a slide in pale grey."""
    height, width = panel.pixels.shape[:2]
    um_per_px = panel.width_um / width
    rows = labels.y.at(panel.top_um + (np.arange(height) + 0.5) * panel.height_um / height)
    columns = labels.x.at(panel.left_um + (np.arange(width) + 0.5) * um_per_px)
    cells = np.ix_(rows, columns)
    inside = (rows[:, None] != NO_TILE) & (columns != NO_TILE)
    pred = np.where(inside, labels.pred[cells], NO_TILE)
    grey = 255 - _PALE * (255 - panel.pixels.astype(np.float64).mean(axis=2, keepdims=True))
    opacity = np.where(pred >= 0, shown.opacity[cells], 0)[..., None]
    image = opacity * 255 * shown.colours[cells] + (1 - opacity) * grey
    if labels.x.stride_um >= _EDGES_FROM_PX * um_per_px:
        edges = _edges(rows, columns) & (pred >= 0)
        image[edges] = (image[edges] + 255) / 2
    hatched = np.where(hatching(height, width), 0, 255)[..., None]
    image = np.where((pred == UNREADABLE)[..., None], hatched, image)
    return np.round(image).astype(np.uint8)


def _edges(rows: Indices, columns: Indices) -> npt.NDArray[np.bool_]:
    """Return the first pixel of every tile along either axis."""
    starts: list[npt.NDArray[np.bool_]] = [np.diff(tiles, prepend=NO_TILE) != 0 for tiles in (rows, columns)]
    return starts[0][:, None] | starts[1]


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
    count = int((labels.pred != NO_TILE).sum())
    return (
        f"{labels.mpp[0]:.4g} µm/px{given}; {count} tile{'s' * (count != 1)} of {labels.size_px} px at "
        f"{labels.effective_mpp[0]:.4g} µm/px; model {labels.model_sha256[:12]}; labelled {date}"
    )
