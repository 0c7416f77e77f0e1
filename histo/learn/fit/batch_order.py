"""Assign cases to the global batches of an epoch, by seed and epoch alone.

A *global* batch is the same list of samples for any number of workers, each of which takes its share of every one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Sample = tuple[int, int]
"""A case, and how often it was drawn before in the same epoch: 0, unless classes are balanced by sampling."""


_ORDER = 2**32 - 1
"""Tells the random numbers of an epoch's order from those of its samples, which are keyed by (seed, epoch, case)."""


@dataclass(frozen=True)
class BatchOrder:
    """The order of some cases, epoch by epoch.

    Attributes:
        members: Indices of the cases.
        batch_size: Samples of a global batch.
        seed: Keys the order.
        shuffle: A new order each epoch; otherwise the given one.
        balance: Class of each member, to draw all classes equally often; None draws each case once.
    """

    members: tuple[int, ...]
    batch_size: int
    seed: int = 0
    shuffle: bool = True
    balance: tuple[int, ...] | None = None

    def steps(self) -> int:
        """Return the number of global batches in an epoch."""
        return len(_cut(len(self.members), self.batch_size))

    def global_batches(self, epoch: int) -> list[list[Sample]]:
        """Return every global batch of an epoch."""
        samples = self._samples(np.random.default_rng((self.seed, epoch, _ORDER)))
        return [samples[start:stop] for start, stop in _cut(len(samples), self.batch_size)]

    def shares(self, epoch: int, rank: int, workers: int) -> list[tuple[list[Sample], int]]:
        """Return one worker's share of every global batch, and how many samples all workers have of it."""
        return [(batch[rank::workers], len(batch)) for batch in self.global_batches(epoch)]

    def _samples(self, random: np.random.Generator) -> list[Sample]:
        if self.balance is not None:
            return _balanced(np.array(self.members), np.array(self.balance), random)
        order = random.permutation(self.members).tolist() if self.shuffle else self.members
        return [(case, 0) for case in order]


def _balanced(
    members: npt.NDArray[np.int64], classes: npt.NDArray[np.int64], random: np.random.Generator
) -> list[Sample]:
    """Draw as many samples as there are members, the classes equally often; a case comes again only after all others.

    Examples:
        >>> drawn = _balanced(np.arange(6), np.array([0, 0, 0, 0, 0, 1]), np.random.default_rng(0))
        >>> sorted(sample for sample in drawn if sample[0] == 5)
        [(5, 0), (5, 1), (5, 2)]
    """
    kinds = random.permutation(np.unique(classes))
    quotas = [len(members[i :: len(kinds)]) for i in range(len(kinds))]
    drawn: list[Sample] = []
    for kind, quota in zip(kinds, quotas, strict=True):
        own = members[classes == kind]
        rounds = [[(int(case), turn) for case in random.permutation(own)] for turn in range(-(-quota // len(own)))]
        drawn += [sample for turn in rounds for sample in turn][:quota]
    return [drawn[i] for i in random.permutation(len(drawn))]


def class_weights(labels: Sequence[int], classes: int) -> npt.NDArray[np.float64]:
    """Return a weight for each class that makes all classes count alike, 1 on average over the cases.

    Examples:
        >>> class_weights([0, 0, 0, 2], classes=3).tolist()
        [0.6666666666666666, 0.0, 2.0]
    """
    counts = np.bincount(np.asarray(labels, np.int64), minlength=classes)
    share = len(labels) / np.count_nonzero(counts)
    return np.divide(share, counts, out=np.zeros(classes), where=counts > 0)


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
