import numpy as np
import pytest

from histo.learn.data.source import Case
from histo.learn.score.metrics import score
from histo.learn.score.predictions import Predictions, measure, spread


def make(groups: list[str | None], sources: list[str] | None = None, temperature: float = 2.0) -> Predictions:
    random, n = np.random.default_rng(0), len(groups)
    names = sources or ["a"] * n
    return Predictions(
        cases=[Case(f"{i}.png", 0, group=group, source=names[i]) for i, group in enumerate(groups)],
        classes=("STR", "TUM"),
        truth_N=random.integers(0, 2, n),
        probabilities_NK=random.dirichlet([1, 1], n).astype(np.float32),
        temperatures_N=np.full(n, temperature),
    )


def test_intervals_are_by_group_where_there_are_groups() -> None:
    alone, grouped = measure(make([None] * 20), 50, 0), measure(make(["p1"] * 8 + ["p2"] * 8 + [None] * 4), 50, 0)

    assert (alone["intervals"]["unit"], alone["intervals"]["n_units"]) == ("case", 20)
    assert (grouped["intervals"]["unit"], grouped["intervals"]["n_units"]) == ("group", 6)
    assert alone["accuracy"] == grouped["accuracy"]
    assert alone["intervals"]["accuracy"] != grouped["intervals"]["accuracy"]
    assert measure(make(["p1"] * 20), 50, 0)["intervals"] is None


def test_the_calibration_error_is_told_before_and_after_the_temperature() -> None:
    scaled, same = measure(make([None] * 50), 0, 0), measure(make([None] * 50, temperature=1.0), 0, 0)

    assert scaled["ece"] == same["ece"] == pytest.approx(same["ece_uncalibrated"], abs=1e-6)
    assert scaled["ece_uncalibrated"] != pytest.approx(scaled["ece"], abs=1e-3)
    assert (scaled["temperature"], scaled["intervals"]) == (2.0, None)


def test_each_of_several_sources_is_scored_by_itself() -> None:
    predictions = make([None] * 30, ["x"] * 10 + ["y"] * 20)

    found = measure(predictions, 0, 0)

    expected = score(predictions.truth_N[10:], predictions.probabilities_NK[10:], predictions.classes)
    assert [found["per_source"][name]["n"] for name in ("x", "y")] == [10, 20]
    assert found["per_source"]["y"]["macro_auc"] == expected["macro_auc"]
    assert "per_source" not in measure(make([None] * 30), 0, 0)


def test_the_spread_over_folds_counts_the_folds_in_which_a_metric_is_defined() -> None:
    truth, probabilities = np.array([0, 0, 1, 1]), np.array([[0.9, 0.1], [0.6, 0.4], [0.7, 0.3], [0.2, 0.8]])
    both = score(truth, probabilities, ("STR", "TUM")) | {"ece_uncalibrated": 0.1}
    one = score(truth[:2], probabilities[:2], ("STR", "TUM")) | {"ece_uncalibrated": 0.3}

    found = spread([both, one])

    assert found["accuracy"] == {"mean": 0.875, "std": pytest.approx(0.1768, abs=1e-4), "min": 0.75, "max": 1, "n": 2}
    assert found["macro_auc"] == {"mean": 0.75, "std": None, "min": 0.75, "max": 0.75, "n": 1}
    assert found["ece_uncalibrated"]["mean"] == pytest.approx(0.2)
    assert found["per_class"]["TUM"]["recall"]["n"] == 1
    assert spread([one, one])["macro_auc"] is None
