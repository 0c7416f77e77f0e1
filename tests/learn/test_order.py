from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from histo.learn.fit.batch_order import BatchOrder


def order(count: int, batch_size: int, seed: int = 0, shuffle: bool = True) -> BatchOrder:
    return BatchOrder(tuple(range(100, 100 + count)), batch_size, seed, shuffle)


@given(st.integers(1, 60), st.integers(1, 17), st.integers(1, 5), st.integers(1, 9))
def test_the_workers_shares_of_an_epoch_are_every_case_once(count: int, size: int, workers: int, epoch: int) -> None:
    cases = order(count, size)

    shares = [cases.shares(epoch, rank, workers) for rank in range(workers)]

    assert sorted(sample for own in shares for share, _ in own for sample in share) == [
        (100 + i, 0) for i in range(count)
    ]
    assert {len(own) for own in shares} == {cases.steps()}


@given(st.integers(2, 40), st.integers(2, 9), st.integers(2, 5))
def test_the_shares_of_any_number_of_workers_make_up_the_same_batches(count: int, size: int, workers: int) -> None:
    cases = order(count, size)

    together = zip(*[cases.shares(3, rank, workers) for rank in range(workers)], strict=True)

    batches = [sorted(sample for share, _ in parts for sample in share) for parts in together]
    assert batches == [sorted(batch) for batch in cases.global_batches(3)]


def test_a_last_batch_of_one_joins_the_batch_before_it() -> None:
    assert [len(batch) for batch in order(17, 8).global_batches(1)] == [8, 9]


def test_the_order_changes_with_epoch_and_seed_and_repeats_with_both() -> None:
    orders = [order(30, 8, seed).global_batches(epoch) for seed, epoch in [(0, 1), (0, 1), (0, 2), (1, 1)]]

    assert orders[0] == orders[1]
    assert orders[0] not in orders[2:]


def test_without_shuffling_the_given_order_stays() -> None:
    assert order(5, 2, shuffle=False).global_batches(4) == [[(100, 0), (101, 0)], [(102, 0), (103, 0), (104, 0)]]


@given(st.lists(st.integers(1, 30), min_size=2, max_size=5), st.integers(0, 50))
def test_balanced_sampling_draws_all_classes_equally_often(counts: list[int], seed: int) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    cases = BatchOrder(tuple(range(len(labels))), 8, seed, balance=tuple(labels.tolist()))

    drawn = [sample for batch in cases.global_batches(1) for sample in batch]

    per_class = Counter(int(labels[case]) for case, _ in drawn)
    quotas = [per_class[label] for label in range(len(counts))]
    assert len(drawn) == len(labels)
    assert max(quotas) - min(quotas) <= 1
    assert len(set(drawn)) == len(drawn), "a case that comes again is another sample"


def test_a_balanced_case_comes_again_only_after_all_others_of_its_class() -> None:
    cases = BatchOrder(tuple(range(20)), 20, 0, balance=(0,) * 17 + (1,) * 3)

    times = Counter(case for case, _ in cases.global_batches(1)[0])

    assert {times[case] for case in (17, 18, 19)} <= {3, 4}
    assert all(times[case] <= 1 for case in range(17))


@pytest.mark.parametrize("epoch", [1, 2])
def test_balanced_draws_are_a_function_of_seed_and_epoch(epoch: int) -> None:
    cases = BatchOrder(tuple(range(20)), 8, 5, balance=(0,) * 15 + (1,) * 5)

    assert cases.global_batches(epoch) == cases.global_batches(epoch)
    assert cases.global_batches(1) != cases.global_batches(2)
