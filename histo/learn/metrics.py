"""How good predictions are."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import accuracy_score, confusion_matrix


def score(truth: npt.NDArray[np.int64], pred: npt.NDArray[np.int64], classes: Sequence[str]) -> dict[str, Any]:
    """Compare predictions with the truth.

    Args:
        truth: Class indices, `(n,)`, n at least 1.
        pred: Predicted class indices, `(n,)`.
        classes: Names of the classes.

    Returns:
        `n`, `accuracy`, `confusion_matrix` (rows truth, columns prediction, both in the order of `classes`), and
        `per_class` counts: `n` labelled, `n_predicted`, `n_correct`.
    """
    matrix = confusion_matrix(truth, pred, labels=range(len(classes)))
    return {
        "n": len(truth),
        "accuracy": float(accuracy_score(truth, pred)),
        "classes": list(classes),
        "confusion_matrix": matrix.tolist(),
        "per_class": {
            name: {
                "n": int(matrix[i].sum()),
                "n_predicted": int(matrix[:, i].sum()),
                "n_correct": int(matrix[i, i]),
            }
            for i, name in enumerate(classes)
        },
    }
