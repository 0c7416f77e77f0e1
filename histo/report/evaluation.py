"""Write an evaluation: metrics, predictions, and pictures of both.

`metrics.json`, `predictions.parquet`, and pictures with their numbers.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from histo import store, tables
from histo.learn.data.images import Images
from histo.learn.score.curves import RocCurve, reliability_bins, roc_curves
from histo.learn.score.predictions import Predictions, measure
from histo.remote.location import AnyPath
from histo.report.confusion import draw_confusion
from histo.report.mistakes import Mistake, draw_mistakes
from histo.report.reliability import draw_reliability
from histo.report.roc import draw_roc

_SHOWN = 24


def write_evaluation(
    out: AnyPath,
    predictions: Predictions,
    images: Images,
    resamples: int,
    seed: int,
    more: Mapping[str, Any] | None = None,
    folds: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Measure predictions and write everything that a person or a program wants to know of them.

    Args:
        out: Folder of the results.
        predictions: At least one case.
        images: Of its cases, in their order; those of mistakes are drawn.
        resamples: See `measure`.
        seed: See `measure`.
        more: What else `metrics.json` is to hold.
        folds: What `measure` returned of each fold, for its intervals; none without cross-validation.

    Returns:
        The content of `metrics.json`, which is written last.
    """
    metrics = measure(predictions, resamples, seed) | dict(more or {})
    _write_predictions(out, predictions)
    figures = out / "figures"
    draw_confusion(metrics["confusion_matrix"], predictions.classes, figures / "confusion.png")
    draw_roc(_curves(predictions, metrics["intervals"], folds), figures / "roc.png")
    draw_reliability(
        reliability_bins(predictions.truth_N, predictions.uncalibrated()),
        reliability_bins(predictions.truth_N, predictions.probabilities_NK),
        (metrics["ece_uncalibrated"], metrics["ece"]),
        metrics["temperature"],
        figures / "reliability.png",
    )
    _draw_mistakes(predictions, images, figures / "mistakes.png")
    store.put_json(out / "metrics.json", metrics)
    return metrics


def _curves(
    predictions: Predictions, intervals: Mapping[str, Any] | None, folds: Sequence[Mapping[str, Any]]
) -> dict[str, Sequence[RocCurve]]:
    """Return the curves of each class: over all cases, and fold by fold where there are folds."""
    truth, probabilities, classes = predictions.truth_N, predictions.probabilities_NK, predictions.classes
    sets = [roc_curves(truth, probabilities, classes, intervals=intervals)]
    for number, fold in enumerate(folds):
        here = predictions.fold_N == number
        sets.append(roc_curves(truth[here], probabilities[here], classes, f"fold {number}", fold["intervals"]))
    return {name: [curves[name] for curves in sets if name in curves] for name in classes}


def _draw_mistakes(predictions: Predictions, images: Images, target: AnyPath) -> None:
    pred_N = predictions.probabilities_NK.argmax(axis=1)
    confidence_N = predictions.probabilities_NK.max(axis=1)
    wrong = np.flatnonzero(pred_N != predictions.truth_N)
    shown = wrong[np.argsort(-confidence_N[wrong], kind="stable")][:_SHOWN].tolist()
    mistakes = [
        Mistake(
            case_id=predictions.cases[i].case_id,
            truth=predictions.classes[predictions.truth_N[i]],
            label=predictions.classes[pred_N[i]],
            confidence=float(confidence_N[i]),
        )
        for i in shown
    ]
    pictures = [images.layout.picture(images.load(i)) for i in shown]
    draw_mistakes(pictures, mistakes, len(wrong), len(pred_N), target, images.layout.noun)


def _write_predictions(out: AnyPath, predictions: Predictions) -> None:
    classes, folds = predictions.classes, predictions.fold_N
    rows = [
        {
            "case_id": case.case_id,
            "source": case.source,
            "group": case.group,
            "truth": classes[true],
            "label": classes[int(row.argmax())],
            "pred": int(row.argmax()),
            "confidence": float(row.max()),
            **{f"prob_{name}": float(value) for name, value in zip(classes, row, strict=True)},
        }
        for case, true, row in zip(
            predictions.cases, predictions.truth_N.tolist(), predictions.probabilities_NK, strict=True
        )
    ]
    columns: tuple[tables.Column, ...] = tables.PREDICTIONS
    if folds is not None:
        columns = tables.OUT_OF_FOLD
        rows = [row | {"fold": fold} for row, fold in zip(rows, folds.tolist(), strict=True)]
    tables.write_table(out / "predictions.parquet", tables.rows_table(rows, tables.schema(columns, classes)))
