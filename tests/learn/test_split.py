import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from histo.errors import UsageError
from histo.learn.source import ArrayImages, Case, Source, Split
from histo.learn.split import SplitSpec, assign_splits, split_hash


def make_source(counts: list[int], splits: list[Split | None] | None = None) -> Source:
    labels = np.repeat(np.arange(len(counts)), counts).tolist()
    given_splits = splits or [None] * len(labels)
    cases = tuple(
        Case(f"c{i}", label, split) for i, (label, split) in enumerate(zip(labels, given_splits, strict=True))
    )
    return Source(tuple(f"K{i}" for i in range(len(counts))), cases, ArrayImages(()))


@given(st.lists(st.integers(5, 40), min_size=2, max_size=5), st.floats(0.15, 0.5), st.integers(0, 99))
def test_every_class_is_held_out_in_proportion(counts: list[int], fraction: float, seed: int) -> None:
    source = make_source(counts)

    splits = np.array(assign_splits(source, SplitSpec(val_fraction=fraction), seed))

    held_out = np.bincount(source.labels()[splits == "val"], minlength=len(counts))
    assert set(splits) == {"train", "val"}
    assert np.abs(held_out - fraction * np.array(counts)).max() <= 2


def test_the_seed_fixes_the_split() -> None:
    source = make_source([20, 20])

    first, again, other = (assign_splits(source, SplitSpec(), seed) for seed in (1, 1, 2))

    assert first == again != other
    assert split_hash(source, first) == split_hash(source, again) != split_hash(source, other)


def test_a_source_with_its_own_split_keeps_it() -> None:
    given_splits: list[Split | None] = ["train", "val", "test", "train", "val", "test"]

    assert assign_splits(make_source([3, 3], given_splits), SplitSpec(), 0) == tuple(given_splits)


def test_validation_is_drawn_from_training_where_a_source_has_none() -> None:
    given_splits: list[Split | None] = ["train"] * 10 + ["test"] * 2

    splits = assign_splits(make_source([6, 6], given_splits), SplitSpec(val_fraction=0.5), 0)

    assert (splits.count("train"), splits.count("val"), splits[10:]) == (5, 5, ("test", "test"))


def test_a_source_without_training_images_is_refused() -> None:
    with pytest.raises(UsageError, match="no training images"):
        assign_splits(make_source([2, 2], ["val", "test", "val", "test"]), SplitSpec(), 0)


def test_a_class_of_one_image_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match="class K1 has a single image"):
        assign_splits(make_source([5, 1]), SplitSpec(), 0)
