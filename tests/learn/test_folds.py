"""Cases to folds, and a fold to the splits of its run."""

import re

import numpy as np
import pytest
from helpers.made_cases import make_source, survey_of
from hypothesis import given
from hypothesis import strategies as st

from histo.errors import UsageError
from histo.learn.data.listing import Split
from histo.learn.data.source import Source
from histo.learn.data.spec import SplitSpec
from histo.learn.data.split import assign_folds, fold_splits, number_units
from histo.learn.fit.shortages import fold_shortages

SPEC = SplitSpec(val_fraction=0.25)


@pytest.mark.slow
@given(st.lists(st.integers(8, 30), min_size=2, max_size=4), st.integers(2, 5), st.integers(0, 99))
def test_every_case_is_tested_once_and_classes_are_dealt_alike(counts: list[int], folds: int, seed: int) -> None:
    source = make_source(counts)
    found = survey_of(source)

    fold_of = assign_folds(source, found, folds, seed)

    runs = [fold_splits(source, found, fold_of, fold, SPEC, seed) for fold in range(folds)]
    for i in range(len(source.cases)):
        assert [run[i] for run in runs].count("test") == 1
        assert fold_of[i] is not None
        assert runs[fold_of[i]][i] == "test"
    for label, count in enumerate(counts):
        dealt = np.bincount(np.array(fold_of)[source.labels() == label], minlength=folds)
        assert dealt.min() >= count // folds - 1
        assert dealt.max() <= -(-count // folds) + 1
    for run in runs:
        assert {source.cases[i].label for i, split in enumerate(run) if split == "train"} == set(range(len(counts)))
        assert "val" in run


@pytest.mark.slow
@given(st.data(), st.integers(2, 4), st.integers(0, 99))
def test_groups_and_copies_are_never_split(data: st.DataObject, folds: int, seed: int) -> None:
    sizes = data.draw(st.lists(st.lists(st.integers(1, 4), min_size=16, max_size=20), min_size=2, max_size=3))
    groups = [f"p{label}-{i}" for label, own in enumerate(sizes) for i, size in enumerate(own) for _ in range(size)]
    source = make_source([sum(own) for own in sizes], groups=groups)
    contents = list(range(len(groups)))
    contents[-1] = contents[0]  # a copy links two groups
    found = survey_of(source, contents)

    fold_of = assign_folds(source, found, folds, seed)

    units = number_units(source, found)
    for fold in range(folds):
        splits = np.array(fold_splits(source, found, fold_of, fold, SplitSpec(val_fraction=0.25), seed))
        assert all(len(set(splits[units == unit])) == 1 for unit in np.unique(units))
    assert set(fold_of) == set(range(folds))


def test_what_a_source_sets_apart_for_testing_takes_no_part_and_its_other_splits_do_not_count() -> None:
    given_splits: list[Split | None] = ["test", *["train"] * 5, *["val"] * 2, "test", *["train"] * 7]
    source = make_source([8, 8], given_splits)
    found = survey_of(source)

    fold_of = assign_folds(source, found, 4, seed=0)

    splits = fold_splits(source, found, fold_of, 1, SPEC, seed=0)
    assert [i for i, fold in enumerate(fold_of) if fold is None] == [0, 8]
    assert [i for i, split in enumerate(splits) if split is None] == [0, 8]


def test_a_copy_of_an_image_that_is_set_apart_is_still_tested_in_its_own_fold_only() -> None:
    given_splits: list[Split | None] = ["test", *[None] * 15]
    source = make_source([8, 8], given_splits)
    found = survey_of(source, [0, 0, *range(2, 16)])

    fold_of = assign_folds(source, found, 3, seed=0)

    runs = [fold_splits(source, found, fold_of, fold, SPEC, seed=0)[1] for fold in range(3)]
    assert runs.count("test") == 1


def test_an_image_that_cannot_be_used_has_no_fold() -> None:
    source = make_source([6, 6])

    fold_of = assign_folds(source, survey_of(source, [None, *range(1, 12)]), 3, seed=0)

    assert fold_of[0] is None
    assert None not in fold_of[1:]


def test_folds_are_a_function_of_the_seed() -> None:
    source = make_source([20, 20])
    found = survey_of(source)

    assert assign_folds(source, found, 4, seed=1) == assign_folds(source, found, 4, seed=1)
    assert assign_folds(source, found, 4, seed=1) != assign_folds(source, found, 4, seed=2)


def test_a_class_of_fewer_cases_than_folds_is_tested_in_some_of_them_and_said() -> None:
    source = make_source([13, 3])
    found = survey_of(source)

    fold_of = assign_folds(source, found, 5, seed=0)

    assert len(set(fold_of[13:])) == 3
    assert set(fold_of) == set(range(5))
    assert fold_shortages(source, fold_of, number_units(source, found), 5) == [
        "some of the 5 folds test no case of K1 (3 in all)"
    ]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (make_source([9, 1]), "class K1 has 1 cases"),
        (make_source([2, 2]), "there are 4 cases"),
        (make_source([9, 9], groups=[*map(str, range(9)), *["a"] * 9]), "class K1 has 1 cases"),
        (make_source([9, 9], groups=["a", "b", "c"] * 6), "there are 3 cases"),
    ],
)
def test_folds_that_would_be_empty_or_could_not_learn_a_class_are_refused(source: Source, words: str) -> None:
    with pytest.raises(UsageError, match=re.escape(f"--folds 5: {words}")):
        assign_folds(source, survey_of(source), 5, seed=0)
