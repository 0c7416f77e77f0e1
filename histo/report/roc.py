"""Draw ROC curves, a panel for each class, with 95 % intervals of their areas."""

import math
from collections.abc import Iterator, Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from histo.learn.score.curves import RocCurve
from histo.remote.location import AnyPath
from histo.report.picture import write_picture
from histo.store import put_csv

STRONG, FAINT = "#332288", "#999933"
_PANEL_INCH = 3.0
_MOST_COLUMNS = 4
_MOST_PANELS = 36
_MOST_LISTED = 5
_PLATE = {"facecolor": "white", "edgecolor": "none", "pad": 1.5, "alpha": 0.85}


def draw_roc(curves: Mapping[str, Sequence[RocCurve]], target: AnyPath) -> None:
    """Draw the curves of each class, and write their points to a CSV beside the picture.

    Args:
        curves: By class: first the curve over all predictions, then those of folds; none for a class that has no cases,
            or nothing but cases.
        target: The picture, a PNG. Of many classes it shows those with the least AUC; the CSV has all.
    """
    shown = dict(sorted(curves.items(), key=_area)[:_MOST_PANELS]) if len(curves) > _MOST_PANELS else curves
    columns = min(_MOST_COLUMNS, math.ceil(math.sqrt(len(shown))))
    rows = math.ceil(len(shown) / columns)
    figure = Figure(figsize=(_PANEL_INCH * columns + 0.4, (_PANEL_INCH + 0.3) * rows + 0.5), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    for axes, (label, found) in zip(panels, shown.items(), strict=False):
        _draw_class(axes, label, found)
    for axes in panels[len(shown) :]:
        axes.set_axis_off()
    for axes in panels[max(0, len(shown) - columns) : len(shown)]:
        axes.tick_params(labelbottom=True)
    if len(shown) < len(curves):
        figure.suptitle(f"the {len(shown)} of {len(curves)} classes with the least AUC", fontsize=11)
    figure.supxlabel("false positive rate", fontsize=10)
    figure.supylabel("true positive rate", fontsize=10)
    write_picture(figure, target)
    put_csv(
        target.with_suffix(".csv"),
        ("class", "curve", "threshold", "false_positive_rate", "true_positive_rate"),
        (
            (label, curve.name, *map(float, point))
            for label, found in curves.items()
            for curve in found
            for point in zip(curve.threshold, curve.false_positive_rate, curve.true_positive_rate, strict=True)
        ),
    )


def _area(item: tuple[str, Sequence[RocCurve]]) -> float:
    """Return the AUC over all predictions; of a class without a curve more than any."""
    return item[1][0].auc if item[1] else 2.0


def _draw_class(axes: Axes, label: str, curves: Sequence[RocCurve]) -> None:
    axes.plot([0, 1], [0, 1], color="black", ls=":", lw=1)
    axes.set_aspect("equal")
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.grid(alpha=0.25)
    if not curves:
        axes.set_title(label, fontsize=9)
        message = "not defined:\nno cases of this class,\nor of no other"
        axes.text(0.5, 0.5, message, ha="center", va="center", fontsize=9, bbox=_PLATE)
        return
    everything, *folds = curves
    for fold in folds:
        axes.plot(fold.false_positive_rate, fold.true_positive_rate, color=FAINT, lw=1, ls="--")
    axes.plot(everything.false_positive_rate, everything.true_positive_rate, color=STRONG, lw=2)
    axes.set_title(f"{label}\nAUC {_auc_text(everything)}", fontsize=9)
    axes.text(0.98, 0.04, "\n".join(_notes(everything, folds)), ha="right", va="bottom", fontsize=7, bbox=_PLATE)


def _notes(everything: RocCurve, folds: Sequence[RocCurve]) -> Iterator[str]:
    yield f"{everything.positives} of the class, {everything.negatives} others"
    if not folds:
        return
    yield "solid: all folds together"
    areas = [fold.auc for fold in folds]
    yield f"dashed: {len(folds)} folds, AUC {min(areas):.3f} to {max(areas):.3f}"
    if len(folds) <= _MOST_LISTED:
        yield from (f"{fold.name}: {_auc_text(fold)}" for fold in folds)


def _auc_text(curve: RocCurve) -> str:
    if curve.auc_interval is None:
        return f"{curve.auc:.3f}"
    low, high = curve.auc_interval
    return f"{curve.auc:.3f} (95 %: {low:.3f} to {high:.3f})"
