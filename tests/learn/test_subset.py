import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from histo.errors import UsageError
from histo.learn.data.images import ArrayImages
from histo.learn.data.listing import Split
from histo.learn.data.source import Case, Source
from histo.learn.data.spec import Subset
from histo.learn.data.subset import draw_subset
from histo.spec.base import Spec

COUNTS = st.lists(st.integers(1, 60), min_size=2, max_size=6)


def make_source(counts: list[int], split: Split | None = None) -> Source:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts)).tolist()
    cases = tuple(Case(f"c{i}", label, split) for i, label in enumerate(labels))
    return Source(tuple(f"K{i}" for i in range(len(counts))), cases, ArrayImages(()))


def class_counts(source: Source, members: list[int]) -> list[int]:
    return np.bincount(source.labels()[members], minlength=len(source.classes)).tolist()


@given(COUNTS, st.data(), st.integers(0, 9))
def test_a_subset_has_the_size_that_was_asked_for_and_every_class(
    counts: list[int], data: st.DataObject, seed: int
) -> None:
    source = make_source(counts)
    size = data.draw(st.integers(len(counts), sum(counts)))

    members = draw_subset(source, str(size), seed)

    assert members == sorted(set(members))
    assert len(members) == size
    assert min(class_counts(source, members)) >= 1


@given(COUNTS, st.data(), st.integers(0, 9))
def test_a_subset_is_contained_in_every_larger_one(counts: list[int], data: st.DataObject, seed: int) -> None:
    source = make_source(counts)
    sizes = st.integers(len(counts), sum(counts))
    small, large = sorted([data.draw(sizes), data.draw(sizes)])

    assert set(draw_subset(source, str(small), seed)) <= set(draw_subset(source, str(large), seed))


@given(COUNTS, st.data())
def test_classes_keep_their_shares(counts: list[int], data: st.DataObject) -> None:
    """No class may be given an image that another one of at least two has more claim to (Webster's condition)."""
    source = make_source(counts)

    chosen = class_counts(source, draw_subset(source, str(data.draw(st.integers(len(counts), sum(counts)))), 0))

    claims = [(n + 0.5) / total for n, total in zip(chosen, counts, strict=True)]
    held = [(n - 0.5) / total for n, total in zip(chosen, counts, strict=True) if n > 1]
    assert not held or max(held) <= min(claims) + 1e-9


def test_the_seed_draws() -> None:
    source = make_source([50, 50])

    one, again, other = (draw_subset(source, "20", seed) for seed in (1, 1, 2))

    assert one == again != other


def test_a_fraction_is_rounded_to_whole_images() -> None:
    assert len(draw_subset(make_source([30, 75]), "0.1", 0)) == 11
    assert len(draw_subset(make_source([30, 75]), "0.001", 0)) == 2
    assert draw_subset(make_source([3, 7]), "1.0", 0) == draw_subset(make_source([3, 7]), "full", 0) == list(range(10))


@pytest.mark.parametrize(("name", "per_class"), [("tiny", 100), ("small", 800)])
def test_tiny_and_small_have_so_many_images_of_each_class(name: str, per_class: int) -> None:
    source = make_source([1000, 2000, 50])

    members = draw_subset(source, name, 0)

    assert class_counts(source, members) == [per_class, per_class, 50]
    assert set(draw_subset(source, "tiny", 0)) <= set(members)


def test_test_cases_stay_and_do_not_count() -> None:
    train, test = make_source([20, 20]), make_source([6, 6], "test")
    source = Source(train.classes, test.cases[:6] + train.cases + test.cases[6:], ArrayImages(()))

    members = draw_subset(source, "10", 0)

    assert [i for i in members if source.cases[i].split == "test"] == [*range(6), *range(46, 52)]
    assert len(members) == 22


def test_training_and_validation_cases_keep_their_proportion() -> None:
    train, val = make_source([40, 40], "train"), make_source([10, 10], "val")
    source = Source(train.classes, train.cases + val.cases, ArrayImages(()))

    assert [source.cases[i].split for i in draw_subset(source, "20", 0)].count("val") == 4


@pytest.mark.parametrize("subset", ["1", "11"])
def test_a_number_that_cannot_be_had_is_refused(subset: str) -> None:
    with pytest.raises(UsageError, match=f"--subset {subset}: there are 10 images of 2 classes"):
        draw_subset(make_source([5, 5]), subset, 0)


class Job(Spec):
    subset: Subset = "full"


@pytest.mark.parametrize(
    ("value", "text"), [("tiny", "tiny"), (0.1, "0.1"), (500, "500"), ("1.0", "1.0"), (".5", ".5")]
)
def test_a_subset_is_a_name_a_fraction_or_a_number(value: object, text: str) -> None:
    assert Job.model_validate({"subset": value}).subset == text


@pytest.mark.parametrize("value", ["big", "0", "0.0", "1.5", "-3", "10%", "1e3", "", None])
def test_another_subset_is_refused(value: object) -> None:
    with pytest.raises(ValidationError, match=r"expected full, tiny, small, a fraction such as 0\.1"):
        Job.model_validate({"subset": value})
