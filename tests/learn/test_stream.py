from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from histo.learn.augment import AugmentSpec
from histo.learn.images import ArrayImages
from histo.learn.source import Case, Source, read_sources
from histo.learn.stream import Batch, Stream


def numbered(count: int) -> Source:
    """Images whose grey level is their own index."""
    pixels = np.arange(count, dtype=np.uint8)[:, None, None, None] * np.ones((16, 16, 3), np.uint8)
    return Source(("a", "b"), tuple(Case(str(i), i % 2) for i in range(count)), ArrayImages((pixels,)))


def stream(count: int, batch_size: int, augment: AugmentSpec | None, seed: int = 0) -> Stream:
    return Stream(numbered(count), tuple(range(count)), 16, batch_size, seed, augment)


def levels(batch: Batch) -> list[int]:
    return [int(image.float().mean().round()) for image in batch.images_BCHW]


@given(st.integers(1, 60), st.integers(1, 17), st.integers(1, 5), st.integers(1, 9))
def test_the_workers_shares_of_an_epoch_are_every_case_once(count: int, size: int, workers: int, epoch: int) -> None:
    parts = stream(count, size, AugmentSpec())

    shares = [case for rank in range(workers) for b in parts.global_batches(epoch) for case in b[rank::workers]]

    assert sorted(shares) == list(range(count))
    assert len(parts.global_batches(epoch)) == parts.steps()


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_a_global_batch_is_the_same_for_any_number_of_workers(workers: int) -> None:
    parts = stream(23, 8, AugmentSpec())
    alone = [sorted(levels(batch)) for batch in parts.batches(1)]

    together = zip(*[parts.batches(1, rank, workers) for rank in range(workers)], strict=True)

    assert [sorted(level for batch in batches for level in levels(batch)) for batches in together] == alone


def test_a_worker_without_a_share_gets_an_empty_batch() -> None:
    *_, last = stream(10, 8, None).batches(0, rank=2, workers=3)

    assert (last.images_BCHW.shape, len(last.labels_B), last.global_count) == ((0, 3, 16, 16), 0, 2)


def test_a_last_batch_of_one_joins_the_batch_before_it() -> None:
    assert [len(batch) for batch in stream(17, 8, AugmentSpec()).global_batches(1)] == [8, 9]


def test_training_order_changes_with_epoch_and_seed_and_repeats_with_both() -> None:
    orders = [
        stream(30, 8, AugmentSpec(), seed).global_batches(epoch) for seed, epoch in [(0, 1), (0, 1), (0, 2), (1, 1)]
    ]

    assert orders[0] == orders[1]
    assert orders[0] not in orders[2:]


def test_validation_is_in_order_and_unchanged() -> None:
    batches = list(stream(10, 4, None).batches(0))

    assert [level for batch in batches for level in levels(batch)] == list(range(10))
    assert torch.cat([batch.labels_B for batch in batches]).tolist() == [i % 2 for i in range(10)]


def test_loader_processes_change_nothing(tiles: Path) -> None:
    source = read_sources([tiles])

    def images(loaders: int) -> torch.Tensor:
        parts = Stream(source, tuple(range(36)), 48, 8, 0, AugmentSpec(), loaders)
        return torch.cat([batch.images_BCHW for batch in parts.batches(1)])

    assert torch.equal(images(loaders=0), images(loaders=2))
