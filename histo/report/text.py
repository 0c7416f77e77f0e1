"""Results as lines of text, for a terminal."""

from collections.abc import Sequence
from typing import Any

_MOST_COLUMNS = 20


def format_scores(metrics: dict[str, Any], noun: str) -> str:
    """Say in a few lines what `metrics.json` holds.

    Args:
        metrics: Its content.
        noun: What several cases are called.

    Examples:
        >>> print(format_scores({
        ...     "n": 8, "accuracy": 0.875, "balanced_accuracy": 0.8, "macro_f1": 0.8, "macro_auc": None, "ece": 0.05,
        ...     "ece_uncalibrated": 0.1, "temperature": 1.5, "classes_missing": ["DEB"],
        ...     "intervals": {"accuracy": [0.5, 1.0], "unit": "case", "n_units": 8},
        ... }, "images"))
        accuracy 0.8750 (95 % interval 0.5000 to 1.0000, 8 cases) on 8 images
        balanced accuracy 0.8000  macro F1 0.8000  macro AUC not defined
        calibration error 0.1000 before, 0.0500 after temperature 1.50
        no images of DEB: averages leave it out
    """
    intervals = metrics.get("intervals")
    span = ""
    if intervals and intervals["accuracy"]:
        low, high = intervals["accuracy"]
        span = f" (95 % interval {low:.4f} to {high:.4f}, {intervals['n_units']} {intervals['unit']}s)"
    lines = [
        f"accuracy {metrics['accuracy']:.4f}{span} on {metrics['n']} {noun}",
        "  ".join(
            f"{name} {_number(metrics[key])}"
            for name, key in (
                ("balanced accuracy", "balanced_accuracy"),
                ("macro F1", "macro_f1"),
                ("macro AUC", "macro_auc"),
            )
        ),
        f"calibration error {metrics['ece_uncalibrated']:.4f} before, {metrics['ece']:.4f} after temperature "
        f"{format_temperature(metrics['temperature'])}",
    ]
    missing = metrics["classes_missing"]
    if missing:
        lines.append(f"no {noun} of {', '.join(missing)}: averages leave {'it' if len(missing) == 1 else 'them'} out")
    for name, scores in metrics.get("colour_baseline", {}).items():
        lines.append(f"colour alone, {name.replace('_', ' ')}: accuracy {scores['accuracy']:.4f}")
    return "\n".join(lines)


def format_temperature(temperature: float | Sequence[float]) -> str:
    """Say a temperature, or the least and the greatest of several.

    Examples:
        >>> format_temperature(1.234), format_temperature([1.0, 1.5])
        ('1.23', '1.00 to 1.50')
    """
    values = [temperature] if isinstance(temperature, int | float) else temperature
    return " to ".join(f"{value:.2f}" for value in values)


def _number(value: float | None) -> str:
    return "not defined" if value is None else _cell(value)


def format_confusion(matrix: Sequence[Sequence[int]], classes: Sequence[str]) -> str:
    """Lay a confusion matrix out as text: a row for each true class, a column for each predicted one.

    Of more than 20 classes it has no columns: `confusion.csv` has them.

    Examples:
        >>> print(format_confusion([[3, 1], [0, 4]], ["STR", "TUM"]))
        truth  n  STR  TUM  correct
        STR    4    3    1    75.0%
        TUM    4    0    4   100.0%
    """
    shown = slice(len(classes) if len(classes) <= _MOST_COLUMNS else 0)
    rows = [["truth", "n", *classes[shown], "correct"]]
    for i, (name, counts) in enumerate(zip(classes, matrix, strict=True)):
        total = sum(counts)
        rows.append([name, str(total), *map(str, counts[shown]), f"{counts[i] / total:.1%}" if total else "-"])
    return _align(rows)


def format_folds(folds: Sequence[dict[str, Any]], over_folds: dict[str, Any], noun: str) -> str:
    """Lay the scores of a cross-validation out as text: a row for each fold, then mean and standard deviation.

    Examples:
        >>> scores = [{"accuracy": 0.5, "balanced_accuracy": 0.5, "macro_f1": 0.5, "macro_auc": 0.5, "ece": 0.25}] * 2
        >>> folds = [{"fold": number, "n": 4} | each for number, each in enumerate(scores)]
        >>> over = {name: {"mean": value, "std": 0.0} for name, value in scores[0].items()}
        >>> print(format_folds(folds, over, "images"))
        fold  images  accuracy  balanced accuracy  macro F1  macro AUC  calibration error
        0          4    0.5000             0.5000    0.5000     0.5000             0.2500
        1          4    0.5000             0.5000    0.5000     0.5000             0.2500
        mean            0.5000             0.5000    0.5000     0.5000             0.2500
        std             0.0000             0.0000    0.0000     0.0000             0.0000
    """
    columns = {
        "accuracy": "accuracy",
        "balanced_accuracy": "balanced accuracy",
        "macro_f1": "macro F1",
        "macro_auc": "macro AUC",
        "ece": "calibration error",
    }
    rows = [["fold", noun, *columns.values()]]
    rows += [[str(fold["fold"]), str(fold["n"]), *(_cell(fold.get(name)) for name in columns)] for fold in folds]
    rows += [
        [name, "", *(_cell((over_folds[column] or {}).get(name)) for column in columns)] for name in ("mean", "std")
    ]
    return _align(rows)


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _align(rows: Sequence[Sequence[str]]) -> str:
    """Put cells below each other, the first column to the left and the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
