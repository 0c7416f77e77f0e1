"""Predictions of labelled cases, and everything that is measured of them.

Axes: N cases, K classes.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from histo.learn.data.source import Case
from histo.learn.fit.calibration import uncalibrated
from histo.learn.score.metrics import AVERAGED, COVERAGE, bootstrap_intervals, calibration_error, score

_SUMMARY = ("n", "accuracy", *AVERAGED, "macro_average_precision", "ece")


@dataclass(frozen=True)
class Predictions:
    """What a bundle makes of labelled cases.

    Attributes:
        cases: The cases; their labels are not used.
        classes: Names of the K classes, in the order of the columns.
        truth_N: Class indices.
        probabilities_NK: After the temperature.
        temperatures_N: By which the logits of each case were divided: that of the bundle that saw it.
        fold_N: Fold of each case; None without cross-validation.
    """

    cases: Sequence[Case]
    classes: tuple[str, ...]
    truth_N: npt.NDArray[np.int64]
    probabilities_NK: npt.NDArray[np.float32]
    temperatures_N: npt.NDArray[np.float64]
    fold_N: npt.NDArray[np.int64] | None = None

    def uncalibrated(self) -> npt.NDArray[np.float64]:
        """Return the probabilities before the temperature."""
        return uncalibrated(self.probabilities_NK, self.temperatures_N[:, None])


def measure(predictions: Predictions, resamples: int, seed: int) -> dict[str, Any]:
    """Score predictions.

    Args:
        predictions: At least one case.
        resamples: Draws of the bootstrap; 0 gives no intervals.
        seed: Fixes the draws.

    Returns:
        What `score` returns, and `temperature` (one, or the least and the greatest), `ece_uncalibrated`, `intervals`
        (95 %, by group where a case has one, else by case; None if there are none), and `per_source` where the cases
        are from several.
    """
    truth, probabilities, classes = predictions.truth_N, predictions.probabilities_NK, predictions.classes
    extremes = sorted({float(predictions.temperatures_N.min()), float(predictions.temperatures_N.max())})
    grouped = any(case.group is not None for case in predictions.cases)
    units = [(case.group or case.case_id, case.group is None) for case in predictions.cases]
    intervals = bootstrap_intervals(truth, probabilities, units, classes, resamples, seed)
    described = {
        "coverage": COVERAGE,
        "resamples": resamples,
        "unit": "group" if grouped else "case",
        "n_units": len(set(units)),
    }
    return {
        **score(truth, probabilities, classes),
        "temperature": extremes[0] if len(extremes) == 1 else extremes,
        "ece_uncalibrated": calibration_error(truth, predictions.uncalibrated()),
        "intervals": intervals and described | intervals,
        **_per_source(predictions),
    }


def _per_source(predictions: Predictions) -> dict[str, Any]:
    """Score the cases of each source by themselves, where there are several."""
    origins = np.array([case.source for case in predictions.cases])
    names = list(dict.fromkeys(origins.tolist()))
    if len(names) == 1:
        return {}
    scores = {
        name: score(
            predictions.truth_N[origins == name], predictions.probabilities_NK[origins == name], predictions.classes
        )
        for name in names
    }
    return {"per_source": {name: {key: values[key] for key in _SUMMARY} for name, values in scores.items()}}


def spread(folds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return mean, standard deviation (n - 1), least and greatest value of every metric over folds.

    Args:
        folds: What `measure` returns of each.

    Returns:
        By metric `mean`, `std`, `min`, `max`, and `n`, the folds in which it is defined; None where it is in none. The
        same of each class under `per_class`.
    """
    names = [name for name in (*_SUMMARY, "ece_uncalibrated") if name != "n"]
    classes = folds[0]["per_class"]
    parts = [part for part in next(iter(classes.values())) if not part.startswith("n")]
    return {name: _spread([fold[name] for fold in folds]) for name in names} | {
        "per_class": {
            label: {part: _spread([fold["per_class"][label][part] for fold in folds]) for part in parts}
            for label in classes
        }
    }


def _spread(values: Sequence[float | None]) -> dict[str, float | int | None] | None:
    known = [value for value in values if value is not None]
    if not known:
        return None
    return {
        "mean": statistics.mean(known),
        "std": statistics.stdev(known) if len(known) > 1 else None,
        "min": min(known),
        "max": max(known),
        "n": len(known),
    }
