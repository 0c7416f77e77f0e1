"""A picture of a confusion matrix."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from histo.remote.location import AnyPath
from histo.report.letters import legible, shorten
from histo.report.picture import write_picture
from histo.store import put_csv

_DARK = 0.7
"""Share above which white text has more contrast than black text has."""
_LEAST_INCH = 4.5
"""Width that the headline needs."""
_LONGEST = 5
"""Letters of a name that fit below a cell."""
_MOST_NAMED = 36
"""Classes above which cells are too small for names and counts."""
_UNNAMED_INCH = 9.0
_MOST_LETTERS = 40
"""Of a name in the picture; the CSV has the whole of it."""


def draw_confusion(matrix: Sequence[Sequence[int]], classes: Sequence[str], target: AnyPath) -> None:
    """Draw a confusion matrix, and write its counts to a CSV beside the picture.

    Args:
        matrix: Counts, `(K, K)`: rows truth, columns prediction.
        classes: Names of the K classes.
        target: The picture, a PNG.
    """
    counts = np.array(matrix)
    named = len(classes) <= _MOST_NAMED
    names = [shorten(legible(name), _MOST_LETTERS) for name in classes]
    edge = 0.72 * len(classes) if named else _UNNAMED_INCH
    name_inch = 0.09 * max(map(len, names)) if named else 0.0
    figure = Figure(figsize=(max(edge + 2.6 + name_inch, _LEAST_INCH), edge + 1.6 + name_inch), layout="compressed")
    axes = figure.subplots()
    shares = counts / np.maximum(counts.sum(axis=1), 1)[:, None]
    image = axes.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    right = f"{np.trace(counts)} of {counts.sum()} right"
    if named:
        _name_cells(axes, counts, shares, names)
        axes.set_title(f"{right}\ncells: cases, and share of the true class", fontsize=10)
    else:
        axes.set_xlabel(f"predicted class, {len(classes)} in the order of the table")
        axes.set_ylabel("true class, likewise")
        axes.set_title(right, fontsize=10)
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
    write_picture(figure, target, names=classes)
    rows = [(name, *row) for name, row in zip(classes, counts.tolist(), strict=True)]
    put_csv(target.with_suffix(".csv"), ("truth", *classes), rows)


def _name_cells(
    axes: Axes, counts: npt.NDArray[np.int64], shares: npt.NDArray[np.float64], classes: Sequence[str]
) -> None:
    """Write counts and shares into the cells, and the names of the classes beside them."""
    for (row, column), count in np.ndenumerate(counts):
        if count:
            colour = "white" if shares[row, column] > _DARK else "black"
            text = f"{count}\n{shares[row, column]:.0%}"
            axes.text(column, row, text, ha="center", va="center", fontsize=8.5, color=colour)
    totals, predicted = counts.sum(axis=1), counts.sum(axis=0)
    places = range(len(classes))
    below = [_below(name, counts[k, k], predicted[k]) for k, name in enumerate(classes)]
    axes.set_xticks(places, below, fontsize=9)
    beside = [_beside(name, totals[k]) for k, name in enumerate(classes)]
    axes.set_yticks(places, beside, fontsize=9)
    axes.tick_params(axis="x", labelrotation=90 if max(map(len, classes)) > _LONGEST else 0)
    axes.set_xlabel("predicted class, and its precision")
    axes.set_ylabel("true class (cases)")
    axes.set_xticks(np.arange(len(classes) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(classes) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="lightgrey", lw=1)
    axes.tick_params(which="both", length=0)


def _below(name: str, correct: int, predicted: int) -> str:
    return f"{name}\n{correct / predicted:.0%}" if predicted else f"{name}\nnever"


def _beside(name: str, total: int) -> str:
    return f"{name} ({total})" if total else f"{name} (no cases)"
