"""Score predictions: scikit-learn's metrics, calibration, intervals.

Axes: N cases, K classes; in the bootstrap R draws, U units, S distinct scores.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    confusion_matrix,
    precision_recall_fscore_support,
    roc_auc_score,
)

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
Probabilities = npt.NDArray[np.float32] | Floats

CALIBRATION_BINS = 15
"""Intervals of equal width, as in Guo et al. 2017 (arXiv 1706.04599)."""
AVERAGED = {"balanced_accuracy": "recall", "macro_f1": "f1", "macro_auc": "auc"}
"""What is averaged over the classes that have cases, and its mean's name."""
COVERAGE = 0.95
_MOST_WEIGHTS = 2**22
"""Weights of cases that are in memory at a time, over several draws."""
_PARTS = ("precision", "recall", "f1", "auc")


def score(truth_N: Labels, probabilities_NK: Probabilities, classes: Sequence[str]) -> dict[str, Any]:
    """Compare predictions with the truth; the prediction is the most probable class, the lowest one of equals.

    What is not defined is None: recall and F1 of a class without cases, precision of one that is never predicted, AUC
    and average precision of one that has no cases, or nothing but cases. Averages are taken over the classes for which
    their part is defined, macro F1 over those that have cases.

    Args:
        truth_N: Class indices, N at least 1.
        probabilities_NK: Rows sum to 1.
        classes: Names of the K classes.

    Returns:
        `n`, `accuracy`, `balanced_accuracy` (mean recall), `macro_f1`, `macro_auc` and `macro_average_precision` (one
        class against the rest), `ece` (expected calibration error of the most probable class), `classes`,
        `classes_missing` (without cases), `confusion_matrix` (rows truth, columns prediction), and `per_class`: `n`,
        `n_predicted`, `n_correct`, `precision`, `recall`, `f1`, `auc`, `average_precision`.
    """
    pred_N = probabilities_NK.argmax(axis=1)
    matrix = confusion_matrix(truth_N, pred_N, labels=range(len(classes)))
    parts = _class_scores(truth_N, probabilities_NK) | {"average_precision": _precisions(truth_N, probabilities_NK)}
    present = matrix.sum(axis=1) > 0
    counts = {"n": matrix.sum(axis=1), "n_predicted": matrix.sum(axis=0), "n_correct": matrix.diagonal()}
    return {
        "n": len(truth_N),
        "accuracy": float(accuracy_score(truth_N, pred_N)),
        **{name: _known(_mean(parts[part][present])) for name, part in AVERAGED.items()},
        "macro_average_precision": _known(_mean(parts["average_precision"])),
        "ece": calibration_error(truth_N, probabilities_NK),
        "classes": list(classes),
        "classes_missing": [name for name, there in zip(classes, present, strict=True) if not there],
        "confusion_matrix": matrix.tolist(),
        "per_class": {
            name: {key: int(values[k]) for key, values in counts.items()}
            | {key: _known(values[k]) for key, values in parts.items()}
            for k, name in enumerate(classes)
        },
    }


@dataclass(frozen=True)
class Confidences:
    """Cases in bins of their confidence, the probability of the most probable class.

    Attributes:
        edges: Of the bins, `(bins + 1,)`, from 0 to 1; a bin has its lower edge, the last one both.
        bin_N: The bin of each case.
        confidence_N: The confidence of each case, float32.
        correct_N: Whether the most probable class is the true one.
    """

    edges: npt.NDArray[np.float32]
    bin_N: npt.NDArray[np.int64]
    confidence_N: npt.NDArray[np.float32]
    correct_N: npt.NDArray[np.bool_]


def bin_confidences(truth_N: Labels, probabilities_NK: Probabilities) -> Confidences:
    """Sort cases into bins of their confidence."""
    edges = np.linspace(0, 1, CALIBRATION_BINS + 1, dtype=np.float32)
    confidence_N = probabilities_NK.max(axis=1).astype(np.float32)
    bin_N = np.clip(np.searchsorted(edges, confidence_N, side="right") - 1, 0, CALIBRATION_BINS - 1)
    return Confidences(edges, bin_N, confidence_N, probabilities_NK.argmax(axis=1) == truth_N)


def calibration_error(truth_N: Labels, probabilities_NK: Probabilities) -> float:
    """Return the expected calibration error: the mean distance of confidence and accuracy over bins of confidence.

    The source is Guo et al. 2017 (arXiv 1706.04599); Naeini et al. 2015 (doi 10.1609/aaai.v29i1.9602).
    """
    binned = bin_confidences(truth_N, probabilities_NK)
    gaps = np.bincount(binned.bin_N, weights=binned.correct_N - binned.confidence_N.astype(np.float64))
    return float(np.abs(gaps).sum() / len(truth_N))


def bootstrap_intervals(
    truth_N: Labels,
    probabilities_NK: Probabilities,
    units: Sequence[object],
    classes: Sequence[str],
    resamples: int,
    seed: int,
) -> dict[str, Any] | None:
    """Return 95 % intervals by drawing whole units again and again, with replacement (percentile bootstrap).

    Cases of one unit, such as the tiles of a patient, are not independent; drawing single cases would give intervals
    that are too narrow (Field and Welsh 2007, doi 10.1111/j.1467-9868.2007.00593.x).

    Args:
        truth_N: Class indices.
        probabilities_NK: Rows sum to 1.
        units: What each case belongs to.
        classes: Names of the K classes.
        resamples: How often is drawn; 0 gives none.
        seed: Fixes the draws.

    Returns:
        Pairs of bounds: `accuracy`, `balanced_accuracy`, `macro_f1`, `macro_auc`, and `per_class` `recall`,
        `precision`, `f1` and `auc`; None for what is not defined in any draw. None if nothing is drawn, or there is
        one unit only.
    """
    _, unit_N = np.unique(np.array([str(unit) for unit in units]), return_inverse=True)
    count = int(unit_N.max()) + 1
    if not resamples or count < 2:
        return None
    random = np.random.default_rng(seed)
    at_once = max(1, _MOST_WEIGHTS // len(truth_N))
    draws = []
    for start in range(0, resamples, at_once):
        drawn_RU = random.integers(count, size=(min(at_once, resamples - start), count))
        weights_RU = np.stack([np.bincount(drawn, minlength=count) for drawn in drawn_RU]).astype(np.float64)
        draws.append(_weighted(truth_N, probabilities_NK, weights_RU[:, unit_N]))
    bounds = iter(_quantiles(np.concatenate(draws)))
    overall = {name: next(bounds) for name in ("accuracy", *AVERAGED)}
    parts = {part: [next(bounds) for _ in classes] for part in _PARTS}
    per_class = {name: {part: parts[part][k] for part in _PARTS} for k, name in enumerate(classes)}
    return overall | {"per_class": per_class}


def _weighted(truth_N: Labels, probabilities_NK: Probabilities, weights_RN: Floats) -> Floats:
    """Return what has an interval, of every draw: accuracy, averages over classes, and their parts, class by class.

    A case that was drawn twice counts twice. scikit-learn gives the same numbers, draw by draw, a hundred times slower.
    """
    truth_NK = _one_hot(truth_N, probabilities_NK)
    pred_NK = _one_hot(probabilities_NK.argmax(axis=1), probabilities_NK)
    cases_RK, predicted_RK, correct_RK = (weights_RN @ of for of in (truth_NK, pred_NK, truth_NK & pred_NK))
    parts = {
        "precision": _ratio(correct_RK, predicted_RK),
        "recall": _ratio(correct_RK, cases_RK),
        "f1": np.where(cases_RK > 0, _ratio(2 * correct_RK, cases_RK + predicted_RK), np.nan),
        "auc": np.stack(
            [_weighted_auc(truth_NK[:, k], probabilities_NK[:, k], weights_RN) for k in range(truth_NK.shape[1])],
            axis=1,
        ),
    }
    accuracy_R = correct_RK.sum(axis=1) / weights_RN.sum(axis=1)
    means = [_mean_of_present(parts[part], cases_RK > 0) for part in AVERAGED.values()]
    return np.concatenate([np.stack([accuracy_R, *means], axis=1), *(parts[part] for part in _PARTS)], axis=1)


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Divide; nan where nothing is divided by."""
    quotient: Floats = np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator > 0)
    return quotient


def _weighted_auc(is_class_N: npt.NDArray[np.bool_], scores_N: Probabilities, weights_RN: Floats) -> Floats:
    """Return the area under the ROC curve of one class, of every draw; nan without cases or with nothing but cases.

    It is the share of pairs of a case and another that the scores put in order, equal scores half (Hanley and McNeil
    1982, doi 10.1148/radiology.143.1.7063747).
    """
    order = np.argsort(scores_N, kind="stable")
    begins = np.flatnonzero(np.diff(scores_N[order], prepend=-1))
    of_class_RS, others_RS = (
        np.add.reduceat(weights_RN[:, order] * of[order], begins, axis=1) for of in (is_class_N, ~is_class_N)
    )
    below_RS = np.cumsum(others_RS, axis=1) - others_RS
    in_order_R = (of_class_RS * (below_RS + others_RS / 2)).sum(axis=1)
    return _ratio(in_order_R, of_class_RS.sum(axis=1) * others_RS.sum(axis=1))


def _mean_of_present(values_RK: Floats, present_RK: npt.NDArray[np.bool_]) -> Floats:
    """Return the mean over the classes that have cases and whose value is defined, of every draw; nan without any."""
    counts_RK = present_RK & ~np.isnan(values_RK)
    return _ratio(np.where(counts_RK, values_RK, 0).sum(axis=1), counts_RK.sum(axis=1).astype(np.float64))


def _quantiles(draws: Floats) -> list[list[float] | None]:
    """Return both bounds of every column, over the draws in which it is defined."""
    tail = (1 - COVERAGE) / 2
    columns = [column[~np.isnan(column)] for column in draws.T]
    return [np.quantile(column, (tail, 1 - tail)).tolist() if len(column) else None for column in columns]


def _class_scores(truth_N: Labels, probabilities_NK: Probabilities) -> dict[str, Floats]:
    """Return precision, recall, F1 and AUC of every class, `(K,)` each; nan where not defined."""
    precision, recall, f1, count = precision_recall_fscore_support(
        truth_N, probabilities_NK.argmax(axis=1), labels=range(probabilities_NK.shape[1]), zero_division=np.nan
    )
    f1 = np.where(count > 0, f1, np.nan)  # scikit-learn gives 0 to a class that is predicted and has no cases
    is_class_NK = _one_hot(truth_N, probabilities_NK)
    counts = is_class_NK.sum(axis=0)
    defined = (counts > 0) & (counts < len(truth_N))
    auc = np.full(len(counts), np.nan)
    if defined.any():
        auc[defined] = roc_auc_score(is_class_NK[:, defined], probabilities_NK[:, defined], average=None)
    return dict(zip(_PARTS, (precision, recall, f1, auc), strict=True))


def _precisions(truth_N: Labels, probabilities_NK: Probabilities) -> Floats:
    """Return the average precision of every class, `(K,)`; nan where not defined."""
    is_class_NK = _one_hot(truth_N, probabilities_NK)
    counts = is_class_NK.sum(axis=0)
    return np.array(
        [
            average_precision_score(is_class_NK[:, k], probabilities_NK[:, k]) if 0 < count < len(truth_N) else np.nan
            for k, count in enumerate(counts)
        ]
    )


def _one_hot(truth_N: Labels, probabilities_NK: Probabilities) -> npt.NDArray[np.bool_]:
    return np.asarray(truth_N[:, None] == np.arange(probabilities_NK.shape[1]))


def _mean(values: Floats) -> float:
    """Return the mean of the values that are defined; nan if none is."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else float("nan")


def _known(value: float) -> float | None:
    """Return a number for JSON, which knows no nan."""
    return None if np.isnan(value) else float(value)
