from pathlib import Path

import numpy as np
import pytest
import torch

from histo.learn.array_layout import TILES
from histo.learn.data.source import Case, Source, read_sources
from histo.learn.fit.augment import augment
from histo.learn.fit.augment_spec import AugmentSpec
from histo.learn.fit.batch_order import BatchOrder
from histo.learn.fit.batches import Batch, FeatureBatches, ImageBatches
from histo.learn.network.backbones import Normalisation
from histo.learn.network.model import Network


class Counting(torch.nn.Module):
    """A backbone whose features are grey levels, and that counts the images that it has seen."""

    num_features = 2

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen += len(images)
        return images.mean(dim=(2, 3))[:, :2]


def numbered(count: int) -> Source:
    """Images whose grey level is their own index."""

    class Levels:
        layout = TILES

        def load(self, index: int) -> np.ndarray:
            return np.full((16, 16, 3), index, np.uint8)

        def encoded(self, index: int) -> bytes:
            raise NotImplementedError

    return Source(("a", "b"), tuple(Case(str(i), i % 2) for i in range(count)), Levels())


def stream(count: int, batch_size: int, shuffle: bool = False) -> ImageBatches:
    return ImageBatches(numbered(count), BatchOrder(tuple(range(count)), batch_size, shuffle=shuffle), 16)


def levels(batch: Batch) -> list[int]:
    return [int(image.float().mean().round()) for image in batch.inputs]


def counting() -> Network:
    return Network(Counting(), Normalisation((0.0,) * 3, (1.0,) * 3), classes=2, dropout=0)


@pytest.mark.parametrize("shuffle", [False, True])
def test_batches_hold_the_images_and_labels_of_the_order(shuffle: bool) -> None:
    images = stream(10, 4, shuffle)

    batches = list(images.batches(3))

    assert [levels(batch) for batch in batches] == [[i for i, _ in b] for b in images.order.global_batches(3)]
    assert all(batch.labels_B.tolist() == [level % 2 for level in levels(batch)] for batch in batches)
    assert [batch.global_count for batch in batches] == [4, 4, 2]


def test_a_worker_without_a_share_gets_an_empty_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("histo.learn.fit.batches.rank", lambda: 2)
    monkeypatch.setattr("histo.learn.fit.batches.world_size", lambda: 3)

    *_, last = stream(10, 8).batches(0)

    assert (last.inputs.shape, len(last.labels_B), last.global_count) == ((0, 3, 16, 16), 0, 2)


def test_images_are_changed_by_seed_epoch_case_and_repeat(tiles: Path) -> None:
    source, spec = read_sources([tiles], None), AugmentSpec(preset="geometric")
    order = BatchOrder(tuple(range(36)), 12, seed=4, balance=(0,) * 34 + (1,) * 2)
    plain, changed = ImageBatches(source, order, 32), ImageBatches(source, order, 32, spec)

    for before, after, samples in zip(plain.batches(2), changed.batches(2), order.global_batches(2), strict=True):
        keys = [(4, 2, case, turn) for case, turn in samples]
        assert torch.equal(after.inputs, augment(before.inputs, spec, keys))


def test_loader_processes_change_nothing_in_any_epoch(tiles: Path) -> None:
    source = read_sources([tiles], None)

    def images(loaders: int) -> list[torch.Tensor]:
        parts = ImageBatches(source, BatchOrder(tuple(range(36)), 8), 48, AugmentSpec(), loaders=loaders)
        return [torch.cat([batch.inputs for batch in parts.batches(epoch)]) for epoch in (1, 2)]

    for alone, loaded in zip(images(loaders=0), images(loaders=2), strict=True):
        assert torch.equal(alone, loaded)


def test_a_stream_takes_no_random_number_from_dropout() -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)

    torch.manual_seed(0)
    list(stream(10, 4, shuffle=True).batches(1))

    assert torch.equal(torch.rand(1), expected)


def test_features_come_in_the_order_of_the_cases_and_are_computed_once() -> None:
    network, order = counting(), BatchOrder((7, 3, 5, 1, 8), 2, seed=1)
    images = ImageBatches(numbered(10), BatchOrder((7, 3, 5, 1, 8), 3, shuffle=False), 16)
    features = FeatureBatches(network, images, order)

    for epoch in (1, 2, 3):
        for batch, samples in zip(features.batches(epoch), order.global_batches(epoch), strict=True):
            assert batch.inputs[:, 0].tolist() == [case for case, _ in samples]
            assert batch.labels_B.tolist() == [case % 2 for case, _ in samples]

    assert network.backbone.seen == 5
