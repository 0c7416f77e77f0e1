"""Draw a reliability diagram."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from histo.learn.score.curves import Bin
from histo.remote.location import AnyPath
from histo.report.picture import write_picture
from histo.report.text import format_temperature
from histo.store import put_csv

BEFORE, AFTER = "#CC6677", "#332288"


def draw_reliability(
    before: Sequence[Bin],
    after: Sequence[Bin],
    ece: tuple[float, float],
    temperature: float | Sequence[float],
    target: AnyPath,
) -> None:
    """Draw accuracy against confidence before and after temperature scaling side by side; a CSV beside it has the bins.

    Args:
        before: Bins of the probabilities as the network gives them.
        after: Bins after the temperature, with the same bounds.
        ece: Expected calibration error of both.
        temperature: By which the logits were divided: one, or the least and the greatest.
        target: The picture, a PNG.
    """
    calibrated = any(value != 1 for value in np.ravel(temperature))
    series = [("as labelled", after, ece[1], AFTER)]
    if calibrated:
        series = [
            ("before the temperature", before, ece[0], BEFORE),
            ("after the temperature", after, ece[1], AFTER),
        ]
    figure = Figure(figsize=(0.8 + 4.6 * len(series), 6.4), layout="constrained")
    panels = figure.subplots(2, len(series), sharex=True, sharey="row", squeeze=False, height_ratios=[3, 1])
    for (diagram, counts), (name, bins, error, colour) in zip(panels.T, series, strict=True):
        _draw_series(diagram, counts, bins, colour)
        diagram.set_title(f"{name}: calibration error {error:.3f}", fontsize=11)
    panels[0, 0].set_ylabel("accuracy: share of these cases that is right")
    panels[1, 0].set_ylabel("cases")
    title = f"temperature {format_temperature(temperature)}" if calibrated else "not calibrated (temperature 1)"
    figure.suptitle(f"{sum(b.n for b in after)} cases, {title}", fontsize=12)
    panels[0, 0].legend(loc="upper left", frameon=False, fontsize=9)
    write_picture(figure, target)
    put_csv(
        target.with_suffix(".csv"),
        ("which", "low", "high", "n", "confidence", "accuracy"),
        (
            (which, b.low, b.high, b.n, b.confidence, b.accuracy)
            for which, bins in (("before", before), ("after", after))
            for b in bins
        ),
    )


def _draw_series(diagram: Axes, counts: Axes, bins: Sequence[Bin], colour: str) -> None:
    """Draw the bins that have cases over their confidence, and below them how many each has."""
    known = [(b.confidence, b.accuracy) for b in bins if b.confidence is not None and b.accuracy is not None]
    diagram.plot([0, 1], [0, 1], color="black", ls=":", lw=1.2, label="probabilities that mean what they say")
    diagram.plot(*zip(*known, strict=True), "s-", color=colour, ms=6)
    diagram.set_xlim(0, 1)
    diagram.set_ylim(-0.02, 1.02)
    diagram.grid(alpha=0.25)
    width = bins[0].high - bins[0].low
    counts.bar([(b.low + b.high) / 2 for b in bins], [b.n for b in bins], 0.8 * width, color=colour)
    counts.set_xlabel("confidence: probability of the predicted class,\nin 15 bins")
    counts.grid(alpha=0.25, axis="y")
