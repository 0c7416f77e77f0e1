import numpy as np

from histo.learn.metrics import score


def test_the_confusion_matrix_has_truth_in_rows() -> None:
    metrics = score(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 1]), ["A", "B", "C", "D"])

    assert metrics["confusion_matrix"] == [[1, 1, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    assert metrics["accuracy"] == 0.5
    assert metrics["per_class"]["B"] == {"n": 1, "n_predicted": 3, "n_correct": 1}
    assert metrics["per_class"]["D"] == {"n": 0, "n_predicted": 0, "n_correct": 0}
