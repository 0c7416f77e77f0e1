from collections.abc import Sequence

import numpy as np
import pytest
from helpers.made_cases import make_source, survey_of
from hypothesis import assume, given
from hypothesis import strategies as st

from histo.errors import UsageError
from histo.learn.data.leaks import check_leaks, find_leaks
from histo.learn.data.listing import Split
from histo.learn.data.source import Source
from histo.learn.data.spec import SplitSpec
from histo.learn.data.split import assign_splits, number_units, split_hash
from histo.learn.fit.shortages import shortages


def assign(
    source: Source, spec: SplitSpec | None = None, seed: int = 0, contents: Sequence[int | None] = ()
) -> list[str]:
    return [str(split) for split in assign_splits(source, survey_of(source, contents), spec or SplitSpec(), seed)]


@given(st.lists(st.integers(5, 40), min_size=2, max_size=5), st.floats(0.15, 0.5), st.integers(0, 99))
def test_every_class_is_held_out_in_proportion(counts: list[int], fraction: float, seed: int) -> None:
    source = make_source(counts)

    splits = np.array(assign(source, SplitSpec(val_fraction=fraction), seed))

    held_out = np.bincount(source.labels()[splits == "val"], minlength=len(counts))
    assert set(splits) == {"train", "val"}
    assert np.abs(held_out - fraction * np.array(counts)).max() <= 2


@given(st.lists(st.integers(20, 60), min_size=2, max_size=4), st.integers(0, 99))
def test_a_test_part_and_a_validation_part_are_shares_of_all_cases(counts: list[int], seed: int) -> None:
    source = make_source(counts)

    splits = np.array(assign(source, SplitSpec(val_fraction=0.2, test_fraction=0.2), seed))

    for part in ("val", "test"):
        held_out = np.bincount(source.labels()[splits == part], minlength=len(counts))
        assert np.abs(held_out - 0.2 * np.array(counts)).max() <= 2


@pytest.mark.slow
@given(st.data(), st.sampled_from([0.1, 0.2, 0.25, 0.4]), st.integers(0, 99))
def test_a_group_is_never_split_and_every_class_is_on_both_sides(
    data: st.DataObject, fraction: float, seed: int
) -> None:
    sizes = data.draw(st.lists(st.lists(st.integers(1, 5), min_size=12, max_size=20), min_size=2, max_size=3))
    groups = [f"{k}/{g}" for k, of_class in enumerate(sizes) for g, size in enumerate(of_class) for _ in range(size)]
    source = make_source([sum(of_class) for of_class in sizes], groups=groups)

    splits = assign(source, SplitSpec(val_fraction=fraction), seed)

    assert len({(group, split) for group, split in zip(groups, splits, strict=True)}) == len(set(groups))
    assert {(c.label, s) for c, s in zip(source.cases, splits, strict=True)} == {
        (label, split) for label in range(len(sizes)) for split in ("train", "val")
    }


@pytest.mark.slow
@given(st.lists(st.integers(0, 40), min_size=80, max_size=80), st.lists(st.integers(0, 40), min_size=80, max_size=80))
def test_what_is_linked_by_group_or_content_stays_together(contents: list[int], groups: list[int]) -> None:
    labels = [40, 40]
    named = [f"p{g}" if g < 20 else None for g in groups]
    source = make_source(labels, groups=named)

    try:
        splits = assign(source, SplitSpec(val_fraction=0.5), contents=contents)
    except UsageError as error:
        assume("no class has two cases" not in str(error) and "can be trained on" not in str(error))
        raise

    assert find_leaks(source, survey_of(source, contents), splits) == []  # type: ignore[arg-type]


def test_equal_images_and_no_groups_are_split_in_proportion_too() -> None:
    contents = [i if i % 10 else 10 * (i // 20) for i in range(200)]

    splits = assign(make_source([100, 100]), contents=contents)

    assert [splits[:100].count("val"), splits[100:].count("val")] == pytest.approx([20, 20], abs=3)


@pytest.mark.parametrize("grouped", [False, True])
def test_the_seed_fixes_the_split(grouped: bool) -> None:
    source = make_source([20, 20], groups=[f"g{i // 2}" for i in range(40)] if grouped else ())
    found = survey_of(source)

    names = [case.case_id for case in source.cases]
    first, again, other = (assign_splits(source, found, SplitSpec(), seed) for seed in (1, 1, 2))

    assert first == again != other
    assert split_hash(names, first) == split_hash(names, again) != split_hash(names, other)


def test_a_source_with_its_own_split_keeps_it() -> None:
    given_splits: list[Split | None] = ["train", "val", "test", "train", "val", "test"]

    assert assign(make_source([3, 3], given_splits)) == given_splits


def test_validation_is_drawn_from_training_where_a_source_has_none() -> None:
    given_splits: list[Split | None] = ["train"] * 10 + ["test"] * 2

    splits = assign(make_source([6, 6], given_splits), SplitSpec(val_fraction=0.5))

    assert (splits.count("train"), splits.count("val"), splits[10:]) == (5, 5, ["test", "test"])


def test_each_source_keeps_its_own_rule() -> None:
    one: list[Split | None] = ["train"] * 8 + ["val"] * 2
    other: list[Split | None] = ["train"] * 10

    splits = assign(make_source([10, 10], one + other, sources=["a"] * 10 + ["b"] * 10).select([*range(0, 20, 2)]))
    whole = assign(make_source([20, 20], (one + other) * 2, sources=(["a"] * 10 + ["b"] * 10) * 2))

    assert splits[:5] == ["train"] * 4 + ["val"]
    assert [whole[i] for i in (*range(10), *range(20, 30))] == one * 2
    assert [whole[i] for i in (*range(10, 20), *range(30, 40))].count("val") == 4


def test_training_cases_of_a_source_never_become_test_cases() -> None:
    given_splits: list[Split | None] = ["train"] * 10 + [None] * 10

    splits = assign(make_source([10, 10], given_splits * 1), SplitSpec(test_fraction=0.4))

    assert "test" not in splits[:10]
    assert splits[10:].count("test") == 4


def test_an_open_case_follows_what_is_given_for_its_group_or_its_content() -> None:
    given_splits: list[Split | None] = ["test", None, "val", None] + [None] * 16
    groups = ["p", "p"] + [None] * 18
    contents = [0, 1, 2, 2, *range(4, 20)]

    splits = assign(make_source([10, 10], given_splits, groups), contents=contents)

    assert splits[:4] == ["test", "test", "val", "val"]


def test_an_open_case_equal_to_one_of_another_sources_test_set_is_a_leak() -> None:
    given_splits: list[Split | None] = [None] * 19 + ["test"]
    source = make_source([10, 10], given_splits, sources=["a"] * 19 + ["test:b"])
    found = survey_of(source, [*range(18), 7, 7])

    splits = assign_splits(source, found, SplitSpec(), 0)

    assert splits.count("test") == 1
    with pytest.raises(UsageError, match=r"1 leaks .* c7 \((train|val)\) and c19 \(test\) have the same content"):
        check_leaks(source, found, splits, allow=False)


@pytest.mark.slow
@given(
    st.lists(st.sampled_from(["train", "val", "test", None]), min_size=80, max_size=80),
    st.lists(st.integers(0, 60), min_size=80, max_size=80),
    st.integers(0, 9),
)
def test_given_splits_stay_and_only_they_can_leak(splits: list[Split | None], contents: list[int], seed: int) -> None:
    source = make_source([40, 40], splits)
    found = survey_of(source, contents)
    torn = {leak.members for leak in find_leaks(source, found, splits)}

    try:
        assigned = assign_splits(source, found, SplitSpec(val_fraction=0.5), seed)
    except UsageError as error:
        assume(not any(reason in str(error) for reason in ("no class has", "can be trained on", "no training")))
        raise

    kept = [(own, now) for own, now in zip(splits, assigned, strict=True) if own is not None]
    leaks = find_leaks(source, found, assigned)
    assert all(own == now or ("val" not in splits and (own, now) == ("train", "val")) for own, now in kept)
    assert all(any(set(members) <= set(leak.members) for members in torn) for leak in leaks)


def test_a_broken_image_has_no_split() -> None:
    splits = assign(make_source([10, 10]), contents=[None, *range(1, 20)])

    assert (splits[0], splits.count("None")) == ("None", 1)


@pytest.mark.parametrize(
    ("source", "spec", "message"),
    [
        (make_source([2, 2], ["val", "test", "val", "test"]), {}, "no training images"),
        (make_source([5]), {}, "a single class, K0"),
        (make_source([9, 9], groups=["p"] * 9 + ["q"] * 9), {}, "no class has two cases .* none is left for val"),
        (make_source([9, 9], groups=["p"] * 18), {"val_fraction": 0.01}, "no class has two cases"),
        (make_source([1, 1]), {"val_fraction": 0, "test_fraction": 0.2}, "give --split.test-fraction 0"),
        (make_source([9, 9]), {"val_fraction": 0.5, "test_fraction": 0.5}, "leave nothing to train with"),
    ],
)
def test_a_split_that_cannot_be_is_refused_by_name(source: Source, spec: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        assign(source, SplitSpec(**spec))  # type: ignore[arg-type]


@pytest.mark.slow
@given(
    st.integers(2, 4),
    st.sampled_from([8, 16]),
    st.sampled_from([0.1, 0.2, 0.3]),
    st.sampled_from([0.0, 0.2]),
    st.integers(0, 99),
)
def test_a_small_cohort_is_split_with_every_class_on_both_sides(
    classes: int, patients: int, val: float, test: float, seed: int
) -> None:
    counts = [patients // classes] * (classes - 1) + [patients - patients // classes * (classes - 1)]
    groups = [f"{label}/{patient}" for label, count in enumerate(counts) for patient in range(count) for _ in range(3)]
    source = make_source([3 * count for count in counts], groups=groups)

    splits = assign(source, SplitSpec(val_fraction=val, test_fraction=test), seed)

    seen = {(case.label, split) for case, split in zip(source.cases, splits, strict=True)}
    parts = 1 + bool(val) + bool(test)
    assert len(set(zip(groups, splits, strict=True))) == patients
    assert {(label, "train") for label in range(classes)} <= seen
    assert min(counts) < parts or {(label, "val") for label in range(classes)} <= seen
    assert splits.count("train") >= len(splits) / 4


def test_the_seed_moves_the_split_of_a_small_cohort() -> None:
    source = make_source([12, 12], groups=[f"p{i // 3}" for i in range(24)])

    drawn = {tuple(assign(source, seed=seed)) for seed in range(12)}

    assert len(drawn) > 4


def test_a_class_with_one_patient_is_learned_and_its_absence_from_validation_is_said() -> None:
    source = make_source([9, 9, 2], groups=[*(f"{i // 3}" for i in range(18)), "z", "z"])
    found = survey_of(source)

    splits = assign_splits(source, found, SplitSpec(), seed=0)

    assert splits[18:] == ("train", "train")
    assert {case.label for case, split in zip(source.cases, splits, strict=True) if split == "val"} == {0, 1}
    assert shortages(source, splits, number_units(source, found), {"val": 0.2}) == [
        "validation has no case of K2 (1 in all); its score is not known",
        "validation has 6 of 20 cases, 0.30 of them; 0.2 was asked for",
        "probabilities are not calibrated: 6 validation cases, fewer than 100",
    ]


def test_a_rare_class_of_a_large_set_is_on_both_sides() -> None:
    source = make_source([60, 60, 2])

    for seed in range(20):
        splits = assign(source, seed=seed)
        assert sorted(splits[120:]) == ["train", "val"]
        assert abs(splits.count("val") - 24) <= 2


def test_no_validation_can_be_asked_for() -> None:
    assert set(assign(make_source([1, 1]), SplitSpec(val_fraction=0))) == {"train"}


def test_equal_content_in_two_splits_is_a_leak() -> None:
    source = make_source([3, 3])
    splits: list[Split | None] = ["train", "val", "train", "test", "train", "val"]
    found = survey_of(source, [0, 1, 2, 2, 4, 4])

    with pytest.raises(
        UsageError, match=r"2 leaks .* c2 \(train\) and c3 \(test\) have the same content; .*allow-leaks"
    ):
        check_leaks(source, found, splits, allow=False)

    assert [leak.members for leak in find_leaks(source, found, splits)] == [(2, 3), (4, 5)]
    assert check_leaks(source, found, splits, allow=True) == [
        "leak: c2 (train) and c3 (test) have the same content",
        "leak: c4 (train) and c5 (val) have the same content",
    ]


def test_a_group_in_two_splits_is_a_leak() -> None:
    source = make_source([2, 2], groups=["p", None, "p", None])

    lines = check_leaks(source, survey_of(source), ["train", "val", "test", "val"], allow=True)

    assert lines == ["leak: c0 (train) and c2 (test) are both of group p"]


def test_broken_images_and_equal_ones_of_one_split_are_no_leak() -> None:
    source = make_source([2, 2])

    assert check_leaks(source, survey_of(source, [1, 1, None, None]), ["train", "train", None, None], allow=False) == []
