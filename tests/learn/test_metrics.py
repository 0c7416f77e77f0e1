"""Scores equal scikit-learn's, on random and on degenerate cases; intervals are those of such scores."""

import warnings
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from histo.learn.score.metrics import bootstrap_intervals, calibration_error, score

CLASSES = ("A", "B", "C")
Case = tuple[np.ndarray, np.ndarray]


def draw(seed: int, n: int, present: list[int], ties: bool) -> Case:
    """Labels of some of the classes, and probabilities of which many are equal if asked for."""
    random = np.random.default_rng(seed)
    probabilities = random.dirichlet(np.ones(3), n)
    if ties:
        probabilities = np.round(probabilities * 2) + 1
        probabilities /= probabilities.sum(axis=1, keepdims=True)
    return random.choice(present, n), probabilities


@pytest.mark.slow
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 60),
    present=st.lists(st.integers(0, 2), min_size=1, max_size=3, unique=True),
    ties=st.booleans(),
)
def test_scores_are_those_of_scikit_learn(seed: int, n: int, present: list[int], ties: bool) -> None:
    truth, probabilities = draw(seed, n, present, ties)
    pred = probabilities.argmax(axis=1)
    there = np.unique(truth)

    found = score(truth, probabilities, CLASSES)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns of what is not defined
        precision, recall, f1, count = sk.precision_recall_fscore_support(
            truth, pred, labels=range(3), zero_division=np.nan
        )
        assert found["accuracy"] == pytest.approx(sk.accuracy_score(truth, pred))
        assert found["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(truth, pred))
        assert found["macro_f1"] == pytest.approx(sk.f1_score(truth, pred, labels=there, average="macro"))
    assert found["confusion_matrix"] == sk.confusion_matrix(truth, pred, labels=range(3)).tolist()
    assert found["classes_missing"] == [name for k, name in enumerate(CLASSES) if k not in there]
    for k, name in enumerate(CLASSES):
        one = found["per_class"][name]
        defined = 0 < count[k] < n
        assert one["n"] == count[k]
        known = (precision[k], recall[k], f1[k] if count[k] else np.nan)
        assert [one["precision"], one["recall"], one["f1"]] == [
            None if np.isnan(value) else pytest.approx(value) for value in known
        ]
        positive = truth == k
        expected = [sk.roc_auc_score(positive, probabilities[:, k])] if defined else [None]
        expected += [sk.average_precision_score(positive, probabilities[:, k])] if defined else [None]
        assert [one["auc"], one["average_precision"]] == [value and pytest.approx(value) for value in expected]


def test_the_averages_of_all_classes_are_those_of_scikit_learn() -> None:
    truth, probabilities = draw(0, 200, [0, 1, 2], ties=True)

    found = score(truth, probabilities, CLASSES)

    assert found["macro_auc"] == pytest.approx(sk.roc_auc_score(truth, probabilities, multi_class="ovr"))
    one_hot = np.eye(3)[truth]
    assert found["macro_average_precision"] == pytest.approx(sk.average_precision_score(one_hot, probabilities))


def test_two_classes_have_the_auc_of_either() -> None:
    truth, random = np.array([0, 1, 1, 0, 1]), np.random.default_rng(0)
    probabilities = random.dirichlet(np.ones(2), 5)

    found = score(truth, probabilities, ("norma", "mts"))

    assert found["macro_auc"] == pytest.approx(sk.roc_auc_score(truth, probabilities[:, 1]))


def test_what_is_not_defined_is_none_and_said_so_without_a_warning() -> None:
    found = score(np.array([1]), np.array([[0.3, 0.2, 0.5]]), CLASSES)

    assert found["classes_missing"] == ["A", "C"]
    assert (found["accuracy"], found["balanced_accuracy"], found["macro_f1"]) == (0, 0, 0)
    assert (found["macro_auc"], found["macro_average_precision"]) == (None, None)
    assert found["per_class"]["A"] == {
        "n": 0, "n_predicted": 0, "n_correct": 0,
        "precision": None, "recall": None, "f1": None, "auc": None, "average_precision": None,
    }  # fmt: skip
    assert found["per_class"]["C"]["precision"] == 0


def test_the_lowest_class_of_equals_is_predicted() -> None:
    assert score(np.array([0, 1]), np.full((2, 3), 1 / 3), CLASSES)["confusion_matrix"][:2] == [[1, 0, 0], [1, 0, 0]]


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 80), sharpness=st.floats(0.1, 50))
def test_the_calibration_error_is_the_mean_gap_over_fifteen_bins(seed: int, n: int, sharpness: float) -> None:
    random = np.random.default_rng(seed)
    truth, probabilities = random.integers(0, 3, n), random.dirichlet(np.ones(3) / sharpness, n).astype(np.float32)
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == truth
    edges = np.linspace(0, 1, 16, dtype=np.float32)

    gaps = [
        abs(correct[here].sum() - confidence[here].astype(float).sum())
        for low, high in pairwise(edges)
        if (here := (confidence >= low) & ((confidence < high) | (high == 1))).any()
    ]

    assert calibration_error(truth, probabilities) == pytest.approx(sum(gaps) / n, abs=1e-5)


def simulate(random: np.random.Generator, groups: int, size: int) -> tuple[Case, list[str]]:
    """Cases of which the share that is right differs from group to group, 0.75 on average."""
    rates = random.beta(3, 1, groups)
    right = random.random((groups, size)) < rates[:, None]
    truth = random.integers(0, 2, (groups, size))
    pred = np.where(right, truth, 1 - truth).reshape(-1)
    probabilities = np.eye(2)[pred] * 0.8 + 0.1
    return (truth.reshape(-1), probabilities), [f"patient {i // size}" for i in range(groups * size)]


@pytest.mark.slow
def test_intervals_by_group_cover_the_truth_and_those_by_case_do_not() -> None:
    random = np.random.default_rng(0)
    covered = {"group": 0, "case": 0}
    runs = 60

    for run in range(runs):
        (truth, probabilities), groups = simulate(random, groups=40, size=20)
        for kind, units in (("group", groups), ("case", list(map(str, range(800))))):
            found = bootstrap_intervals(truth, probabilities, units, ("a", "b"), resamples=100, seed=run)
            assert found is not None
            low, high = found["accuracy"]
            covered[kind] += low <= 0.75 <= high

    assert covered["group"] / runs >= 0.87, "95 % are promised, and 60 runs tell that to within 8"
    assert covered["case"] / runs < 0.8, "cases of one group are alike; drawing them one by one claims too much"


@pytest.mark.slow
@settings(max_examples=30)  # each scores ten draws with scikit-learn
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(2, 40),
    units=st.integers(1, 8),
    present=st.lists(st.integers(0, 2), min_size=1, max_size=3, unique=True),
    ties=st.booleans(),
)
def test_intervals_are_those_of_the_scores_of_each_draw(
    seed: int, n: int, units: int, present: list[int], ties: bool
) -> None:
    truth, probabilities = draw(seed, n, present, ties)
    unit = np.append([0, 1], np.random.default_rng(seed).integers(0, units + 1, n - 2))
    names = [f"unit {number}" for number in unit]

    found = bootstrap_intervals(truth, probabilities, names, CLASSES, 10, seed)

    random, known = np.random.default_rng(seed), np.unique(unit)
    draws = []
    for _ in range(10):
        chosen = random.integers(len(known), size=len(known))
        cases = np.concatenate([np.flatnonzero(unit == known[number]) for number in chosen])
        draws.append(score(truth[cases], probabilities[cases], CLASSES))
    assert found is not None
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "macro_auc"):
        assert_bounds(found[name], [each[name] for each in draws])
    for name in CLASSES:
        for part in ("precision", "recall", "f1", "auc"):
            assert_bounds(found["per_class"][name][part], [each["per_class"][name][part] for each in draws])


def assert_bounds(found: list[float] | None, drawn: list[float | None]) -> None:
    """The central 95 % of what is defined; None if nothing is."""
    values = [value for value in drawn if value is not None]
    assert found == (pytest.approx(np.quantile(values, (0.025, 0.975)), abs=1e-9) if values else None)


def test_intervals_hold_the_scores_and_are_the_same_for_a_seed() -> None:
    truth, probabilities = draw(1, 120, [0, 1], ties=False)
    units = [str(i) for i in range(120)]

    first, again, other = (bootstrap_intervals(truth, probabilities, units, CLASSES, 100, seed) for seed in (0, 0, 1))

    assert first == again != other
    assert first is not None
    scores = score(truth, probabilities, CLASSES)
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "macro_auc"):
        assert first[name][0] < scores[name] < first[name][1]
    assert first["per_class"]["A"]["auc"][0] < scores["per_class"]["A"]["auc"] < first["per_class"]["A"]["auc"][1]
    assert first["per_class"]["C"] == {"precision": [0.0, 0.0], "recall": None, "f1": None, "auc": None}


def test_a_single_group_and_no_draws_have_no_interval() -> None:
    truth, probabilities = draw(0, 10, [0, 1, 2], ties=False)

    assert bootstrap_intervals(truth, probabilities, ["one"] * 10, CLASSES, 50, seed=0) is None
    assert bootstrap_intervals(truth, probabilities, list("abcdefghij"), CLASSES, 0, seed=0) is None
