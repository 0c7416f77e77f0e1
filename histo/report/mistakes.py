"""A contact sheet of the mistakes that a model is surest of."""

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass

import numpy as np
from matplotlib.figure import Figure

from histo.remote.location import AnyPath
from histo.report.letters import legible, shorten
from histo.report.picture import write_picture
from histo.store import put_csv

_COLUMNS = 6
_COLUMNS_OF_CSV = ("case_id", "truth", "label", "confidence")
_DPI = 120
_TILE_INCH = 1.7
_LONGEST = 26
_NAME_LONGEST = 22
_TITLE_LONGEST = 20
"""Characters of a title that fit above a tile in one line."""


@dataclass(frozen=True)
class Mistake:
    """One case that was predicted wrongly.

    Attributes:
        case_id: Which one.
        truth: Its labelled class.
        label: The predicted class.
        confidence: Probability of that class.
    """

    case_id: str
    truth: str
    label: str
    confidence: float


def draw_mistakes(
    tiles: Sequence[np.ndarray],
    mistakes: Sequence[Mistake],
    wrong: int,
    total: int,
    target: AnyPath,
    noun: str = "images",
) -> None:
    """Draw tiles that were predicted wrongly, and write what they are to a CSV beside the picture.

    Args:
        tiles: uint8 `(H, W, 3)` each.
        mistakes: What each of them is, the most confident first.
        wrong: All mistakes.
        total: All cases.
        target: The picture, a PNG.
        noun: What several cases are called.

    Raises:
        ValueError: If there is not one tile for each mistake.
    """
    if len(tiles) != len(mistakes):
        raise ValueError(f"{len(tiles)} tiles for {len(mistakes)} mistakes")
    if not mistakes:
        _say_none(total, target, noun)
        return
    rows = math.ceil(len(mistakes) / _COLUMNS)
    titles = [_title(legible(each.truth), legible(each.label), each.confidence) for each in mistakes]
    lines = max(title.count("\n") for title in titles)
    height = _TILE_INCH + 0.55 + 0.14 * lines
    figure = Figure(figsize=(_TILE_INCH * _COLUMNS, height * rows + 0.5), layout="constrained")
    panels = figure.subplots(rows, _COLUMNS, squeeze=False).ravel()
    for axes in panels:
        axes.set_axis_off()
    for axes, tile, title, mistake in zip(panels, tiles, titles, mistakes, strict=False):
        axes.imshow(tile, interpolation="nearest")
        axes.set_title(title, fontsize=7 if "\n" in title else 9)
        place = axes.text(
            0.5, -0.03, shorten(legible(mistake.case_id)), transform=axes.transAxes, ha="center", va="top"
        )
        place.set(fontsize=7)
    shown = f"the {len(mistakes)} most confident of {wrong}" if len(mistakes) < wrong else f"all {wrong}"
    headline = f"{shown} mistakes among {total} {noun}: truth \N{RIGHTWARDS ARROW} prediction, and its probability"
    figure.suptitle(headline, fontsize=11)
    names = [name for each in mistakes for name in (each.truth, each.label, each.case_id)]
    write_picture(figure, target, dpi=_DPI, names=names)
    put_csv(target.with_suffix(".csv"), _COLUMNS_OF_CSV, map(astuple, mistakes))


def _say_none(total: int, target: AnyPath, noun: str) -> None:
    """Write a line instead of tiles."""
    figure = Figure(figsize=(_TILE_INCH * _COLUMNS / 2, 0.8))
    figure.text(0.5, 0.5, f"no mistakes among {total} {noun}", ha="center", va="center", fontsize=11)
    write_picture(figure, target, dpi=_DPI)
    put_csv(target.with_suffix(".csv"), _COLUMNS_OF_CSV, [])


def _title(truth: str, label: str, confidence: float) -> str:
    """Say what became of what and how surely: in one line if that fits above a tile, or else in three."""
    short = f"{truth} \N{RIGHTWARDS ARROW} {label}  {confidence:.2f}"
    if len(short) <= _TITLE_LONGEST:
        return short
    truth, label = shorten(truth, _NAME_LONGEST), shorten(label, _NAME_LONGEST)
    return f"{truth}\n\N{RIGHTWARDS ARROW} {label}\n{confidence:.2f}"
