"""Cases to batches: the same global batches for any number of workers, each worker taking its share of every one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from histo.learn.augment import AugmentSpec, augment, sample_generator
from histo.learn.source import Source
from histo.resample import resize


@dataclass(frozen=True)
class Batch:
    """One worker's share of a global batch.

    Attributes:
        images_BCHW: uint8; may be empty.
        labels_B: int64.
        global_count: Samples in the global batch, over all workers.
    """

    images_BCHW: torch.Tensor
    labels_B: torch.Tensor
    global_count: int


@dataclass(frozen=True)
class Stream:
    """Batches of a set of cases.

    Attributes:
        source: Where they are from.
        members: Indices of the cases.
        size_px: Edge of the images that come out.
        batch_size: Samples of a global batch.
        seed: Keys order and augmentation.
        augment: How training images are changed; None leaves images and order as they are.
        loaders: Processes that decode; 0 decodes in this one.
    """

    source: Source
    members: tuple[int, ...]
    size_px: int
    batch_size: int
    seed: int
    augment: AugmentSpec | None
    loaders: int = 0

    def steps(self) -> int:
        """Return the number of global batches in an epoch."""
        return len(_cut(len(self.members), self.batch_size))

    def global_batches(self, epoch: int) -> list[list[int]]:
        """Return every global batch of an epoch as case indices: a new order each epoch, each case once."""
        order = np.array(self.members)
        if self.augment is not None:
            order = np.random.default_rng((self.seed, epoch)).permutation(order)
        return [order[start:stop].tolist() for start, stop in _cut(len(order), self.batch_size)]

    def batches(self, epoch: int, rank: int = 0, workers: int = 1) -> Iterator[Batch]:
        """Yield this worker's share of every global batch; a short last one may leave a worker none."""
        whole = self.global_batches(epoch)
        shares = [batch[rank::workers] for batch in whole]
        loader = DataLoader(
            _Samples(self, epoch),
            batch_sampler=[share for share in shares if share],
            num_workers=self.loaders,
            collate_fn=_stack,
        )
        loaded = iter(loader)
        for batch, share in zip(whole, shares, strict=True):
            images, labels = next(loaded) if share else self._nothing()
            yield Batch(images, labels, len(batch))

    def _nothing(self) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.empty((0, 3, self.size_px, self.size_px), dtype=torch.uint8), torch.empty(0, dtype=torch.int64)


def _cut(count: int, size: int) -> list[tuple[int, int]]:
    """Cut a sequence into batches; a last one of one sample, which has no variance, joins the batch before it.

    Examples:
        >>> _cut(7, 3), _cut(8, 3)
        ([(0, 3), (3, 7)], [(0, 3), (3, 6), (6, 8)])
    """
    starts = list(range(0, count, size))
    if len(starts) > 1 and count - starts[-1] == 1:
        starts.pop()
    return list(zip(starts, [*starts[1:], count], strict=True))


class _Samples(Dataset[tuple[torch.Tensor, int]]):
    """One epoch's images by case index: loaded, resampled, changed."""

    def __init__(self, stream: Stream, epoch: int) -> None:
        self._stream, self._epoch = stream, epoch

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        stream = self._stream
        pixels = resize(stream.source.images.load(index), stream.size_px)
        image = torch.from_numpy(np.array(pixels)).permute(2, 0, 1)
        if stream.augment is not None:
            image = augment(image, stream.augment, sample_generator(stream.seed, self._epoch, index))
        return image, stream.source.cases[index].label


def _stack(samples: Sequence[tuple[torch.Tensor, int]]) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = zip(*samples, strict=True)
    return torch.stack(images), torch.tensor(labels, dtype=torch.int64)
