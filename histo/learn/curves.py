"""The numbers behind the pictures of an evaluation: ROC curves and reliability bins."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class RocCurve:
    """One class against the rest, for one set of predictions.

    Attributes:
        name: What the predictions are: `all`, or `fold 0`.
        false_positive_rate: Ascending, `(n,)`, from 0 to 1.
        true_positive_rate: At the same thresholds, `(n,)`.
        threshold: A case counts as positive if its probability is at least that, `(n,)`, falling; the first is infinite.
        auc: Area under the curve.
        positives: Cases of the class.
        negatives: Cases of other classes.
    """

    name: str
    false_positive_rate: npt.NDArray[np.float64]
    true_positive_rate: npt.NDArray[np.float64]
    threshold: npt.NDArray[np.float64]
    auc: float
    positives: int
    negatives: int


@dataclass(frozen=True)
class Bin:
    """The cases whose confidence lies in one interval, `low` excluded and `high` included.

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
