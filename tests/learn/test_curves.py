import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from histo.learn.score.curves import reliability_bins, roc_curves
from histo.learn.score.metrics import bootstrap_intervals, calibration_error


def draw(n: int = 300) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    return random.integers(0, 3, n), random.dirichlet(np.ones(3) / 4, n).astype(np.float32)


def test_a_curve_has_the_area_that_the_scores_say() -> None:
    truth, probabilities = draw()

    curves = roc_curves(truth, probabilities, "ABC", name="fold 2")

    for k, label in enumerate("ABC"):
        curve = curves[label]
        assert curve.auc == pytest.approx(roc_auc_score(truth == k, probabilities[:, k]))
        assert (curve.name, curve.positives + curve.negatives) == ("fold 2", 300)
        assert [curve.false_positive_rate[0], curve.true_positive_rate[-1]] == [0, 1]


def test_a_curve_bears_the_interval_of_its_area() -> None:
    truth, probabilities = draw()
    intervals = bootstrap_intervals(truth, probabilities, range(300), "ABC", resamples=20, seed=0)

    curves = roc_curves(truth, probabilities, "ABC", intervals=intervals)

    assert intervals
    assert {k: list(curve.auc_interval or ()) for k, curve in curves.items()} == {
        k: intervals["per_class"][k]["auc"] for k in "ABC"
    }
    assert all(curve.auc_interval[0] < curve.auc < curve.auc_interval[1] for curve in curves.values())
    assert roc_curves(truth, probabilities, "ABC")["A"].auc_interval is None


def test_a_class_without_cases_or_with_all_of_them_has_no_curve() -> None:
    probabilities = np.full((4, 3), 1 / 3)

    assert set(roc_curves(np.array([0, 0, 1, 1]), probabilities, "ABC")) == {"A", "B"}
    assert roc_curves(np.zeros(4, np.int64), probabilities, "ABC") == {}


def test_bins_hold_every_case_and_give_the_calibration_error() -> None:
    truth, probabilities = draw()
    probabilities[0] = [1, 0, 0]

    bins = reliability_bins(truth, probabilities)

    gaps = [b.n * abs(b.confidence - b.accuracy) for b in bins if b.confidence is not None and b.accuracy is not None]
    assert [(bins[i].high, bins[i + 1].low) for i in range(14)] == [(bins[i].high,) * 2 for i in range(14)]
    assert sum(b.n for b in bins) == 300
    assert sum(gaps) / 300 == pytest.approx(calibration_error(truth, probabilities), abs=1e-6)
    assert bins[0] == type(bins[0])(0.0, bins[0].high, 0, None, None)
