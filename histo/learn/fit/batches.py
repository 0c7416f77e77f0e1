"""Load batches on the worker's device: images, or features computed once.

Images are decoded and changed anew in each epoch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from histo.learn.array_layout import planes_shape
from histo.learn.data.source import Source
from histo.learn.distributed import gather_rows, rank, world_size
from histo.learn.fit.augment import augment
from histo.learn.fit.augment_spec import AugmentSpec
from histo.learn.fit.batch_order import BatchOrder, Sample
from histo.learn.network.model import Network
from histo.learn.network.spec import Precision


@dataclass(frozen=True)
class Batch:
    """One worker's share of a global batch, on its device.

    Attributes:
        inputs: uint8 tiles `(B, C, H, W)` or volumes `(B, S, D, H, W)`, or float32 features `(B, C)`; B may be 0.
        labels_B: int64.
        global_count: Samples in the global batch, over all workers.
    """

    inputs: torch.Tensor
    labels_B: torch.Tensor
    global_count: int


class Stream(Protocol):
    """Where the loop's batches come from."""

    order: BatchOrder

    def batches(self, epoch: int) -> Iterator[Batch]:
        """Yield this worker's share of every global batch; a short last one may leave a worker none."""


class ImageBatches:
    """Batches of images.

    Args:
        source: Where they are from.
        order: Which cases, and in which order.
        size_px: Edge of the images that come out.
        augment: How they are changed, keyed by (seed, epoch, case, repeat); None leaves them as they are.
        device: Where they come out; changing happens there.
        loaders: Processes that decode; 0 decodes in this one.
    """

    def __init__(
        self,
        source: Source,
        order: BatchOrder,
        size_px: int,
        augment: AugmentSpec | None = None,
        device: torch.device | str = "cpu",
        loaders: int = 0,
    ) -> None:
        self.order = order
        self._augment = augment
        self._device = torch.device(device)
        shape = planes_shape(source.images.layout, size_px)
        self._nothing = torch.empty((0, *shape), dtype=torch.uint8), torch.empty(0, dtype=torch.int64)
        self._shares = _Shares()
        self._loader: DataLoader[Any] = DataLoader(
            _Images(source, size_px),
            batch_sampler=self._shares,
            num_workers=loaders,
            persistent_workers=loaders > 0 and order.shuffle,  # of the others, few or one pass is asked for
            pin_memory=self._device.type == "cuda",
            collate_fn=_stack,
            generator=torch.Generator(),  # its own, so that it takes no random number from dropout
        )

    def batches(self, epoch: int) -> Iterator[Batch]:
        """See `Stream.batches`."""
        shares = self.order.shares(epoch, rank(), world_size())
        self._shares.cases = [[case for case, _ in share] for share, _ in shares if share]
        loaded = iter(self._loader)
        for share, global_count in shares:
            images, labels_B = next(loaded) if share else self._nothing
            images = images.to(self._device, non_blocking=True)
            if self._augment is not None:
                images = augment(images, self._augment, [(self.order.seed, epoch, *s) for s in share])
            yield Batch(images, labels_B.to(self._device, non_blocking=True), global_count)


class _Shares(Sampler[list[int]]):
    """The cases of each of this worker's batches in the epoch that comes."""

    def __init__(self) -> None:
        self.cases: list[list[int]] = []

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.cases)

    def __len__(self) -> int:
        return len(self.cases)


class _Images(Dataset[tuple[torch.Tensor, int]]):
    """Images and labels by case index: loaded and resampled."""

    def __init__(self, source: Source, size_px: int) -> None:
        self._source, self._size_px = source, size_px

    def __getitem__(self, case: int) -> tuple[torch.Tensor, int]:
        layout = self._source.images.layout
        array = layout.fit(self._source.images.load(case), self._size_px)
        return torch.from_numpy(np.array(array)).permute(layout.planes_first), self._source.cases[case].label


def _stack(samples: Sequence[tuple[torch.Tensor, int]]) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = zip(*samples, strict=True)
    return torch.stack(images), torch.tensor(labels, dtype=torch.int64)


def own_rows(order: BatchOrder) -> torch.Tensor:
    """Return where the cases that this worker has stand among the members of an order that is not shuffled."""
    row = {case: place for place, case in enumerate(order.members)}
    shares = order.shares(0, rank(), world_size())
    return torch.tensor([row[case] for share, _ in shares for case, _ in share], dtype=torch.int64)


class FeatureBatches:
    """Batches of the frozen backbone's features, computed when the first batch is asked for, each image once.

    Every worker computes its share and then holds all of them: 4 bytes a feature, 0.5 GB for 100,000 images of 1,280.

    Args:
        network: Its backbone must not change any more.
        images: The images as they are, each once.
        order: Of the batches that come out; its members are among those of `images`.
        precision: See `Network.features`.
    """

    def __init__(
        self, network: Network, images: ImageBatches, order: BatchOrder, precision: Precision = "float32"
    ) -> None:
        self.order = order
        self._network, self._images, self._precision = network, images, precision
        self._row = {case: row for row, case in enumerate(images.order.members)}
        self._known: tuple[torch.Tensor, torch.Tensor] | None = None

    def batches(self, epoch: int) -> Iterator[Batch]:
        """See `Stream.batches`."""
        self._known = self._known or self._compute()
        features_NC, labels_N = self._known
        for share, global_count in self.order.shares(epoch, rank(), world_size()):
            rows = self._rows(share).to(features_NC.device)
            yield Batch(features_NC[rows], labels_N[rows], global_count)

    @torch.no_grad()
    def _compute(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return features `(N, C)` and labels `(N,)` of all images, put together from all workers' shares."""
        self._network.backbone.eval()
        features, labels = [], []
        for batch in self._images.batches(epoch=0):
            features.append(self._network.features(batch.inputs, self._precision))
            labels.append(batch.labels_B)
        rows = own_rows(self._images.order)
        count = len(self._row)
        return gather_rows(torch.cat(features), rows, count), gather_rows(torch.cat(labels), rows, count)

    def _rows(self, samples: Sequence[Sample]) -> torch.Tensor:
        return torch.tensor([self._row[case] for case, _ in samples], dtype=torch.int64)
