"""Draw a reliability diagram."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from histo.learn.score.curves import Bin
from histo.report.picture import write_picture
from histo.report.text import format_temperature
from histo.store import put_csv

BEFORE, AFTER = "#CC6677", "#332288"


def draw_reliability(
    before: Sequence[Bin],
    after: Sequence[Bin],
    ece: tuple[float, float],
    temperature: float | Sequence[float],
    target: Path,
) -> None:
    """Draw accuracy against confidence before and after temperature scaling, and write the bins to a CSV beside it.

    Args:
        before: Bins of the probabilities as the network gives them.
        after: Bins after the temperature, with the same bounds.
        ece: Expected calibration error of both.
        temperature: By which the logits were divided: one, or the least and the greatest.
        target: The picture, a PNG.
    """
    figure = Figure(figsize=(6.2, 7.6), layout="constrained")
    diagram, counts = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    calibrated = any(value != 1 for value in np.ravel(temperature))
    series = [("as labelled", after, ece[1], AFTER, "s-", 0.0)]
    if calibrated:
        series = [
            ("before the temperature", before, ece[0], BEFORE, "o--", -0.2),
            ("after the temperature", after, ece[1], AFTER, "s-", 0.2),
        ]
    diagram.plot([0, 1], [0, 1], color="black", ls=":", lw=1.2, label="probabilities that mean what they say")
    for name, bins, error, colour, style, shift in series:
        known = [b for b in bins if b.n]
        label = f"{name}: calibration error {error:.3f}"
        diagram.plot([b.confidence for b in known], [b.accuracy for b in known], style, color=colour, ms=6, label=label)
        width = bins[0].high - bins[0].low
        share = 0.4 if calibrated else 0.8
        counts.bar(
            [(b.low + b.high) / 2 + shift * width for b in bins],
            [b.n for b in bins],
            share * width,
            color=colour,
            hatch="///" if shift < 0 else None,
            edgecolor="white",
            label=name,
        )
    diagram.set_ylabel("accuracy: share of these cases that is right")
    diagram.set_xlim(0, 1)
    diagram.set_ylim(-0.02, 1.02)
    diagram.grid(alpha=0.25)
    figure.legend(*diagram.get_legend_handles_labels(), loc="outside lower center", frameon=False, fontsize=9)
    title = f"temperature {format_temperature(temperature)}" if calibrated else "not calibrated (temperature 1)"
    diagram.set_title(f"{sum(b.n for b in after)} cases, {title}", fontsize=11)
    counts.set_ylabel("cases")
    counts.set_xlabel("confidence: probability of the predicted class, in 15 bins")
    counts.grid(alpha=0.25, axis="y")
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
