"""Compute ROC curves and reliability bins."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import auc, roc_curve

from histo.learn.score.metrics import bin_confidences


@dataclass(frozen=True)
class RocCurve:
    """One class against the rest, for one set of predictions.

    Attributes:
        name: What the predictions are: `all`, or `fold 0`.
        false_positive_rate: Ascending, `(n,)`, from 0 to 1.
        true_positive_rate: At the same thresholds, `(n,)`.
        threshold: A case is positive if its probability is at least that, `(n,)`, falling; the first is infinite.
        auc: Area under the curve.
        auc_interval: Bounds of its 95 % interval; None where there is none.
        positives: Cases of the class.
        negatives: Cases of other classes.
    """

    name: str
    false_positive_rate: npt.NDArray[np.float64]
    true_positive_rate: npt.NDArray[np.float64]
    threshold: npt.NDArray[np.float64]
    auc: float
    auc_interval: tuple[float, float] | None
    positives: int
    negatives: int


@dataclass(frozen=True)
class Bin:
    """The cases whose confidence lies in one interval, `low` included and `high` not, but in the last one.

    Attributes:
        low: Lower bound of the confidence.
        high: Upper bound.
        n: Cases.
        confidence: Their mean confidence; None where there are none.
        accuracy: Share of them that is right; None where there are none.
    """

    low: float
    high: float
    n: int
    confidence: float | None
    accuracy: float | None


def roc_curves(
    truth_N: npt.NDArray[np.int64],
    probabilities_NK: npt.NDArray[np.floating],
    classes: Sequence[str],
    name: str = "all",
    intervals: Mapping[str, Any] | None = None,
) -> dict[str, RocCurve]:
    """Return the ROC curve of each class against the rest; none for a class that has no cases, or nothing but cases.

    Args:
        truth_N: Class indices.
        probabilities_NK: Rows sum to 1.
        classes: Names of the K classes.
        name: What the predictions are.
        intervals: Of the same predictions, as `bootstrap_intervals` returns them.
    """
    curves = {}
    for k, label in enumerate(classes):
        positive = truth_N == k
        if 0 < positive.sum() < len(truth_N):
            false_rate, true_rate, threshold = roc_curve(positive, probabilities_NK[:, k])
            bounds = intervals["per_class"][label]["auc"] if intervals else None
            curves[label] = RocCurve(
                name=name,
                false_positive_rate=false_rate,
                true_positive_rate=true_rate,
                threshold=threshold,
                auc=float(auc(false_rate, true_rate)),
                auc_interval=(bounds[0], bounds[1]) if bounds else None,
                positives=int(positive.sum()),
                negatives=int((~positive).sum()),
            )
    return curves


def reliability_bins(truth_N: npt.NDArray[np.int64], probabilities_NK: npt.NDArray[np.floating]) -> list[Bin]:
    """Sort cases into bins of their confidence, the probability of the most probable class."""
    binned = bin_confidences(truth_N, probabilities_NK)
    bins = []
    for number, (low, high) in enumerate(pairwise(binned.edges.tolist())):
        here = binned.bin_N == number
        both = (binned.confidence_N, binned.correct_N)
        means = [float(values[here].mean()) if here.any() else None for values in both]
        bins.append(Bin(low, high, int(here.sum()), *means))
    return bins
