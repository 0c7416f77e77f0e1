"""Draw a training run: loss, accuracy and learning rate over its steps."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from histo.remote.location import AnyPath
from histo.report.picture import write_picture

TRAIN, VAL, KEPT, LEAST = "#332288", "#CC6677", "#117733", "#882255"
_MOST_POINTS = 2000
_FEW_POINTS = 20
"""Up to so many steps each is a dot, too: the line through a single one is invisible."""
_SMOOTH = 0.02
"""Width of the running mean, as a share of all steps."""


def draw_curves(
    epochs: Sequence[Mapping[str, Any]], steps: Sequence[Mapping[str, Any]], chosen: int | None, target: AnyPath
) -> None:
    """Draw the lines of `metrics.jsonl` and `steps.jsonl` below each other, over the number of the step.

    Epochs whose steps are lost are left out; without any steps there is no picture.

    Args:
        epochs: At least one: `epoch`, `phase`, `train_loss`, `val_loss`, `train_accuracy`, `val_accuracy`; what is of
            validation is None where there are no validation cases.
        steps: Of these epochs: `epoch`, `step`, `loss`, `accuracy`, `learning_rate`; `val_loss` and `val_accuracy`
            where the validation cases were scored within an epoch.
        chosen: Number of the epoch that became the bundle; None if none did.
        target: The picture, a PNG.
    """
    ends = _ends(steps)
    epochs = [line for line in epochs if line["epoch"] in ends]
    if not epochs:
        return
    figure = Figure(figsize=(9, 8.5), layout="constrained")
    loss, accuracy, rate = figure.subplots(3, 1, sharex=True, height_ratios=[3, 3, 1.6])
    validated = all(line["val_loss"] is not None for line in epochs)
    for axes, name in ((loss, "loss"), (accuracy, "accuracy")):
        _draw_steps(axes, steps, name)
        x = [ends[line["epoch"]] for line in epochs]
        axes.plot(x, [line[f"train_{name}"] for line in epochs], "o-", color=TRAIN, ms=5, label="training, epoch")
        if validated:
            within = [(step["step"], step[f"val_{name}"]) for step in steps if step.get(f"val_{name}") is not None]
            points = sorted([*within, *zip(x, [line[f"val_{name}"] for line in epochs], strict=True)])
            label = "validation, within and after epochs" if within else "validation, epoch"
            axes.plot(*zip(*points, strict=True), "s--", color=VAL, ms=5, label=label)
            _mark_least(axes, epochs, ends)
        if chosen in ends:
            axes.axvline(ends[chosen], color=KEPT, ls=":", lw=1.6, label=f"epoch {chosen}: its bundle is kept")
    loss.set_ylabel("loss (nats)")
    accuracy.set_ylabel("accuracy")
    accuracy.set_ylim(-0.02, 1.02)
    figure.legend(*loss.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    parts = ("train_loss", "val_loss") if validated else ("train_loss",)
    if any(_spans_decades([line[part] for line in epochs]) for part in parts):
        loss.set_yscale("log")
    x, rates = [step["step"] for step in steps], [step["learning_rate"] for step in steps]
    rate.plot(x, rates, "." if len(steps) == 1 else "-", color="black", lw=1.2)
    rate.set_ylim(bottom=0)
    rate.xaxis.set_major_locator(MaxNLocator(integer=True))
    rate.set_ylabel("learning rate\nof the head")
    rate.set_xlabel("step; the end of each epoch is marked below the curves")
    for axes in (loss, accuracy, rate):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        for end in ends.values():
            axes.axvline(end, ymax=0.02, color="black", lw=0.8)
    _name_phases(figure, (loss, accuracy, rate), epochs, ends)
    write_picture(figure, target)


def _ends(steps: Sequence[Mapping[str, Any]]) -> dict[int, int]:
    """Return the last step of each epoch."""
    return {step["epoch"]: step["step"] for step in steps}


def _draw_steps(axes: Axes, steps: Sequence[Mapping[str, Any]], name: str) -> None:
    """Draw the values of the steps faintly, and their running mean where there are many."""
    x, values = np.array([step["step"] for step in steps]), np.array([step[name] for step in steps], float)
    every = math.ceil(len(x) / _MOST_POINTS)
    style = ".-" if len(x) <= _FEW_POINTS else "-"
    axes.plot(x[::every], values[::every], style, color=TRAIN, lw=0.8, alpha=0.3, label="training, step")
    width = round(_SMOOTH * len(x))
    if width >= 5:
        means = np.convolve(values, np.ones(width) / width, "valid")
        start = (len(x) - len(means)) // 2
        axes.plot(x[start : start + len(means)], means, color=TRAIN, lw=1, label=f"mean of {width} steps", alpha=0.7)


def _mark_least(axes: Axes, epochs: Sequence[Mapping[str, Any]], ends: Mapping[int, int]) -> None:
    finite = [line for line in epochs if math.isfinite(line["val_loss"])]
    if finite:
        least = min(finite, key=lambda line: line["val_loss"])
        axes.plot(
            [ends[least["epoch"]]],
            [0.02],
            "^",
            color=LEAST,
            ms=7,
            transform=axes.get_xaxis_transform(),
            label=f"epoch {least['epoch']}: least validation loss",
            clip_on=False,
        )


def _spans_decades(losses: Sequence[float]) -> bool:
    known = [loss for loss in losses if math.isfinite(loss) and loss > 0]
    return bool(known) and max(known) > 100 * min(known)


def _name_phases(
    figure: Figure, panels: Sequence[Axes], epochs: Sequence[Mapping[str, Any]], ends: Mapping[int, int]
) -> None:
    """Write above the curves what learns when, and shade every other phase."""
    meaning = {"head": "head: frozen backbone", "tune": "tune: the backbone learns, too"}
    phases = list(dict.fromkeys(line["phase"] for line in epochs))
    limits = [0, *(max(ends[line["epoch"]] for line in epochs if line["phase"] == phase) for phase in phases)]
    for number, (start, end) in enumerate(pairwise(limits)):
        for axes in panels:
            axes.axvspan(start, end, color="black", alpha=0.05 * (number % 2), lw=0)
    named = ", then ".join(meaning.get(phase, phase) for phase in phases)
    shaded = " (shaded)" if len(phases) > 1 else ""
    figure.suptitle(f"epochs: {len(epochs)}, steps: {limits[-1]}.  {named}{shaded}", fontsize=11)
    for axes in panels:
        axes.set_xlim(0, max(limits[-1] * 1.01, 1.5))
