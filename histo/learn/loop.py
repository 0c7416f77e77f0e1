"""Training as a generator of epochs. Whoever iterates it reports, saves and stops.

Every worker runs the same loop on its share of each global batch. The loss of a batch is a sum over the global batch
divided by its count, and gradients are summed over workers, so the number of workers does not change the result.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from pydantic import Field
from torch.nn.functional import cross_entropy

from histo.learn.collective import rank, sum_gradients, sum_over_workers, world_size
from histo.learn.model import Network
from histo.learn.stream import Stream
from histo.spec import Spec


class FitSpec(Spec):
    """How the network is trained."""

    epochs: int = Field(10, ge=1)
    """Passes over the training images."""
    batch_size: int = Field(32, ge=2)
    """Images per step, over all workers."""
    learning_rate: float = Field(1e-3, gt=0)
    """Step size of AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101)."""
    weight_decay: float = Field(1e-2, ge=0)
    """Decoupled weight decay of AdamW."""


@dataclass(frozen=True)
class Step:
    """One optimiser step: its loss is the mean over the global batch."""

    epoch: int
    step: int
    loss: float
    learning_rate: float


@dataclass(frozen=True)
class Epoch:
    """What a pass over the data gave; losses and accuracies are means over cases, summed over workers."""

    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    learning_rate: float
    images_per_second: float
    seconds: float
    steps: tuple[Step, ...]


@dataclass
class _Tally:
    """Running sums over the cases of this worker."""

    loss: float = 0.0
    correct: int = 0
    count: int = 0

    def add(self, losses_B: torch.Tensor, logits_BK: torch.Tensor, labels_B: torch.Tensor) -> None:
        self.loss += float(losses_B.detach().double().sum())
        self.correct += int((logits_BK.argmax(dim=1) == labels_B).sum())
        self.count += len(labels_B)

    def means(self, device: torch.device) -> tuple[float, float]:
        """Return loss and accuracy over all workers."""
        sums = torch.tensor([self.loss, self.correct, self.count], dtype=torch.float64, device=device)
        loss, correct, count = sum_over_workers(sums).tolist()
        return loss / count, correct / count


def make_optimizer(network: Network, spec: FitSpec) -> torch.optim.Optimizer:
    """Freeze the backbone and optimise the head."""
    network.backbone.requires_grad_(False)
    return torch.optim.AdamW(network.head.parameters(), lr=spec.learning_rate, weight_decay=spec.weight_decay)


def fit(
    network: Network,
    optimizer: torch.optim.Optimizer,
    train: Stream,
    val: Stream,
    epochs: int,
    first_epoch: int = 1,
) -> Iterator[Epoch]:
    """Train, and yield after every epoch; the network then holds that epoch's weights.

    Args:
        network: On the device that it is to be trained on.
        optimizer: Of `make_optimizer`.
        train: Training cases, shuffled and changed anew each epoch.
        val: Validation cases, in order and unchanged.
        epochs: Number of the last epoch.
        first_epoch: Number of the first one, greater than 1 to continue.
    """
    device = next(network.parameters()).device
    for epoch in range(first_epoch, epochs + 1):
        start = time.perf_counter()
        torch.manual_seed(int(np.random.default_rng((train.seed, epoch, rank())).integers(2**62)))  # dropout
        tally = _Tally()
        steps: list[Step] = []
        for loss in _train_epoch(network, optimizer, train, epoch, tally):
            rate = float(optimizer.param_groups[0]["lr"])
            steps.append(Step(epoch, (epoch - 1) * train.steps() + len(steps) + 1, loss, rate))
        trained = time.perf_counter() - start
        train_loss, train_accuracy = tally.means(device)
        val_loss, val_accuracy = evaluate_loss(network, val)
        yield Epoch(
            epoch=epoch,
            train_loss=train_loss,
            train_accuracy=train_accuracy,
            val_loss=val_loss,
            val_accuracy=val_accuracy,
            learning_rate=float(optimizer.param_groups[0]["lr"]),
            images_per_second=len(train.members) / trained,
            seconds=time.perf_counter() - start,
            steps=tuple(steps),
        )


def _train_epoch(
    network: Network, optimizer: torch.optim.Optimizer, stream: Stream, epoch: int, tally: _Tally
) -> Iterator[float]:
    """Take one step per global batch, and yield its mean loss."""
    device = next(network.parameters()).device
    parameters = [p for p in network.parameters() if p.requires_grad]
    network.train()
    network.backbone.eval()
    for batch in stream.batches(epoch, rank(), world_size()):
        labels_B = batch.labels_B.to(device)
        with torch.no_grad():
            features = network.features(batch.images_BCHW.to(device))
        logits_BK = network.head(features)
        losses_B = cross_entropy(logits_BK, labels_B, reduction="none")
        optimizer.zero_grad()
        (losses_B.sum() / batch.global_count).backward()  # type: ignore[no-untyped-call] # torch's own
        sum_gradients(parameters)
        optimizer.step()
        tally.add(losses_B, logits_BK, labels_B)
        yield float(sum_over_workers(losses_B.detach().sum())) / batch.global_count


@torch.no_grad()
def evaluate_loss(network: Network, stream: Stream) -> tuple[float, float]:
    """Return mean loss and accuracy over all cases of a stream and all workers; the network is left evaluating."""
    device = next(network.parameters()).device
    network.eval()
    tally = _Tally()
    for batch in stream.batches(0, rank(), world_size()):
        if len(batch.labels_B):
            logits_BK, labels_B = network(batch.images_BCHW.to(device)), batch.labels_B.to(device)
            tally.add(cross_entropy(logits_BK, labels_B, reduction="none"), logits_BK, labels_B)
    return tally.means(device)
